"""Sealed labels: what the test part holds reaches no training, of any model, whatever the command."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peeking
import pytest
from tiny import write_corpus

from dual_bench import runner
from dual_bench.ablation import read_study
from dual_bench.catalog import MODELS
from dual_bench.engine import Done, attempt
from dual_bench.journal import Failure
from dual_bench.plan import Plan, read_plan
from dual_bench.prepare import ask, encode_all
from dual_bench.preset import Preset
from dual_bench.shards import trainings
from dual_bench.store import Run, read_run
from dual_bench.tuning import tune

SMALL: dict[str, Any] = {
    "seeds": 1,
    "draws": 1,
    "training": {"epochs": 2, "noisy_texts": 1, "noisy_validation_texts": 1},
}


def other_test_part(folder: Path) -> Path:
    """The tiny corpus with other labels, words, voices and faces in its test part, and nowhere else."""
    manifest = write_corpus(folder, poison=True)
    table = pd.read_csv(manifest, keep_default_na=False)
    test = (table["split"] == "test").to_numpy()
    for column in ("text", "text_engine"):
        table.loc[test, column] = [f"{i} poisoned words, and more of them" for i in range(test.sum())]
    table.to_csv(manifest, index=False)
    audio, vision = dict(np.load(folder / "audio.npz")), np.load(folder / "vision.npy")
    audio["values"][test] += 1e3
    vision[test] *= -1e3
    np.savez(folder / "audio.npz", **audio)
    np.save(folder / "vision.npy", vision)
    return manifest


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A corpus; the same with other labels in its test part; and with another test part altogether."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("honest", "labels", "everything")}
    return {
        "honest": write_corpus(folders["honest"]),
        "labels": write_corpus(folders["labels"], poison=True),
        "everything": other_test_part(folders["everything"]),
    }


def go(plan: Plan, out: Path, jobs: int = 1, study: Any = None, weights: bool = True) -> Run:
    cache, how = Path(os.environ["DUAL_BENCH_CACHE"]), runner.Manner(weights=weights)
    runner.run(plan, Path(), cache, out.parent, out, "cpu", jobs, study=study, how=how)
    return read_run(out)


def learnt(run: Run) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Of each trained model the epoch chosen, the losses of all epochs, and the weights to the byte."""
    return {
        (c.model, c.variant, c.regime, c.seed): (
            c.best_epoch,
            c.history,
            run.folder.weights_file(c.digest).read_bytes(),
        )
        for c in run.cells
    }


# ------------------------------------------------------------------------------- what comes out is the same


