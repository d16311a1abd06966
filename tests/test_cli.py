"""The command line as a person meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from calling import invoke, refused, without_figures
from made_run import Made, write
from tiny import write_corpus

from dual_bench import provenance
from dual_bench.catalog import CORRUPTIONS

ROOT = Path(__file__).parents[1]
SMALL = [
    "--models",
    "dual:width=8,text-only:width=8",
    "--seeds",
    "2",
    "--draws",
    "2",
    "--rates",
    "0,1",
    "--epochs",
    "2",
]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_corpus(tmp_path)


def test_run_ends_with_a_report_and_says_where(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = invoke("run", "--dataset", manifest, *SMALL, "--out", out, "--jobs", 1, "--profile")
    assert result.exit_code == 0, result.output
    assert str(out / "index.html") in result.stdout.replace("\n", "")
    assert f"profile: {out / 'profile.json'}" in result.stdout.replace("\n", "")
    profile = json.loads((out / "profile.json").read_text())
    assert {"start", "corpus", "noise", "models", "report"} <= set(profile["stages"])
    assert all(seconds >= 0 for seconds in profile["stages"].values())
    assert sorted((m["system"], m["trainings"]) for m in profile["models"]) == [
        ("dual:width=8", 4),  # two regimes, two seeds
        ("text-only:width=8", 4),
    ]
    for part in ("index.html", "report.md", "run.json", "texts.parquet"):
        assert (out / part).stat().st_size > 0
    assert list((out / "tables").glob("*.csv"))
    assert list((out / "figures").glob("*.svg"))
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    again = invoke("report", out)
    assert again.exit_code == 0, again.output
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--models", "daul"], "did you mean 'dual'?"),
        (["--corruptions", "word-dorp"], "did you mean 'word-drop'?"),
        (["--dataset", "synthetik"], "did you mean 'synthetic'?"),
        (["--metric", "acuracy"], "did you mean 'accuracy'?"),
        (["--models", "dual:sdn=off"], "did you mean 'sdm'?"),
        (["--models", "dual:sdm=perhaps"], "model 'dual': sdm:"),
        (["--models", "dual,dual:sdm=on"], "is the same as another"),
        (["--rates", "0,1.5"], "rates.1: Input should be less than or equal to 1"),
        (["--rates", "0,half"], "expected a number in [0, 1] or a ratio such as 10dB"),
        (["--regimes", "cleen"], "regimes.0"),
        (["--seeds", "0"], "seeds"),
        (["--epochs", "0"], "training.epochs: Input should be greater than or equal to 1 (found 0)"),
        (["--models", "dual:width=5"], "width 5 is not a multiple of 4 heads"),
        (["--models", "text-only:width=30"], "width 30 is not a multiple of 4 heads"),
        (["--draws", "-1"], "draws"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--dataset", "nowhere.csv"], "nowhere.csv is missing"),
        (["--dataset", "mosi-752", "--data", "nowhere"], "nowhere/mosi_utterance/mosi_utterance.npz is missing"),
        (["--name", "a/b"], "name"),
    ],
)
def test_a_slip_gets_one_sentence_and_leaves_nothing(
    arguments: list[str], found: str, manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = arguments if "--dataset" in arguments else ["--dataset", str(manifest), *arguments]
    assert found in refused("run", *given, "--out", out)
    assert not out.exists()


def test_results_that_cannot_be_written_are_refused_before_the_work(manifest: Path) -> None:
    sentence = refused("run", "--dataset", manifest, *SMALL, "--out", manifest / "below")
    assert f"{manifest} is no writable folder" in sentence


def group_lives(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_interrupt_stops_all_processes_and_says_how_to_go_on(manifest: Path, tmp_path: Path) -> None:
    arguments = ["--dataset", str(manifest), "--models", "dual", "--seeds", "4", "--epochs", "5000", "--rates", "0,1"]
    (tmp_path / "long.toml").write_text(
        f'name = "long"\ndataset = "{manifest}"\nmodels = ["dual"]\n[training]\npatience = 5000\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "dual_bench.cli", "run", "long.toml", *arguments, "--out", "out", "--jobs", "2"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        while not (tmp_path / "out" / "run.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(3.0)  # into the work of the worker processes
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=180)
        assert process.returncode == 130
        assert "the same command goes on from there" in said
        deadline = time.monotonic() + 30
        while group_lives(process.pid):
            assert time.monotonic() < deadline, "a worker process goes on"
            time.sleep(0.1)
    finally:  # whatever failed, nothing goes on beside the other tests
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_study_that_does_not_exist_offers_the_nearest() -> None:
    assert "did you mean 'default'?" in refused("run", "defualt")


def test_a_study_file_with_an_unknown_key_offers_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\ndataset = "synthetic"\nmodels = ["dual"]\nseedz = 3\n')
    assert "unknown setting 'seedz'; did you mean 'seeds'?" in refused("run", tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_text("name = \n")
    assert "is not TOML" in refused("run", tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda t: t.drop(columns="cluster"), "column 'cluster' is missing"),
        (lambda t: t.replace("vision.npy", "visoin.npy"), "visoin.npy is missing"),
        (lambda t: t[t["split"] != "validation"], "the validation split is empty"),
        (lambda t: t.assign(label=t["label"].where(t.index != 95, "gald")), "label 'gald' is outside the task"),
        (lambda t: t.assign(audio_file="broken.npy"), "audio of utterance 'u00' holds NaN"),
    ],
)
def test_a_broken_manifest_gets_one_sentence_and_leaves_nothing(
    change: object, found: str, manifest: Path, tmp_path: Path
) -> None:
    import numpy as np

    np.save(tmp_path / "broken.npy", np.full((96, 2), np.nan, np.float32))
    assert callable(change)
    change(pd.read_csv(manifest)).to_csv(manifest, index=False)
    assert found in refused("run", "--dataset", manifest, *SMALL, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_figures")
def test_a_folder_of_another_plan_or_of_something_else_is_refused(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call = ["run", "--dataset", str(manifest), *SMALL, "--out", str(out), "--jobs", "1"]
    assert invoke(*call).exit_code == 0
    assert "belongs to another plan" in refused(*call, "--root-seed", "1")
    assert "is not a dual-bench run" in refused(*call[:-4], "--out", tmp_path)
    assert "expected a folder that `dual-bench run` wrote" in refused("report", tmp_path)


def test_list_shows_every_part_by_kind() -> None:
    shown = invoke("list").stdout
    for part in ("synthetic", "dual", "word-drop", "accuracy", "motion"):
        assert part in shown
    assert "word-drop" not in invoke("list", "models").stdout
    assert "did you mean 'models'?" in refused("list", "modles")


def test_a_checkout_runs_without_being_installed() -> None:
    shown = subprocess.run(
        [sys.executable, "cli.py", "list", "models"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "audio-vision" in shown.stdout


SLOW_LIBRARIES = {"av", "bokeh", "dlib", "huggingface_hub", "jinja2", "matplotlib", "optuna", "pandas", "pocketsphinx"}
SLOW_LIBRARIES |= {"pooch", "pyarrow", "requests", "scipy", "sentence_transformers", "sklearn", "timm", "tokenizers"}
SLOW_LIBRARIES |= {"torch", "torchaudio", "transformers"}


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["--help"], ""),
        (["run", "--help"], ""),
        (["data", "--help"], ""),
        (["list"], ""),
        (["preview", "hello there", "--corruption", "typo,word-drop"], ""),
        (["preview", "hello there"], "scipy"),
        (["report", "made", "--format", "md"], "jinja2 matplotlib pandas pyarrow scipy"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_loads_no_library_that_it_does_not_need(arguments: list[str], needed: str, tmp_path: Path) -> None:
    if "made" in arguments:
        small = Made(models=("dual", "text-only"), regimes=("clean",), corruptions=("word-drop",), rates=(1.0,))
        write(tmp_path / "made", small)
    code = f"""
