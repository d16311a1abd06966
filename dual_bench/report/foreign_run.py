"""Predictions of another toolkit in the shape of a run, so that every statistic of a report applies to them.

What only a run of dual-bench knows is not made up: there are no cells, no texts, no floors and no ceilings, and
``RunInfo.source`` tells the report to leave out what rests on them.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from dual_bench.catalog import METRICS, did_you_mean
from dual_bench.durable import sha256_of
from dual_bench.metrics import Metric
from dual_bench.report.foreign import Foreign, read
from dual_bench.schema import SCHEMA_VERSION, TEXT_COLUMNS, CorpusInfo, Provenance, RunInfo, SourceInfo
from dual_bench.stats.frame import system_name
from dual_bench.store import Run, RunFolder, apart
from dual_bench.types import TRANSCRIPT_PREFIX, Task, UserError

_SUM, _ROUNDING = 1e-3, 1e-6
"""How far the sum of class probabilities may be from 1 (half precision rounds to that), and each from [0, 1]."""
_PACKAGES = ("numpy", "pandas", "pyarrow", "scipy", "matplotlib")


def read_predictions(files: Sequence[Path], metric: str | None, folder: Path) -> list[Run]:
    """A run for each corpus in ``files``; UserError where a file, or ``metric`` for it, is at fault."""
    if metric is not None:
        METRICS.load(metric)  # an unknown name is told before the work
    found = [(path, corpus) for path in files for corpus in read(path)]
    names = [corpus.name for _, corpus in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"expected every corpus once, found '{twice[0]}' more than once; name corpora in a column 'dataset'"
        )
    command = shlex.join(
        ["dual-bench", "report", *(part for path in files for part in ("--predictions", str(path)))]
        + ([] if metric is None else ["--metric", metric])
    )
    digests = {path: sha256_of(path) for path in files}
    return [_run(path, digests[path], corpus, metric, folder, command) for path, corpus in found]


def _run(path: Path, digest: str, corpus: Foreign, metric: str | None, folder: Path, command: str) -> Run:
    rows, outputs = corpus.rows, corpus.outputs
    task = Task("regression") if outputs == 1 else Task("classification", tuple(map(str, range(outputs))))
    sure, doubt = _probabilities(rows, outputs)
    notes = [*corpus.notes, *([f"Metrics of confidence are left out: {doubt}."] if doubt else [])]
    chosen = _metric(metric, task, sure, doubt, path)
    systems = [system_name(*pair) for pair in rows[["model", "variant"]].drop_duplicates().itertuples(index=False)]
    noisy = [c for c in map(str, apart(rows)[0]["corruption"].unique()) if c != "clean"]
    plan = {
        "name": corpus.name,
        "models": list(dict.fromkeys(systems)),
        "regimes": list(map(str, rows["regime"].unique())),
        "corruptions": [c for c in noisy if not c.startswith(TRANSCRIPT_PREFIX)],
        "root_seed": 0,
        "metric": chosen.name,
    }
    info = RunInfo(
        schema_version=SCHEMA_VERSION,
        status="complete",
        name=corpus.name,
        digest=digest,
        plan=plan,
        corpus=CorpusInfo(
            name=corpus.name,
            task=task.kind,
            classes=task.classes,
            low=None,
            high=None,
            counts={"test": int(rows["utterance"].nunique())},
            folds=int(rows["fold"].nunique()),
            clusters=int(rows["cluster"].nunique()),
            fingerprint=digest,
            licence="unknown",
            notes=(),
            transcripts=tuple(c.removeprefix(TRANSCRIPT_PREFIX) for c in noisy if c.startswith(TRANSCRIPT_PREFIX)),
        ),
        cells=(),
        floors={},
        ceilings=(),
        encoders={},
        provenance=_rendering(command),
        source=SourceInfo(file=str(path), sha256=digest, probabilities=sure, notes=tuple(notes)),
    )
    return Run(RunFolder(folder), info, (), {}, pd.DataFrame(columns=list(TEXT_COLUMNS)), held=rows)


def _metric(name: str | None, task: Task, sure: bool, doubt: str, path: Path) -> Metric:
    """The primary metric: by default accuracy or MAE, as in a run."""
    known: list[Metric] = [METRICS.load(each) for each in METRICS.entries]
    usable = [m.name for m in known if m.task == task.kind and (sure or m.about == "prediction")]
    found: Metric = METRICS.load(name or usable[0])
    if found.task != task.kind:
        scores = "one score" if task.kind == "regression" else f"{task.outputs} scores"
        raise UserError(
            f"metric '{found.name}' is not for {task.kind}, which {path} holds as a row has {scores}"
            f"{did_you_mean(found.name, usable)}"
        )
    if found.about == "confidence" and not sure:
        raise UserError(f"metric '{found.name}' needs class probabilities, but of {path} {doubt}")
    return found


def _probabilities(rows: pd.DataFrame, outputs: int) -> tuple[bool, str]:
    """Whether every row of a classification is a distribution over classes, and what speaks against it."""
    if outputs == 1:
        return False, ""
    scores = rows[[f"score_{i}" for i in range(outputs)]].to_numpy()
    inside = ((scores >= -_ROUNDING) & (scores <= 1 + _ROUNDING)).all(axis=1)
    wrong = ~(inside & (np.abs(scores.sum(axis=1, dtype=float) - 1) <= _SUM))
    if not wrong.any():
        return True, ""
    return False, f"the scores of {wrong.sum():,} of {len(rows):,} rows are no class probabilities"


def _rendering(command: str) -> Provenance:
    """What rendered the report; nobody knows what made the predictions."""
    return Provenance(
        dual_bench=metadata.version("dual-bench"),
        commit=None,
        dirty=None,
        python=platform.python_version(),
        platform=platform.platform(),
        packages={name: metadata.version(name) for name in _PACKAGES},
        device="unknown",
        threads=0,
        jobs=0,
        command=command,
        started="unknown",
    )