def test_no_label_word_voice_or_face_of_the_test_part_changes_what_any_model_learns(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    fields = {"models": list(MODELS.entries), "regimes": ["mixed"], "rates": [1.0], "dependency": False}
    runs = []
    for name in ("honest", "everything"):
        plan = read_plan("default", {**SMALL, **fields, "metric": "", "dataset": str(manifests[name])})
        runs.append(go(plan, tmp_path / name / "run"))
    assert {name for name, *_ in learnt(runs[0])} == set(MODELS.entries)
    assert learnt(runs[0]) == learnt(runs[1])
    for column in ("truth", "score_0"):
        assert (runs[0].predictions[column] != runs[1].predictions[column]).any(), "the poison reached the test"


STUDY = """
name = "sealed"
question = "Does a label get through?"
dataset = "synthetic"
metric = "accuracy"
margin = 0.02
baseline = "dual:width=8"
regimes = ["clean"]
corruptions = ["contradiction", "word-drop"]
rates = [0.5]

[[variants]]
change = { sdm = "off" }
[[variants]]
regime = "mixed"
[[variants]]
regime = "modality-dropout"
"""


def test_poisoned_labels_change_nothing_of_a_study_but_the_truth_and_words_that_are_chosen_by_it(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    runs = []
    for name in ("honest", "labels"):
        plan, study = read_study(str(tmp_path / "study.toml"), {**SMALL, "dataset": str(manifests[name])})
        runs.append(go(plan, tmp_path / name / "run", study=study))
    assert len(learnt(runs[0])) == 2 * 3
    assert learnt(runs[0]) == learnt(runs[1])
    said = [run.texts.loc[run.texts["corruption"] == "contradiction", "text"].tolist() for run in runs]
    assert said[0] != said[1], "the poison reached the words of the test"
    shown = [run.predictions[run.predictions["corruption"] != "contradiction"] for run in runs]
    assert (shown[0]["truth"] != shown[1]["truth"]).any()
    pd.testing.assert_frame_equal(*(rows.drop(columns=["cell", "truth", "text"]) for rows in shown), check_exact=True)


@pytest.mark.slow
def test_another_test_part_changes_no_trial_and_no_preset_of_any_model(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    presets: list[Preset] = []
    trials: list[list[dict[str, str]]] = []
    for name in ("honest", "everything"):
        fields = {"models": list(MODELS.entries), "regimes": ["mixed"], "rates": [1.0]}
        training = {**SMALL["training"], "epochs": 1}
        plan = read_plan(
            "default", {**SMALL, **fields, "training": training, "metric": "", "dataset": str(manifests[name])}
        )
        file = tmp_path / f"{name}.toml"
        presets.append(tune(plan, 2, Path(), Path(os.environ["DUAL_BENCH_CACHE"]), file, "cpu", 1).preset)
        with (tmp_path / f"{name}-trials.csv").open(newline="") as lines:
            trials.append([row | {"digest": ""} for row in csv.DictReader(lines)])
    assert presets[0].asked.fingerprint != presets[1].asked.fingerprint
    assert set(presets[0].models) == set(MODELS.entries)
    assert presets[0].models == presets[1].models
    assert trials[0] == trials[1]


# --------------------------------------------------------------------------------- what is there to be seen


def planted(folder: Path) -> Path:
    """The tiny corpus with numbers for labels; those of its test part are nowhere else."""
    manifest = write_corpus(folder, regression=True)
    table = pd.read_csv(manifest, keep_default_na=False)
    test = table["split"] == "test"
    table.loc[test, "value"] = peeking.planted(test.sum())
    table.to_csv(manifest, index=False)
    return manifest


def peeked(notes: Path) -> dict[str, tuple[bool, set[str]]]:
    """By occasion: whether the model looked in this process, and what it found."""
    rows = [line.split("|") for line in notes.read_text().splitlines()]
    return {occasion: (pid == str(os.getpid()), set(filter(None, seen.split(";")))) for pid, occasion, seen in rows}


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEEKED", str(tmp_path / "peeked"))
    return tmp_path / "peeked"


def peeking_plan(manifest: Path, **fields: Any) -> Plan:
    models = ["peeking:build", "dual:width=8"]
    given = {"models": models, "regimes": ["clean"], "corruptions": ["worst-case"], "dataset": str(manifest)}
    given |= {"rates": [0.5], "dependency": False}
    return read_plan("default", {**SMALL, "metric": "", **given, **fields})


def rows_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("cells/*.parquet")}


def test_a_model_from_elsewhere_finds_no_test_label_where_it_trains_and_answers(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It searches objects, frames, modules and memory of its process, in training and when it answers.

    What is not promised: a model is code, and code can open the corpus where it lies on disk, or leave notes for
    itself: in a cross-validation what one fold tests another learns. The words of ``contradiction`` are chosen by the
    label and read in the test; the worst case is sought with the labels, by asking the model, once its weights and all
    its other answers are stored away from it.
    """
    plan = peeking_plan(planted(tmp_path))
    go(plan, tmp_path / "apart" / "run", weights=False)
    seen = peeked(notes)
    assert seen["trained"] == seen["predict_all"] == (False, set())
    assert seen["attack"][0]
    assert not list((tmp_path / "apart" / "run").rglob("*.safetensors"))

    notes.unlink()
    monkeypatch.setattr(Plan, "from_elsewhere", False)
    monkeypatch.setattr(peeking, "looked", {"predict_all"})
    go(plan, tmp_path / "here" / "run")
    here, where = peeked(notes)["trained"]
    assert here
    assert where >= {"object float", "object ndarray", "memory, as doubles"}, "it finds what is there"
    assert rows_of(tmp_path / "apart" / "run") == rows_of(tmp_path / "here" / "run"), "and that is all the difference"


def attacked_later(manifest: Path, model: str) -> Done:
    """What comes of one training of a model from elsewhere on another machine, and of the attack here."""
    cache = Path(os.environ["DUAL_BENCH_CACHE"])
    asked = ask(peeking_plan(manifest, models=[model]), None, Path(), cache, "cpu")
    ready, (group,) = encode_all(asked, cache), trainings(asked.wanted)
    parcel = runner.job_for(ready, group, weights=False)
    assert parcel.attack is None
    came = replace(attempt(parcel), host="there", processor="another")
    assert not isinstance(came.result, Failure)
    return runner.and_attacked(ready, group, parcel, came)


def test_a_later_attack_leaves_on_record_where_a_model_was_trained(manifests: dict[str, Path]) -> None:
    done = attacked_later(manifests["honest"], "dual_bench.models.fusion:CONCAT")
    assert not isinstance(done.result, Failure)
    assert done.result[0].worst is not None
    assert (done.host, done.processor) == ("there", "another")


def test_a_model_that_keeps_what_it_learns_beside_its_weights_is_not_attacked_as_another(
    manifests: dict[str, Path],
) -> None:
    done = attacked_later(manifests["honest"], "peeking:forgetting")
    assert isinstance(done.result, Failure)
    assert "model 'peeking:forgetting' answers otherwise once it is made again from its weights" in done.result.error
    assert done.host == "there"


@pytest.mark.slow
def test_a_model_from_elsewhere_finds_no_test_label_where_it_is_tuned(tmp_path: Path, notes: Path) -> None:
    plan = peeking_plan(planted(tmp_path), models=["peeking:build"], corruptions=["word-drop"])
    tune(plan, 2, Path(), Path(os.environ["DUAL_BENCH_CACHE"]), tmp_path / "presets.toml", "cpu", 1)
    assert peeked(notes) == {"trained": (False, set())}
