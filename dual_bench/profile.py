"""Where a study's time goes: how long each stage took, and for how long processes were busy with each model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from dual_bench.types import DAMAGED

if TYPE_CHECKING:
    from dual_bench.schema import CellInfo, RunInfo
    from dual_bench.types import Report


class ModelTime(BaseModel):
    """What the trainings of one system took, summed over processes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str
    """``model:settings``."""
    trainings: int
    seconds_fit: float
    """Of training, validation after each epoch included."""
    seconds_predict: float
    """Of everything that trained models were asked, the probe and worst cases included."""
    utterances: float
    """Training utterances seen, an utterance once an epoch; where a corpus has several folds, of folds of mean size."""
    answers: int
    """Rows of predictions that came out of it."""


class Profile(BaseModel):
    """``profile.json``: the last sitting of a run in which a model was trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: dict[str, float]
    """Wall seconds, in the order in which the stages began."""
    processes: int
    """That trained side by side."""
    models: tuple[ModelTime, ...]
    """Those that took longest first."""


class Stopwatch:
    """Adds up the wall time of stages: each lasts until another begins. The first, ``start``, begins at once."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._stage, self._since = "start", clock()
        self._seconds: dict[str, float] = {}

    def begin(self, stage: str) -> None:
        """End the stage that runs, and begin another or go on with it."""
        now = self._clock()
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now

    def watching(self, report: Report) -> Report:
        """The same report, whose stages are timed."""

        def timed(stage: str, done: int, total: int, detail: str) -> None:
            if stage != DAMAGED:
                self.begin(stage)
            report(stage, done, total, detail)

        return timed

    def stages(self) -> dict[str, float]:
        """Seconds of each stage up to now."""
        self.begin(self._stage)
        return dict(self._seconds)


def profile(stages: dict[str, float], info: RunInfo, cells: Iterable[CellInfo]) -> Profile:
    """Of the run ``info``, whose ``cells`` were trained in these stages."""
    from dual_bench.stats.frame import system_name  # pandas takes a while, which is to be timed

    size = info.corpus.counts["train"] / info.corpus.folds
    trainings: dict[str, dict[tuple[int, str, float], list[CellInfo]]] = {}
    for cell in cells:
        # cells that share their training hold the same seconds, to the last bit
        key = (cell.seed, cell.fold, cell.seconds_fit)
        trainings.setdefault(system_name(cell.model, cell.variant), {}).setdefault(key, []).append(cell)
    models = [
        ModelTime(
            system=system,
            trainings=len(shared),
            seconds_fit=sum(first.seconds_fit for first, *_ in shared.values()),
            seconds_predict=sum(first.seconds_predict for first, *_ in shared.values()),
            utterances=sum(size * len(first.history) for first, *_ in shared.values()),
            answers=sum(cell.rows for group in shared.values() for cell in group),
        )
        for system, shared in trainings.items()
    ]
    models.sort(key=lambda m: -m.seconds_fit - m.seconds_predict)
    return Profile(stages=stages, processes=info.provenance.jobs, models=tuple(models))
