#!/usr/bin/env bash
# Runs the tests outside the checkout, on the package as a wheel installs it: installed.sh PYTHON [pytest's options].
# $KEEP names a folder in which the environment stays for a next time; without it everything is removed.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 && shift
data=$(realpath "${DUAL_BENCH_DATA:-../shared/data}")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
venv=${KEEP:-$place}/venv

git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --target-directory "$place"
[ -d "$venv" ] || "$python" -m venv "$venv"
constraints=$PWD/constraints.txt
cd "$place"
pip() { "$venv/bin/python" -m pip "$@" --quiet --disable-pip-version-check --constraint "$constraints"; }
pip wheel --no-deps --wheel-dir . .
rm -r dual_bench ./*.egg-info build # what is imported is installed
pip install "$(echo ./*.whl)[dev]"
pip install --no-deps --force-reinstall ./*.whl # where it stands already, under the same version
[ -d "$venv/node_modules" ] || npm install --silent --prefix "$venv" --no-save --no-package-lock --ignore-scripts axe-core@4.11.0 || true

DUAL_BENCH_DATA=$data PYTHONWARNINGS=error PYTHONDONTWRITEBYTECODE="" OMP_NUM_THREADS=1 "$venv/bin/python" -m pytest -c pyproject.toml \
  --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --any-order tests --pyargs dual_bench "$@"
