"""Metrics of every cell, as it is finished, to a tool that many people watch trainings with.

Each cell is a run of its own there: its losses epoch by epoch, its best epoch and how long it took, and what it was
trained with. What the tools keep is a copy to look at; results are in the run folder alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from dual_bench.catalog import did_you_mean
from dual_bench.schema import CellInfo
from dual_bench.types import UserError


class Tracker(Protocol):
    """Is shown every finished cell, and closed at the end."""

    def cell(self, info: CellInfo) -> None: ...

    def close(self) -> None: ...


def title(info: CellInfo) -> str:
    """What a cell is called among others: ``dual_sdm=off-mixed-seed0-official-1a2b3c4d``, with the head of its digest.

    It can be the name of a folder.
    """
    parts = (info.model, info.variant, info.regime, info.corruption, f"seed{info.seed}", info.fold, info.digest[:8])
    name = "-".join(part for part in parts if part)
    return "".join(sign if sign.isalnum() or sign in "=.,_-" else "_" for sign in name)


def settings(info: CellInfo) -> dict[str, str | int | float]:
    """With what a cell was trained."""
    names = ("digest", "model", "variant", "regime", "corruption", "rate", "seed", "fold", "device", "threads", "code")
    return {name: getattr(info, name) for name in names}


def outcome(info: CellInfo) -> dict[str, float]:
    """How its training ended."""
    names = ("best_epoch", "parameters", "seconds_fit", "seconds_predict")
    return {name: float(getattr(info, name)) for name in names}


class TensorBoard:
    """Event files in ``tensorboard/`` of the run folder: ``tensorboard --logdir FOLDER/tensorboard`` shows them."""

    def __init__(self, folder: Path, plan_name: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer, self._folder = SummaryWriter, folder / "tensorboard"

    def cell(self, info: CellInfo) -> None:
        with self._writer(str(self._folder / title(info))) as writer:
            for epoch, losses in enumerate(info.history, 1):
                for name, value in losses.items():
                    writer.add_scalar(f"loss/{name}", value, epoch)
            writer.add_hparams(settings(info), outcome(info), run_name=".")

    def close(self) -> None:
        """Every cell has a file of its own, which is closed."""


_IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""By default MLflow holds up a run for many minutes where its server does not answer."""


class MLflow:
    """Runs of an experiment with the name of the plan, where ``MLFLOW_TRACKING_URI`` says, or else in ``mlflow.db`` of
    the run folder."""

    def __init__(self, folder: Path, plan_name: str) -> None:
        import mlflow

        for name, value in _IMPATIENT.items():
            os.environ.setdefault(name, value)
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # only the command line may write to the screen
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.absolute() / 'mlflow.db'}"
        self._mlflow, self._client = mlflow.entities, mlflow.MlflowClient(uri)
        known = self._client.get_experiment_by_name(plan_name)
        self._experiment = known.experiment_id if known else self._client.create_experiment(plan_name)

    def cell(self, info: CellInfo) -> None:
        run = self._client.create_run(self._experiment, run_name=title(info))
        last, now = len(info.history), run.info.start_time
        curves = [(f"loss/{k}", v, epoch) for epoch, part in enumerate(info.history, 1) for k, v in part.items()]
        numbers = [*curves, *((name, value, last) for name, value in outcome(info).items())]
        metrics = [self._mlflow.Metric(name, value, now, step) for name, value, step in numbers]
        params = [self._mlflow.Param(name, str(value)) for name, value in settings(info).items()]
        self._client.log_batch(run.info.run_id, params=params)
        for start in range(0, len(metrics), 1000):  # no more are taken at a time
            self._client.log_batch(run.info.run_id, metrics[start : start + 1000])
        self._client.set_terminated(run.info.run_id)

    def close(self) -> None:
        """Every cell is sent when it is shown."""


_PATIENCE = 30
"""Seconds for W&B to know who one is."""


class WandB:
    """Runs of a project with the name of the plan; what has to be sent lies in ``wandb/`` of the run folder.

    Who one is, and whether anything is sent at all, is said as W&B has it: ``wandb login``, ``WANDB_MODE=offline``.
    """

    def __init__(self, folder: Path, plan_name: str) -> None:
        import wandb

        self._wandb, self._folder, self._project = wandb, folder, plan_name

    def cell(self, info: CellInfo) -> None:
        # it may ask nobody for a key, nor write to a screen that shows a run
        quiet = self._wandb.Settings(login_timeout=_PATIENCE, silent=True, console="off")
        run = self._wandb.init(
            project=self._project,
            name=title(info),
            dir=str(self._folder),
            config=settings(info),
            reinit="create_new",
            settings=quiet,
        )
        for epoch, losses in enumerate(info.history, 1):
            run.log({f"loss/{name}": value for name, value in losses.items()}, step=epoch)
        run.summary.update(outcome(info))
        run.finish()

    def close(self) -> None:
        """Every cell is finished when it is shown."""


TRACKERS: Mapping[str, Callable[[Path, str], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}
"""Made of the run folder and the plan's name; each is called like the package that it needs, and like its extra."""


class Tolerant:
    """A tracker that stops nothing: at its first error this is ``told``, and nothing is shown to it any more.

    It is made when there is something to show, so that no server has to answer before the first training.
    """

    def __init__(self, name: str, make: Callable[[], Tracker], told: Callable[[str], None]) -> None:
        self._name = name
        self._make = make
        self._told = told
        self._tracker: Tracker | None = None
        self._failed = False

    def cell(self, info: CellInfo) -> None:
        self._try(lambda: self._made().cell(info))

    def close(self) -> None:
        if self._tracker is not None:
            self._try(self._tracker.close)

    def _made(self) -> Tracker:
        if self._tracker is None:
            self._tracker = self._make()
        return self._tracker

    def _try(self, work: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            work()
        except Exception as error:  # of somebody else's library and server, anything may come
            self._failed = True
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self._told(f"{self._name} failed ({said}); the run goes on without it")


def tracker_of(name: str, folder: Path, plan_name: str, told: Callable[[str], None]) -> Tracker:
    """The tracker called ``name`` for the run in ``folder``, which never stops a run; ``told`` hears of its failure.

    UserError as in ``check_tracker``.
    """
    check_tracker(name)
    return Tolerant(name, lambda: TRACKERS[name](folder, plan_name), told)


def check_tracker(name: str) -> None:
    """UserError where there is no tracker of this name, or its package is not installed."""
    if name not in TRACKERS:
        raise UserError(f"unknown tracker '{name}'{did_you_mean(name, TRACKERS)}")
    if find_spec(name) is None:
        raise UserError(f"tracker '{name}' needs a package: pip install 'dual-bench[{name}]'")
