"""How long a command takes that trains nothing, against importing torch, in one run.

    python benchmarks/startup.py --out startup.md

Each command is a fresh process, and the contestants take turns. The report is that of the committed reference study.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from showing import Section, Table, arguments, shown, tell
from timing import Limit, Ratio, in_turns

REFERENCE = Path(__file__).resolve().parents[1] / "reports" / "reference" / "synthetic"
HELP_SECONDS = 0.5


def called(command: Sequence[str]) -> None:
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)


def measure(repetitions: int) -> Section:
    ours = ["-m", "dual_bench.cli"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = shutil.copytree(REFERENCE, Path(temporary) / "run")
        commands = {
            "`dual-bench --help`": [*ours, "--help"],
            "`dual-bench list`": [*ours, "list"],
            "`dual-bench preview`": [*ours, "preview", "We opened the letter after lunch."],
            "`dual-bench report`": [*ours, "report", str(folder)],
            "`import torch`": ["-c", "import torch"],
        }
        for command in commands.values():
            called(command)  # files come from memory afterwards
        found = in_turns({name: partial(called, command) for name, command in commands.items()}, repetitions)
    torch = found.pop("`import torch`")
    ratios = tuple(
        Ratio("start-up", name, "`python -c 'import torch'`", seconds, torch) for name, seconds in found.items()
    )
    median = {name: statistics.median(seconds) for name, seconds in found.items()}
    limit = Limit("`dual-bench --help`", median["`dual-bench --help`"], HELP_SECONDS, "s")
    about = (
        f"Fresh processes, {repetitions} of each in turns, after one whose time does not count. `report` renders page "
        "and tables of the committed reference study; the others do all that they are asked for."
    )
    rows = tuple((name, shown(min(s)), shown(median[name]), shown(max(s))) for name, s in found.items())
    return Section("Start-up", about, ratios, (limit,), (Table("Seconds", ("", "lowest", "median", "highest"), rows),))


def main() -> None:
    asked = arguments(__doc__, repetitions=7).parse_args()
    tell(measure(asked.repetitions), asked)


if __name__ == "__main__":
    main()
