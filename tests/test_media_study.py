"""From raw media to a report by the commands that a user types, and back to what is known without media."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trees
from calling import invoke, without_figures

from dual_bench.datasets.extracted import read_record
from dual_bench.store import Run, read_run

UTTERANCES = 320
CORPUS = f"synthetic:utterances={UTTERANCES}"
STUDY = (
    *("--models", "concat,audio-vision,text-only", "--regimes", "clean", "--corruptions", "utterance-drop"),
    *("--rates", "0,1", "--draws", 1, "--seeds", 3, "--epochs", 16, "--no-dependency", "--jobs", 1),
)


def done(*arguments: str | int | Path) -> str:
    result = invoke(*map(str, arguments))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded corpus in memory and rendered to media in MELD's layout, and the same study on both."""
    home = tmp_path_factory.mktemp("media-study")
    done("data", "export", CORPUS, "--layout", "meld", home / "raw", "--jobs", 1)
    done("data", "check", home / "raw", "--json", home / "check.json", "--jobs", 1)
    told = done("data", "extract", home / "raw", "--jobs", 1)
    assert f"next: dual-bench run --dataset {home / 'raw-features'}" in told
    with without_figures():
        done("run", "default", "--dataset", home / "raw-features", *STUDY, "--out", home / "media")
        done("run", "default", "--dataset", CORPUS, *STUDY, "--out", home / "memory")
    return home


def comparisons(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "tables" / "comparisons.csv")


def test_media_and_memory_give_the_same_verdicts(home: Path) -> None:
    media, memory = comparisons(home / "media"), comparisons(home / "memory")
    what = ["trained", "quantity", "left", "right", "metric", "verdict"]
    pd.testing.assert_frame_equal(media[what], memory[what])
    assert {"better", "worse"} & set(media["verdict"]), "some of them decide something"
    pd.testing.assert_series_equal(media["estimate"], memory["estimate"], atol=0.02)


def test_a_rendered_corpus_is_called_artificial_in_its_report(home: Path) -> None:
    run = read_run(home / "media")
    assert run.info.corpus.name == "synthetic (rendered)"
    assert any("artificial" in note for note in run.info.corpus.notes)
    assert "is artificial" in (home / "media" / "report.md").read_text(encoding="utf-8")


def test_the_report_says_what_made_the_features(home: Path) -> None:
    encoders = read_run(home / "media").info.encoders
    assert encoders["audio"] == "log-mel/v1/40x50Hz"
    assert encoders == read_run(home / "memory").info.encoders


def test_check_finds_every_utterance_and_nothing_wrong(home: Path) -> None:
    found = json.loads((home / "check.json").read_text(encoding="utf-8"))
    assert found["utterances"] == UTTERANCES
    assert sum(part["utterances"] for part in found["parts"].values()) == UTTERANCES
    for media in found["media"].values():
        assert (media["clips"], media["missing"], media["broken"], media["silent"]) == (UTTERANCES, [], [], [])
        assert 1 <= media["seconds"][0] <= media["seconds"][1] <= media["seconds"][2] <= 3
    assert found["deviations"] == found["unused"] == []


def test_a_rendered_corpus_keeps_all_that_its_kind_promises(home: Path) -> None:
    assert "nothing fails" in done("check", home / "raw-features")


# ------------------------------------------------------------------------------------------ every layout there is


@pytest.fixture(scope="module", params=["meld", "iemocap", "mmsa", "folder"])
def studied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Run]:
    """A made corpus in a layout, checked, extracted and studied: its features and the run."""
    layout: str = request.param
    home = tmp_path_factory.mktemp(layout)
    raw = home / ("raw.pkl" if layout == "mmsa" else "raw")
    getattr(trees, layout)(raw)
    named = ("--layout", "mmsa:low=-3,high=3", "--jobs", 1) if layout == "mmsa" else ("--jobs", 1)
    done("data", "check", raw, *named)
    done("data", "extract", raw, *named, "--out", home / "features")
    with without_figures():
        done("run", "default", "--dataset", home / "features", *SMALL, "--out", home / "run")
    return layout, home / "features", read_run(home / "run")


SMALL = (
    *("--models", "linear,constant", "--regimes", "clean", "--corruptions", "word-drop", "--rates", "0,1"),
    *("--draws", 1, "--seeds", 1, "--epochs", 12, "--no-dependency", "--jobs", 1),
)


def test_a_made_corpus_in_every_layout_goes_from_its_files_to_a_report(studied: tuple[str, Path, Run]) -> None:
    layout, features, run = studied
    record = read_record(features)
    assert record.layout.partition(":")[0] == layout
    assert pd.read_csv(features / "problems.csv").empty
    assert run.info.corpus.licence == record.licence
    assert (run.folder.path / "index.html").is_file()
    rows = run.predictions
    tested = (
        rows[rows["model"] == "linear"].groupby(["corruption", "rate", "draw"], observed=True)["utterance"].nunique()
    )
    assert tested.nunique() == 1, "n is the same under every condition"


def test_in_every_layout_voice_and_face_belong_to_their_utterance(studied: tuple[str, Path, Run]) -> None:
    """Pitch and brightness tell the class; a model that is given the clips of others cannot learn it."""
    layout, _, run = studied
    rows = run.predictions
    gone = rows[(rows["corruption"] == "word-drop") & (rows["rate"] == 1.0)]
    scores = [column for column in rows.columns if column.startswith("score_")]
    found = {str(model): part for model, part in gone.groupby(gone["model"].astype(str))}
    if layout == "mmsa":
        assert np.corrcoef(found["linear"]["score_0"], found["linear"]["truth"])[0, 1] > 0.7
    else:
        wrong = {m: (part[scores].to_numpy().argmax(axis=1) != part["truth"]).mean() for m, part in found.items()}
        assert wrong["linear"] < 0.7 * wrong["constant"], wrong
