"""Tuning: the same budget for every model, never a test label, each fold by itself; and presets in a run."""

from __future__ import annotations

import csv
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from calling import refused
from made_run import Made, write
from tiny import write_corpus

from dual_bench import runner, tuning
from dual_bench.catalog import MODELS, digest_of
from dual_bench.models.fusion import ConcatSettings
from dual_bench.plan import Plan, cells, load_corpus, plan_digest, read_plan
from dual_bench.preset import Preset, applied, parsed, read_preset
from dual_bench.report.evidence import gather
from dual_bench.report.merge import merged
from dual_bench.report.methods import methods
from dual_bench.report.tables import tables
from dual_bench.schema import TunedInfo, TuningInfo
from dual_bench.store import read_run
from dual_bench.training import TrainingSettings
from dual_bench.tuning import Tuned, grid_of, points, space, tune
from dual_bench.types import UserError

TRIALS = 4
LINEAR = "concat:dropout=0.1,width=8,learning_rate=0.01"
"""A model with three settings left to try."""


def plan_for(manifest: Path, **fields: Any) -> Plan:
    given = {
        "dataset": str(manifest),
        "models": ["concat:width=8", "audio-only:width=8", LINEAR],
        "rates": [0.0, 1.0],
        "metric": "",
        "training": {"epochs": 1, "noisy_texts": 1, "noisy_validation_texts": 1},
    }
    return read_plan("default", {**given, **fields})


def go(plan: Plan, folder: Path, trials: int = TRIALS, jobs: int = 1) -> Tuned:
    return tune(plan, trials, Path(), folder.parent / "cache", folder / "presets.toml", "cpu", jobs)


def trials_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "presets-trials.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path, Tuned]:
    folder = tmp_path_factory.mktemp("tuning") / "honest"
    folder.mkdir()
    plan = plan_for(write_corpus(folder))
    return plan, folder, go(plan, folder)


# ----------------------------------------------------------------------------------------------- the budget


def test_every_model_has_as_many_trials_as_its_settings_allow_and_none_twice(done: tuple[Plan, Path, Tuned]) -> None:
    tried = pd.DataFrame(trials_of(done[1]))
    assert tried.groupby("system").size().to_dict() == {
        "concat:width=8": TRIALS,
        "audio-only:width=8": TRIALS,
        "concat:dropout=0.1,learning_rate=0.01,width=8": 3,
    }
    assert not tried.duplicated(["system", "fold", "settings"]).any()
    spent = {name: chosen["official"].spent for name, chosen in done[2].preset.models.items()}
    assert spent == tried.groupby("system").size().to_dict()


def test_the_first_trial_of_every_model_is_its_default(done: tuple[Plan, Path, Tuned]) -> None:
    first = [row for row in trials_of(done[1]) if row["trial"] == "1"]
    assert len(first) == 3
    assert {row["settings"] for row in first} == {""}
    for row in first:
        loss = (float(row["clean"]) + float(row["mixed"])) / 2
        assert done[2].preset.models[row["system"]]["official"].default == loss


def test_the_settings_of_the_least_mean_loss_are_chosen(done: tuple[Plan, Path, Tuned]) -> None:
    for system, folds in done[2].preset.models.items():
        rows = [row for row in trials_of(done[1]) if row["system"] == system]
        best = min(rows, key=lambda row: (float(row["clean"]) + float(row["mixed"])) / 2)
        chosen = folds["official"].settings
        assert {f"{k}={v}" for k, v in chosen.items()} == set(filter(None, best["settings"].split(",")))
        assert folds["official"].best <= folds["official"].default


def test_what_is_tried_are_the_values_of_the_annotations_and_never_what_the_user_set() -> None:
    shared = TrainingSettings(learning_rate=0.002)
    assert space(ConcatSettings(width=8), shared) == {
        "learning_rate": (3e-4, 1e-3, 3e-3, 0.002),
        "weight_decay": (1e-3, 1e-2, 1e-1),
        "dropout": (0.1, 0.3, 0.5),
    }