import sys
from dual_bench.cli import app
try: app({arguments})
except SystemExit as ended: assert not ended.code
print("loaded:", *{{name.partition(".")[0] for name in sys.modules}})
"""
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = set(shown.stdout.splitlines()[-1].split())
    assert {"dual_bench", "typer"} < loaded
    assert loaded & SLOW_LIBRARIES <= set(needed.split())


def test_a_preview_shows_every_corruption_with_what_it_measured_or_why_not() -> None:
    shown = invoke("preview", "I am not angry, just very tired.", "--rate", "1")
    assert shown.exit_code == 0
    lines = {line.split()[0]: line for line in shown.output.splitlines() if line.strip()}
    assert set(CORRUPTIONS.entries) <= set(lines)
    assert lines["word-drop"].split()[1:] == ["1.00", "1.00", "1.00"]
    assert "[MASK] [MASK]" in lines["word-mask"]
    assert "depends on the model" in lines["worst-case"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["preview", "a", "--corruption", "tpyo"], "did you mean 'typo'?"),
        (["preview", "a", "--rate", "1.5"], "expected a number in [0, 1] or a ratio such as 10dB, found '1.5'"),
        (["preview", "a", "--rate", "half"], "found 'half'"),
        (["run", "--severities", ""], "empty list"),
        (["run", "--severities", "0,1"], "severities.0"),
        (["run", "--severities", "3", "--corruptions", "token-unk"], "give rates"),
        (["run", "--regimes", "matched", "--corruptions", "worst-case"], "cannot train on 'worst-case'"),
    ],
)
def test_slips_about_noise_are_explained(arguments: list[str], says: str) -> None:
    shown = invoke(*arguments)
    assert shown.exit_code == 2
    assert says in shown.output


@pytest.mark.parametrize("text", ["", "[bold]not markup[/bold]", "👩‍👩‍👧‍👦 e\u0301", "a\nb"])
def test_any_text_can_be_previewed(text: str) -> None:
    shown = invoke("preview", text, "--corruption", "word-drop,typo", "--rate", "0")
    assert shown.exit_code == 0
    assert all(word in shown.output for word in text.split())


# ------------------------------------------------------------------------------------------------ ablate

STUDY = """
name = "mine"
question = "Does SDM matter?"
dataset = "synthetic"
metric = "accuracy"
margin = 0.05
primary = ["clean", "word-drop 1.0"]
baseline = "dual:width=8"
regimes = ["clean"]

