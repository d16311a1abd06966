"""Fuzz all targets, and say what was found: ``make fuzz``, or ``PYTHONPATH=tests python -m fuzz --inputs 1000000``.

Every target has a process of its own for each engine, one after another, within bounds of memory and time. The table
counts inputs, seconds, findings and memory; what was found is told below it, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

WHOLE = 1_000_000
_COLUMNS = "{:<22} {:<10} {:>9} {:>8} {:>9} {:>8} {:>6} {:>6}"
HEAD = _COLUMNS.format("target", "engine", "inputs", "seconds", "a second", "findings", "MiB", "grown")
"""``MiB`` in memory at most, and how much of it has ``grown`` since the imports."""


def main() -> int:
    parser = argparse.ArgumentParser("fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=WHOLE, help="of all targets and both engines together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=["hypothesis", "atheris"], help="by default both, one after the other")
    parser.add_argument("--target", action="append", help="by default all; may be repeated")
    parser.add_argument("--json", type=Path, help="where to keep the table, and add to it")
    chosen = parser.parse_args()
    if chosen.engine is None:  # atheris has to see the imports, which hypothesis is faster without
        return max(
            subprocess.call([sys.executable, "-m", "fuzz", *sys.argv[1:], "--engine", e])
            for e in ("hypothesis", "atheris")
        )
    if chosen.engine == "atheris" and importlib.util.find_spec("atheris") is None:
        print("atheris is not installed (pip install 'dual-bench[fuzz]'): its part of the inputs is left out")
        return 0
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return _all(chosen.engine, chosen.target, chosen.inputs, chosen.seed, chosen.json)


def _targets(engine: str) -> Any:
    if engine == "hypothesis":
        from fuzz.targets import TARGETS

        return TARGETS
    import atheris

    with atheris.instrument_imports(include=["dual_bench"]):
        from fuzz.targets import TARGETS
    return TARGETS


def _all(engine: str, names: list[str] | None, inputs: int, seed: int, kept: Path | None) -> int:
    known = {target.name: target for target in _targets(engine)}
    if unknown := set(names or ()) - known.keys():
        print(f"unknown targets {', '.join(sorted(unknown))}; known: {', '.join(known)}")
        return 2
    targets = [known[name] for name in names or known]
    print(HEAD, flush=True)
    rows: list[dict[str, Any]] = []
    for target in targets:
        if not getattr(target, engine):
            continue
        row = _apart(engine, target, max(1, round(getattr(target, engine) * inputs / WHOLE)), seed)
        rows.append({"target": target.name, "engine": engine, **row})
        _tell(target.name, engine, row)
        if kept:
            kept.write_text(json.dumps([*_others(kept, engine, target.name), rows[-1]], indent=1))
    sums = {key: sum(row[key] for row in rows) for key in ("inputs", "seconds")}
    found = {f"{row['target']}: {where}": what for row in rows for where, what in row["findings"].items()}
    _tell("all", engine, {**sums, "findings": found, "peak": max(row["peak"] for row in rows), "loaded": 0})
    for where, what in found.items():
        print(f"\n{where}\n{what}")
    return int(bool(found))


def _tell(name: str, engine: str, row: dict[str, Any]) -> None:
    speed = row["inputs"] / max(row["seconds"], 1e-9)
    grown = f"{(row['peak'] - row['loaded']) / 2**20:,.0f}" if row["loaded"] else ""
    numbers = f"{row['inputs']:,}", f"{row['seconds']:,.1f}", f"{speed:,.0f}", len(row["findings"])
    print(_COLUMNS.format(name, engine, *numbers, f"{row['peak'] / 2**20:,.0f}", grown), flush=True)


def _others(kept: Path, engine: str, name: str) -> list[dict[str, Any]]:
    """What the table holds besides."""
    rows = json.loads(kept.read_text()) if kept.exists() else []
    return [row for row in rows if (row["engine"], row["target"]) != (engine, name)]


def _apart(engine: str, target: Any, count: int, seed: int) -> dict[str, Any]:
    """What a process of its own, which has all imports, says of a target."""
    with tempfile.TemporaryDirectory() as folder:
        out, said = Path(folder) / "tally.json", Path(folder) / "said"
        process = os.fork()
        if not process:
            _child(engine, target, count, seed, out, said)
        _, status = os.waitpid(process, 0)
        row = {"inputs": 0, "seconds": 0.0, "peak": 0, "loaded": 0, "findings": {}}
        if out.exists():
            row = json.loads(out.read_text())
        if status:
            what = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"code {os.WEXITSTATUS(status)}"
            last = [file.read_bytes() for file in _places(process, "last")]
            row["findings"][f"the process ended with {what}"] = f"{last}\n{said.read_text(errors='replace')[-4000:]}"
        for place in _places(process):
            shutil.rmtree(place, ignore_errors=True)
        return row


def _places(process: int, inner: str = "") -> list[Path]:
    from fuzz.base import MEMORY

    return [place / inner for place in MEMORY.glob(f"dual-bench-fuzz-{process}-*") if (place / inner).exists()]


def _child(engine: str, target: Any, count: int, seed: int, out: Path, said: Path) -> None:
    from fuzz.base import place
    from fuzz.engines import ENGINES
    from hypothesis.errors import HypothesisWarning

    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", HypothesisWarning)  # of large reprs
    code = 1
    try:
        os.environ["DUAL_BENCH_CACHE"] = str(place() / "cache")
        ENGINES[engine](target, count, seed, out)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
