"""A study by processes of this machine, and by Ray with as many workers.

    python benchmarks/engines.py --out engines.md

The study takes about three minutes on two cores: the default models on the embedded corpus, with more seeds than by
default. Both start with everything encoded and no cell done; the start of the cluster is counted. In turns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from showing import Section, arguments, tell
from timing import Limit, in_turns

from dual_bench import runner
from dual_bench.cluster import connected
from dual_bench.engine import Engine, Local
from dual_bench.plan import Plan, read_plan
from dual_bench.processes import cores
from dual_bench.runner import Manner

FIELDS: Mapping[str, Any] = {"dataset": "synthetic", "models": ["dual", "concat"], "seeds": 9, "metric": ""}
MOST = 1.15


def study(plan: Plan, cache: Path, engine: Callable[[], AbstractContextManager[Engine]]) -> None:
    with tempfile.TemporaryDirectory() as temporary, engine() as chosen:
        folder = Path(temporary)
        runner.run(plan, Path(), cache, folder / "reports", folder / "run", "cpu", how=Manner(engine=chosen))


def measure(repetitions: int, fields: Mapping[str, Any] = FIELDS) -> Section:
    plan = read_plan("default", dict(fields))
    with tempfile.TemporaryDirectory() as temporary:
        cache = Path(temporary)
        contestants = {
            "local": partial(study, plan, cache, lambda: nullcontext(Local(cores()))),
            "ray": partial(study, plan, cache, lambda: connected(jobs=cores())),
        }
        study(read_plan("default", {**fields, "seeds": 1}), cache, lambda: nullcontext(Local(cores())))  # encodes all
        found = in_turns(contestants, repetitions)
    local, ray = found["local"], found["ray"]
    ratio = sum(ray) / sum(local)
    about = (
        f"{' and '.join(plan.models)} on the embedded corpus, {plan.seeds} seeds in each regime, everything encoded "
        f"before: {', '.join(f'{seconds:.0f}' for seconds in local)} s by {cores()} processes, "
        f"{', '.join(f'{seconds:.0f}' for seconds in ray)} s by Ray with as many workers, its start included."
    )
    limits = (Limit("seconds by Ray to seconds by processes of this machine", ratio, MOST, ""),)
    return Section("Engines", about, limits=limits)


def main() -> None:
    asked = arguments(__doc__, repetitions=1).parse_args()
    tell(measure(asked.repetitions), asked)


if __name__ == "__main__":
    main()