@pytest.mark.parametrize("name", list(MODELS.entries))
def test_every_model_has_enough_to_try_and_takes_its_default_for_a_point(name: str) -> None:
    settings, shared = MODELS.load(name).settings(), TrainingSettings()
    values = space(settings, shared)
    assert len(grid_of(settings, values)) >= 9 or (name == "constant" and not values)
    assert {key: tuning.default_of(settings, shared, key) for key in values} in grid_of(settings, values)


def test_values_that_do_not_go_together_are_not_tried() -> None:
    settings = MODELS.load("text-only").settings(heads=6, width=12)
    grid = grid_of(settings, {"width": (8, 12), "heads": (4, 6)})
    assert grid == [{"width": 8, "heads": 4}, {"width": 12, "heads": 4}, {"width": 12, "heads": 6}]


def answered(trials: int, answer: Callable[[dict[str, Any]], float], seed: int = 0) -> list[dict[str, Any]]:
    values = {"a": (1, 2, 3, 4), "b": (0.1, 0.2, 0.3)}
    grid = [{"a": a, "b": b} for a in values["a"] for b in values["b"]]
    search, found = points(values, grid, {"a": 2, "b": 0.2}, trials, "test", seed), []
    point = next(search)
    while True:
        found.append(point)
        try:
            point = search.send(answer(point))
        except StopIteration:
            return found


def test_a_search_ends_after_its_trials_or_with_the_last_point() -> None:
    assert len(answered(5, lambda point: point["a"])) == 5
    everything = answered(99, lambda point: point["a"])
    assert len({tuple(point.values()) for point in everything}) == len(everything) == 12


def test_a_search_is_decided_by_its_stream_and_its_answers() -> None:
    assert answered(8, lambda point: point["a"]) == answered(8, lambda point: point["a"])
    assert answered(8, lambda point: point["a"]) != answered(8, lambda point: point["a"], seed=1)
    assert answered(8, lambda point: point["a"]) != answered(8, lambda point: -point["a"])


def test_training_that_diverges_is_the_worst_of_settings() -> None:
    assert answered(4, lambda point: float("inf"))[0] == {"a": 2, "b": 0.2}


# ------------------------------------------------------------------------------------------ what it may see


