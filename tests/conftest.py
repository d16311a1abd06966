"""What all tests share: real data where there is some, a cache of their own, one thread, no network."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported, so no fixture comes early enough
if "PYTHONWARNINGS" in os.environ:  # Ray's dashboard, a process of its own, asks for an event loop in the old way
    os.environ["PYTHONWARNINGS"] += ",ignore:There is no current event loop:DeprecationWarning"
torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as of a job in the background; tests interrupt what they start
    signal.signal(signal.SIGINT, signal.default_int_handler)
LONGEST = (
    "chaos cluster nothing_lost speech cli study sealed merge planted text_backends verification browser recogniser "
    "readme media_study runner battery_report corruptions measure ablation_report hostile worth_report report models "
    "extraction real_media more_figures reference battery effects probe stacked ablation synthetic corpora tuning "
    "certificate noise"
)
"""Files that take ten seconds or more, the longest first."""
ROOT = Path(__file__).resolve().parents[1]
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--any-order", action="store_true", help="files in random order too, not the longest first")


@pytest.hookimpl(trylast=True)  # after pytest-randomly, which shuffles everything
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files that take long are begun first, so that no worker ends with one alone."""
    if not config.getoption("any_order"):
        rank = {f"test_{name}.py": place for place, name in enumerate(LONGEST.split())}
        items.sort(key=lambda item: (rank.get(item.path.name, len(rank)), item.path))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from or written to the user's feature cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUAL_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _small_pictures() -> Iterator[None]:
    """PNG files have few pixels: no test looks at them, and drawing them is a third of a report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dual_bench.report.canvas._DPI", 50)
        yield


@pytest.fixture
def no_figures() -> Iterator[None]:
    """For tests that run the command line and look at anything else."""
    from calling import without_figures

    with without_figures():
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the real corpora; a test that needs it is skipped where it is absent."""
    named = os.environ.get("DUAL_BENCH_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real corpora: {folder} is absent; name the folder with DUAL_BENCH_DATA")
    return folder


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder of the sources; a test of them is skipped where the tests lie elsewhere, beside no package."""
    if not (ROOT / "dual_bench").is_dir():
        pytest.skip(f"the sources: {ROOT} has none, the package is installed")
    return ROOT


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders of networks with random weights: wav2vec2, timm, bert and roberta, as ``random_networks`` writes them."""
    from random_networks import write

    folder = tmp_path_factory.mktemp("networks")
    write(folder)
    yield folder
    shutil.rmtree(folder)  # hundreds of megabytes, which pytest would keep for three sessions


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[float], Path]]:
    """``small_disk(megabytes)`` is the folder of a new file system of that size, which can be filled; a test that needs
    one is skipped where none can be mounted."""
    mounted: list[Path] = []

    def make(megabytes: float) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={round(megabytes * 1024)}k", "tmpfs", str(folder)]
        try:
            subprocess.run(command, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a small disk: tmpfs cannot be mounted here ({error})")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # something may still be mapped


@pytest.fixture(scope="session")
def another_process() -> Callable[[str], str]:
    """Run Python code in a fresh process that hashes strings otherwise; gives what it prints."""

    def run(code: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": "4321"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env=environment, encoding="utf-8"
        )
        return done.stdout

    return run
