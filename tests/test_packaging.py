"""What a wheel puts where."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"  # a build leaves folders behind
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "reports", "tests")
    shutil.copytree(checkout, source, ignore=ignored)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(build, capture_output=True, check=True, env=os.environ | {"PYTHONWARNINGS": "default"})
    return next(out.glob("*.whl"))


def test_the_wheel_has_the_studies_and_puts_nothing_beside_the_package(wheel: Path, checkout: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"dual_bench"}
    studies = {path.name for path in (checkout / "ablations").glob("*.toml")}
    assert {name.rsplit("/", 1)[1] for name in names if name.startswith("dual_bench/studies/")} >= studies
    assert "dual_bench/py.typed" in names
    assert [name for name in names if name.startswith("dual_bench/report/templates/")]


def test_the_wheel_holds_every_file_of_the_package(wheel: Path, checkout: Path) -> None:
    files = {str(path.relative_to(checkout)) for path in (checkout / "dual_bench").rglob("*.*") if path.is_file()}
    assert {name for name in files if "__pycache__" not in name} <= set(zipfile.ZipFile(wheel).namelist())


def test_an_installed_wheel_finds_its_studies_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "from dual_bench import plan; print(plan.__file__); print(plan.read_plan('default', {}).dataset)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == [str(tmp_path / "site" / "dual_bench" / "plan.py"), "synthetic"]
