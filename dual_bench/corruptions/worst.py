"""The worst words to lose, for one model: the only corruption that depends on the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dual_bench.types import Corruption, FloatArray

Harm = Callable[[Sequence[int], Sequence[str]], FloatArray]
"""(which utterances, (n,); a text for each) -> the loss (n,) of the model on each."""


def drop_worst(
    texts: Sequence[str], rates: Sequence[float], harm: Harm, rngs: Sequence[np.random.Generator]
) -> list[list[str]]:
    """Each text without the k words whose loss hurts most, found greedily; a list of texts for each of ``rates``.

    Step by step, every remaining word is left out on trial, and the one without which ``harm`` is largest goes for
    good; of equal ones the first. (Greedy deletion after Feng et al. 2018, "Pathologies of Neural Models Make
    Interpretations Difficult", EMNLP, there to keep a prediction, here to ruin it.) k is floor(rate x words + u) with
    one u in [0, 1) for each text, so that its mean is rate x words, and heavier noise contains lighter noise. Greedy
    is a lower bound of the worst: no set of words is tried but along the path.

    >>> lengths = lambda rows, texts: np.array([-float(len(text)) for text in texts])
    >>> drop_worst(["we opened the letter"], [0.5, 1.0], lengths, [np.random.default_rng(0)])
    [['we the'], ['']]
    """
    words = [text.split() for text in texts]
    offset = [rng.random() for rng in rngs]
    counts = {rate: [min(int(rate * len(w) + u), len(w)) for w, u in zip(words, offset, strict=True)] for rate in rates}
    steps = [max((counts[rate][i] for rate in rates), default=0) for i in range(len(texts))]
    paths = [[list(w)] for w in words]
    for step in range(max(steps, default=0)):
        unfinished = [i for i in range(len(texts)) if step < steps[i]]
        trials = {i: _without_one(paths[i][-1]) for i in unfinished}
        rows = [i for i in unfinished for _ in trials[i]]
        harms = iter(harm(rows, [" ".join(words) for i in unfinished for words in trials[i]]))
        for i in unfinished:
            paths[i].append(trials[i][int(np.argmax([next(harms) for _ in trials[i]]))])
    return [[texts[i] if k == 0 else " ".join(paths[i][k]) for i, k in enumerate(counts[rate])] for rate in rates]


def _without_one(words: list[str]) -> list[list[str]]:
    return [words[:i] + words[i + 1 :] for i in range(len(words))]


WORST_CASE = Corruption("worst-case", 1, drop_worst, rate_is="words lost, the worst for each model", needs="model")
