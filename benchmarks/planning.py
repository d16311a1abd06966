"""How long it takes to plan a million trained models, and in how much memory.

    python benchmarks/planning.py --out planning.md

Two models in two regimes, with as many seeds as it takes, on a corpus that is made up (``made``), of 44 utterances. In
a fresh process they are planned as ``dual-bench plan`` does it: the study is read and checked, every cell named by its
digest, the plan by that of all; cells that share a training are found, the folder of results is looked through, noisy
texts are made, models and encoder are timed, and time, disk and memory are estimated.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from showing import Section, Table, arguments, shown, tell
from timing import Limit

CELLS = 1_000_000
MODELS, REGIMES = ("dual", "text-only"), ("clean", "mixed")
CORPUS = "made:load:train=24,validation=8,test=12,audio=6,vision=5"
SECONDS, GIB = 20.0, 2.0


def planned(seeds: int, scratch: Path) -> dict[str, float]:
    """Plan it here and now: seconds by stage, in order, and ``GiB``, what this process has had in memory at most."""
    began = time.perf_counter()
    from dual_bench import prepare
    from dual_bench.estimate import estimate
    from dual_bench.plan import read_plan
    from dual_bench.store import RunFolder

    found: dict[str, float] = {}

    def lap(stage: str) -> None:
        found[stage] = time.perf_counter() - began - sum(found.values())

    lap("import")
    fields = {"dataset": CORPUS, "models": MODELS, "regimes": REGIMES, "metric": "", "seeds": seeds}
    plan = read_plan("default", {**fields, "training": {"epochs": 2}})
    asked = prepare.ask(plan, None, Path(), scratch / "cache", "cpu")
    lap("cells and digests")
    told = estimate(asked, RunFolder(scratch / "run"), scratch / "cache")
    lap("estimate")
    assert told.cells == len(asked.wanted) == seeds * len(MODELS) * len(REGIMES)
    return found | {"GiB": _peak()}


def _peak() -> float:
    """GiB of memory, pages of files among it."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    (high,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(high.split()[1]) / 2**20


def measure(cells: int = CELLS) -> Section:
    seeds = cells // (len(MODELS) * len(REGIMES))
    with tempfile.TemporaryDirectory() as temporary:
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, __file__, "--seeds", str(seeds), "--scratch", temporary],
            stdout=subprocess.PIPE, check=True, encoding="utf-8",
        )  # fmt: skip
        whole = time.perf_counter() - began
    found: dict[str, float] = json.loads(done.stdout)
    memory = found.pop("GiB")
    limits = (
        Limit(f"planning {cells:,} cells", whole - found["estimate"], SECONDS, "s"),
        Limit(f"planning {cells:,} cells, and an estimate", whole, SECONDS, "s"),
        Limit(f"memory of planning {cells:,} cells", memory, GIB, "GiB"),
    )
    rows = [(stage, shown(seconds)) for stage, seconds in found.items()]
    rows.append(("the whole process", shown(whole)))
    about = (
        f"{len(MODELS)} models in {len(REGIMES)} regimes with {seeds:,} seeds, {cells:,} cells, on 44 utterances that "
        "are made up; once, in a fresh process. Memory is the most that it had resident, libraries among it, without "
        "the processes in which it times models. Texts, and the timing of models and encoder, which do not grow with "
        "the cells, are part of the estimate."
    )
    return Section("Planning", about, limits=limits, tables=(Table("Seconds", ("stage", "seconds"), tuple(rows)),))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, help="only plan so many, in this process, and print what it took as JSON")
    parser.add_argument("--scratch", type=Path, help="folder for the features of --seeds")
    asked = parser.parse_args()
    if asked.seeds:
        print(json.dumps(planned(asked.seeds, asked.scratch)))
        return
    tell(measure(), asked)


if __name__ == "__main__":
    main()