[[variants]]
name = "without SDM"
change = { sdm = "off" }
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(STUDY)
    return path


FEW = ["--seeds", "2", "--draws", "2", "--corruptions", "word-drop", "--rates", "1", "--epochs", "2", "--jobs", "1"]


def test_ablate_says_where_the_study_was_found_and_ends_with_verdicts(
    study: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "_git_state", lambda folder: ("c0ffee" * 7, False))
    out = tmp_path / "reports" / "out"
    result = invoke("ablate", study, "--dataset", manifest, *FEW, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"study: {study}" in result.stdout.replace("\n", "")
    assert "without SDM" in result.stdout
    assert "verdict" in result.stdout
    hypotheses = pd.read_csv(out / "tables" / "hypotheses.csv")
    assert hypotheses["quantity"].tolist() == ["clean", "word-drop 1.0"]
    assert set(hypotheses["verdict"]) <= {"supported", "contradicted", "equivalent", "undecided"}
    assert (out / "figures" / "forest.png").stat().st_size > 0
    page = (out / "index.html").read_text()
    assert "Does SDM matter?" in page
    assert "Not from that file, but from flags" in page
    more = tmp_path / "reports" / "more"
    with without_figures():
        again = invoke("ablate", study, "--dataset", manifest, *FEW, "--out", more, "--margin", 0.1, "--profile")
    assert again.exit_code == 0, again.output
    assert "0 models trained" in again.stdout
    assert "4 taken from other runs" in again.stdout.replace("\n", " ")
    assert "no model was trained now, so profile.json is not written" in again.stdout
    assert not (more / "profile.json").exists()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["componets"], "did you mean 'components'?"),
        (["default"], "use `dual-bench run default`"),
        (["components", "--dataset", "synthetik"], "did you mean 'synthetic'?"),
        (["components", "--metric", "mae", "--margin", "0.1"], "metric 'mae' is not for classification"),
        (["components", "--metric", "uar"], "give --margin too"),
        (["components", "--margin", "0"], "margin: Input should be greater than 0"),
        (["components", "--corruptions", "typo"], "nothing is measured that is called 'word-drop area'"),
        (["components", "--primary", "word-drop arae"], "did you mean 'word-drop area'?"),
        (["text_path", "--regimes", "cleen"], "regimes.0"),
    ],
)
def test_a_mistake_in_an_ablation_is_explained_before_anything_is_written(
    arguments: list[str], found: str, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = arguments if "--dataset" in arguments else [*arguments, "--dataset", str(manifest)]
    assert found in refused("ablate", *given)
    assert not (tmp_path / "reports").exists()


def test_run_sends_an_ablation_to_the_right_command() -> None:
    assert "use `dual-bench ablate components`" in refused("run", "components")


def test_list_keeps_comparisons_and_ablations_apart() -> None:
    assert "components" in invoke("list", "ablations").stdout
    assert "components" not in invoke("list", "studies").stdout
    assert "battery" in invoke("list", "studies").stdout
