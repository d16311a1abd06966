"""Every benchmark, one after another, each in a process of its own, and the page that has all their ratios.

    python benchmarks/all.py --data DATA --out reports/reference

DATA is the folder of real corpora; what needs one that is not there is left out, and the page says so. The page is
written anew after each benchmark. Names after the options choose a few of them: `all.py --out DIR training grid`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from showing import SECTION, Section, limit_table, ratio_table
from timing import machine

from dual_bench.store import write_text

HERE = Path(__file__).resolve().parent
PAGE = "benchmarks.md"


@dataclass(frozen=True)
class Benchmark:
    """A program beside this one, and what it is asked in passing. ``page`` is the page of its own that it has, if any;
    ``needs`` a folder of DATA; ``scratch`` says that it is to be given a folder for what it makes."""

    page: str = ""
    needs: str = ""
    scratch: bool = False
    asked: tuple[str, ...] = ()


BENCHMARKS: Mapping[str, Benchmark] = {
    "training": Benchmark(),
    "encoding": Benchmark("encoding-speed.md"),
    "grid": Benchmark(),
    "study": Benchmark(),
    "scaling": Benchmark(),
    "engines": Benchmark(),
    "startup": Benchmark(asked=("--repetitions", "3")),
    "planning": Benchmark(),
    "memory": Benchmark(scratch=True, asked=("--utterances", "10000", "--share", "3000")),
    "corruptions": Benchmark("corruption-speed.md"),
    "resampling": Benchmark("resampling-speed.md"),
    "rendering": Benchmark("rendering-speed.md"),
    "decoding": Benchmark("decoding-speed.md", "meld_clips"),
}


def measured(name: str, data: Path, out: Path) -> Section | str:
    """What benchmark ``name`` finds, or why there is nothing."""
    benchmark = BENCHMARKS[name]
    command = [sys.executable, str(HERE / f"{name}.py"), *benchmark.asked]
    if benchmark.needs:
        if not (data / benchmark.needs).is_dir():
            return f"not measured: {benchmark.needs} is not there"
        command.append(str(data))
    if benchmark.page:
        command += ["--out", str(out / benchmark.page)]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    with tempfile.TemporaryDirectory() as temporary:
        kept = Path(temporary) / "section.json"
        if benchmark.scratch:
            command += ["--scratch", temporary]
        done = subprocess.run([*command, "--keep", str(kept)], env=environment)
        return SECTION.validate_json(kept.read_bytes()) if done.returncode == 0 else "not measured: it failed"


def page(found: Mapping[str, Section | str], about: str) -> str:
    """One table of all ratios and one of all limits, then the details of those that have no page of their own."""
    sections = {name: section for name, section in found.items() if isinstance(section, Section)}
    tables = (
        ratio_table([ratio for section in sections.values() for ratio in section.ratios]),
        limit_table([limit for section in sections.values() for limit in section.limits]),
    )
    lines = [
        "# How fast it is",
        "",
        f"`make bench`; the last page that was committed. {about}.",
        "",
        "A ratio is how many times as long the alternative takes for the same work in the same run: that of the "
        "medians of the repetitions, in which both take turns, and the lowest and highest of a single repetition. What "
        "is measured, and what is scaled up from a sample, stands below. What is not met is said so, and does not make "
        "`make bench` fail: only a benchmark that ends with an error does.",
        "",
        *(table.as_markdown() for table in tables if table.rows),
    ]
    for name, section in found.items():
        own = BENCHMARKS[name].page
        if isinstance(section, str):
            lines.append(f"## {name}\n\n{section}.\n")
        elif own:
            lines.append(f"## {section.title}\n\n{section.about} The details are in [{own}]({own}).\n")
        else:
            lines.append(section.as_markdown(level=2))
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"by default all: {', '.join(BENCHMARKS)}")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the real corpora")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pages")
    asked = parser.parse_args(given)
    if unknown := [name for name in asked.names if name not in BENCHMARKS]:
        parser.error(f"unknown benchmark '{unknown[0]}'; known: {', '.join(BENCHMARKS)}")
    about, found = machine(), {}
    for name in asked.names or BENCHMARKS:
        began = time.perf_counter()
        print(f"--- {name}", flush=True)
        found[name] = measured(name, asked.data, asked.out)
        print(f"--- {name}: {time.perf_counter() - began:.0f} s", flush=True)
        write_text(asked.out / PAGE, page(found, about))
    return int(any(isinstance(section, str) and "failed" in section for section in found.values()))


if __name__ == "__main__":
    sys.exit(main())