def test_the_jobs_of_tuning_hold_no_row_of_the_test_part_and_no_seed_of_a_run(
    done: tuple[Plan, Path, Tuned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(tuning, "validation_losses", lambda jobs: seen.append(jobs) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        go(done[0], tmp_path)
    test = load_corpus(done[0].dataset, Path()).folds[0].test
    for job in seen[0].values():
        assert not set(test) & {*job.train.rows, *job.validation.rows}
        assert (len(job.queries.rows), job.attack, job.probe) == (0, None, None)
        assert job.streams == ((0, "tuning", "official"),)


def cross_validated(folder: Path, flipped: str = "") -> Plan:
    """The tiny corpus in three folds of talks; the labels of talks of one fold may be exchanged."""
    table = pd.read_csv(write_corpus(folder), keep_default_na=False).drop(columns="split")
    table["fold"] = [f"part{int(talk[4:]) % 3}" for talk in table["cluster"]]
    moved = {"calm": "glad", "glad": "calm", "grim": "sore", "sore": "grim"}
    table["label"] = table["label"].where(table["fold"] != flipped, table["label"].map(moved))
    table.to_csv(folder / "corpus.csv", index=False)
    return plan_for(folder / "corpus.csv", models=["concat:width=8"], regimes=["clean"])


def test_a_fold_is_tuned_without_its_own_test_labels(tmp_path: Path) -> None:
    found = {}
    for name, flipped in (("one", ""), ("other", "part0")):
        (tmp_path / name).mkdir()
        found[name] = go(cross_validated(tmp_path / name, flipped), tmp_path / name, trials=2).preset
    one, other = (preset.models["concat:width=8"] for preset in found.values())
    assert len(one) == 3
    corpus = load_corpus(str(tmp_path / "one" / "corpus.csv"), Path())
    tested = [f.name for f in corpus.folds if {corpus.utterances[i].cluster for i in f.test} & {"talk00"}]
    assert len(tested) == 1
    assert one[tested[0]] == other[tested[0]]
    assert all(one[name] != other[name] for name in one if name != tested[0])


# ------------------------------------------------------------------------------------- again, and on the way


def test_the_same_plan_gives_the_same_presets_whole_or_interrupted_and_no_trial_is_trained_twice(
    done: tuple[Plan, Path, Tuned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, trained = tuning.validation_losses, []

    def dies(jobs: Any) -> Any:
        if len(trained) == 5:
            raise KeyboardInterrupt
        trained.append(jobs)
        return train(jobs)

    monkeypatch.setattr(tuning, "validation_losses", dies)
    with pytest.raises(KeyboardInterrupt):
        go(done[0], tmp_path)
    assert len(trials_of(tmp_path)) == 5
    assert not (tmp_path / "presets.toml").exists()
    with (tmp_path / "presets-trials.csv").open("a") as lines:
        lines.write('concat:width=8,official,9,"dropout')  # killed in the middle of a line
    monkeypatch.setattr(tuning, "validation_losses", train)
    resumed = go(done[0], tmp_path)
    assert (resumed.trained, resumed.known) == (2 * TRIALS + 3 - 5, 5)
    assert resumed.preset == done[2].preset
    for name in ("presets.toml", "presets-trials.csv"):
        assert (tmp_path / name).read_bytes() == (done[1] / name).read_bytes()
    again = go(done[0], tmp_path)
    assert (again.trained, again.known) == (0, 2 * TRIALS + 3)


def test_models_tuned_later_join_those_that_the_file_has(done: tuple[Plan, Path, Tuned], tmp_path: Path) -> None:
    for spec in done[0].models[:0:-1]:
        found = go(done[0].model_copy(update={"models": (spec,)}), tmp_path)
    assert found.preset.models == {name: done[2].preset.models[name] for name in found.preset.models}
    assert len(found.preset.models) == 2
    assert trials_of(tmp_path) == [row for row in trials_of(done[1]) if row["system"] in found.preset.models]


def test_a_file_that_was_tuned_otherwise_is_left_as_it_is(done: tuple[Plan, Path, Tuned]) -> None:
    before = (done[1] / "presets.toml").read_bytes()
    with pytest.raises(UserError, match="tuned with another trials: expected 9, found 4; choose another --out"):
        go(done[0], done[1], trials=9)
    assert (done[1] / "presets.toml").read_bytes() == before


def test_trials_of_other_regimes_are_left_as_they_are(done: tuple[Plan, Path, Tuned], tmp_path: Path) -> None:
    (tmp_path / "presets-trials.csv").write_text("system,fold,trial,settings,clean,digest\n")
    with pytest.raises(UserError, match=r"expected columns .*mixed, digest, found .*clean, digest; choose another"):
        go(done[0], tmp_path)
    assert (tmp_path / "presets-trials.csv").read_text() == "system,fold,trial,settings,clean,digest\n"


def test_what_is_written_is_read_back(done: tuple[Plan, Path, Tuned]) -> None:
    text = done[2].file.read_text(encoding="utf-8")
    assert tomllib.loads(text)["asked"]["trials"] == TRIALS
    assert parsed(text, "file") == done[2].preset


def test_mistakes_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_corpus(tmp_path)
    assert "unknown model 'dula'; did you mean 'dual'?" in refused("tune", "--models", "dula")
    with pytest.raises(UserError, match="'matched' trains a model for each corruption and rate; tune with --regimes"):
        go(plan_for(manifest, regimes=["matched"]), tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'dual-bench\[tune\]'"):
        go(plan_for(manifest), tmp_path)


# ------------------------------------------------------------------------------------------ presets in a run


def preset_for(plan: Plan, tuned: Preset, **chosen: dict[str, Any]) -> Preset:
    """The preset with other settings for ``concat``, by fold."""
    one = tuned.models["concat:width=8"]["official"]
    folds = {fold: one.model_copy(update={"settings": settings}) for fold, settings in chosen.items()}
    return tuned.model_copy(update={"models": {"concat": folds}})


def test_each_fold_gets_its_own_settings_and_what_the_user_set_stays(
    done: tuple[Plan, Path, Tuned], tmp_path: Path
) -> None:
    plan = cross_validated(tmp_path)
    corpus = load_corpus(plan.dataset, Path())
    names = [fold.name for fold in corpus.folds]
    preset = preset_for(
        plan, done[2].preset, **{n: {"width": 64, "dropout": 0.5 + i / 10} for i, n in enumerate(names)}
    )
    conditions = plan.conditions(corpus)
    with_it = cells(plan, corpus, conditions, {}, "cpu", preset)
    without = cells(plan, corpus, conditions, {}, "cpu")
    for one, other in zip(with_it, without, strict=True):
        assert (one.settings.width, one.settings.dropout) == (8, pytest.approx(0.5 + one.fold / 10))
        assert (other.settings.width, other.settings.dropout) == (8, 0.3)
        assert (one.variant.system, one.digest == other.digest) == ("concat:width=8", False)


def test_without_presets_the_digest_knows_nothing_of_them(done: tuple[Plan, Path, Tuned]) -> None:
    plan = done[0]
    corpus = load_corpus(plan.dataset, Path())
    wanted = cells(plan, corpus, plan.conditions(corpus), {}, "cpu")
    fields = plan.model_dump(mode="json")
    assert (fields.pop("presets"), fields.pop("encoders")) == ("", {})
    expected = tuning.digest_of({"plan": fields, "cells": [cell.digest for cell in wanted]})
    assert plan_digest(plan, wanted) == expected
    assert plan_digest(plan, wanted, preset=done[2].preset) != expected
    assert read_plan("default", {"presets": "none"}).presets == ""


def test_a_variant_keeps_its_default_of_what_it_has_no_use_for() -> None:
    settings = MODELS.load("dual").settings(sdm=False)
    tuned = applied(settings, {"lambda_d": 0.3, "width": 64}, "presets")
    assert (tuned.lambda_d, tuned.width, tuned.sdm) == (settings.lambda_d, 64, False)
    with pytest.raises(UserError, match="unknown setting 'widht'; did you mean 'width'"):
        applied(settings, {"widht": 64}, "presets")


def test_the_presets_that_come_along_are_for_this_corpus_every_model_and_their_trials() -> None:
    preset = read_preset("auto", load_corpus("synthetic", Path()))
    assert set(preset.models) == set(MODELS.entries)
    with (Path(tuning.__file__).parent / "presets" / "synthetic-trials.csv").open(newline="") as lines:
        trials = list(csv.DictReader(lines))
    assert preset.trials == digest_of([(row["digest"], {"mixed": float(row["mixed"])}) for row in trials])
    for name, folds in preset.models.items():
        losses = [float(row["mixed"]) for row in trials if row["system"] == name]
        chosen = folds["official"]
        assert (chosen.spent, chosen.default, chosen.best) == (len(losses), losses[0], min(losses))
        assert chosen.spent == preset.asked.trials or name == "constant"
        applied(MODELS.load(name).settings(), chosen.settings, name)


def test_presets_that_were_changed_by_hand_are_refused(done: tuple[Plan, Path, Tuned]) -> None:
    text = done[2].preset.toml()
    assert parsed(text, "x") == done[2].preset
    with pytest.raises(UserError, match=r"are not what `dual-bench tune` wrote: expected digest \w+, found \w+; tune"):
        parsed(text.replace("spent = 4", "spent = 40", 1), "x")


def test_what_the_model_does_not_take_is_refused_and_not_left_out(done: tuple[Plan, Path, Tuned]) -> None:
    with pytest.raises(UserError, match=r"presets of 'concat': dropout: Input should be less than 1 \(found 1.5\)"):
        applied(ConcatSettings(), {"dropout": 1.5}, "presets of 'concat'")


def test_presets_of_another_corpus_are_refused(done: tuple[Plan, Path, Tuned], tmp_path: Path) -> None:
    corpus = load_corpus(str(write_corpus(tmp_path, poison=True)), Path())
    with pytest.raises(UserError, match=r"are for another corpus: expected fingerprint .* found .*; tune on this"):
        read_preset(str(done[2].file), corpus)
    with pytest.raises(UserError, match="no presets for 'corpus' come with dual-bench"):
        read_preset("auto", corpus)
    with pytest.raises(UserError, match=r"no preset file 'nowhere\.toml'; expected auto, none, or a file"):
        read_preset("nowhere.toml", corpus)


@pytest.fixture(scope="module")
def tuned_run(done: tuple[Plan, Path, Tuned]) -> Path:
    """A run with the presets, of models that were tuned and one that was not."""
    models = ["concat:width=8", "audio-only:width=8", "vision-only:width=8"]
    fields = {"models": models, "presets": str(done[2].file), "draws": 1, "seeds": 2, "dependency": False}
    plan = plan_for(done[1] / "corpus.csv", **fields)
    runner.run(plan, Path(), done[1].parent / "cache", done[1], done[1] / "run", "cpu", 1)
    return done[1] / "run"


def test_a_run_records_what_each_model_was_given(done: tuple[Plan, Path, Tuned], tuned_run: Path) -> None:
    info = read_run(tuned_run).info.tuning
    assert info is not None
    assert (info.digest, info.trials) == (done[2].preset.digest, TRIALS)
    assert set(info.systems) == {"concat:width=8", "audio-only:width=8"}
    for system, folds in info.systems.items():
        chosen = done[2].preset.models[system]["official"]
        assert (folds["official"].spent, folds["official"].default) == (chosen.spent, chosen.default)
        assert set(filter(None, folds["official"].settings.split(","))) == {
            f"{k}={v}" for k, v in chosen.settings.items()
        }


def test_the_report_shows_how_much_tuning_each_model_had(tuned_run: Path) -> None:
    evidence = gather(read_run(tuned_run))
    table = next(table for table in tables(evidence) if table.name == "tuning")
    assert table.frame.set_index("system")["trials_spent"].to_dict() == {
        "concat:width=8": TRIALS,
        "audio-only:width=8": TRIALS,
        "vision-only:width=8": 0,
    }
    assert table.shown is not None
    assert table.shown["settings chosen"].tolist()[2] == "not tuned"
    assert table.shown["trials allowed"].tolist() == [str(TRIALS)] * 3
    said = " ".join(methods(evidence))
    assert "with at most 4 trials for each model" in said
    assert "not tuned, or not in every fold: vision-only:width=8" in said


def test_a_run_without_presets_says_nothing_of_tuning(tmp_path: Path) -> None:
    write(tmp_path / "run", Made(models=("dual", "concat"), regimes=("clean",)))
    evidence = gather(read_run(tmp_path / "run"))
    assert "tuning" not in [table.name for table in tables(evidence)]
    assert "tuned" not in " ".join(methods(evidence))


def test_runs_merge_only_with_runs_of_the_same_presets(tmp_path: Path) -> None:
    one = TunedInfo(spent=8, settings="width=64", default=1.0, best=0.9)
    for name, digest, model, first in (
        ("a", "d" * 64, "dual", 0),
        ("b", "d" * 64, "concat", 64),
        ("c", "e" * 64, "dual", 128),
    ):
        made = Made(models=(model,), regimes=("clean",), first_cell=first, seeds=2)
        folder = write(tmp_path / name, made)
        systems = {model: {"official": one}}
        tuned = TuningInfo(digest=digest, trials=8, regimes=("clean",), corruptions={}, training={}, systems=systems)
        folder.write_info(folder.info().model_copy(update={"tuning": tuned}))
    a, b, c = (read_run(tmp_path / name) for name in "abc")
    together = merged([a, b], tmp_path / "out")[0].info.tuning
    assert together is not None
    assert set(together.systems) == {"dual", "concat"}
    with pytest.raises(UserError, match="presets differs, dddddddddddd and eeeeeeeeeeee"):
        merged([a, c], tmp_path / "out")
