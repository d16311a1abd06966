"""The corruption battery in a run: severities, regimes, noise behind the words, the worst case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import kept_weights, write_corpus

from dual_bench import runner
from dual_bench.corruptions.severity import TARGETS
from dual_bench.plan import Plan, cells, largest_rates, load_corpus, read_plan
from dual_bench.schema import SeverityPoint
from dual_bench.store import Run, read_run
from dual_bench.types import CLEAN, Condition, UserError

POINTS = ["regime", "corruption", "rate"]


def plan_for(manifest: Path, **fields: Any) -> Plan:
    given = {
        "dataset": str(manifest),
        "models": ["dual:width=8", "audio-vision:width=8"],
        "draws": 2,
        "seeds": 1,
        "metric": "",
        "training": {"epochs": 2, "noisy_texts": 2, "noisy_validation_texts": 1},
    }
    return read_plan("default", {**given, **fields})


def go(plan: Plan, cache: Path, out: Path) -> Run:
    runner.run(plan, Path(), cache, out.parent, out, "cpu", 1)
    return read_run(out)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def scaled(manifest: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All regimes, severities, one corruption that cannot reach them."""
    plan = plan_for(
        manifest,
        corruptions=["word-drop", "case-punctuation", "mismatch"],
        severities=[1, 5],
        regimes=["clean", "matched", "mixed"],
    )
    return go(plan, cache, tmp_path_factory.mktemp("scaled") / "run")


@pytest.fixture(scope="module")
def hidden(manifest: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Noise behind the words, and the worst case."""
    plan = plan_for(
        manifest, corruptions=["token-zero", "token-unk", "token-noise", "worst-case"], rates=["10 dB", 0.5]
    )
    return go(plan, cache, tmp_path_factory.mktemp("hidden") / "run")


# ---------------------------------------------------------------------------------------------- severity


def test_every_row_names_its_severity_and_the_run_what_it_means(scaled: Run) -> None:
    points = {(p.corruption, p.severity): p for p in scaled.info.severities}
    assert {(name, s) for name in ("word-drop", "case-punctuation", "mismatch") for s in (1, 5)} == set(points)
    for name in ("word-drop", "mismatch"):
        rows = scaled.predictions[scaled.predictions["corruption"] == name]
        for severity, part in rows.groupby("severity"):
            assert part["rate"].unique().tolist() == [points[name, int(severity)].rate]
    assert all(p.reached == (abs(p.wer - p.target) <= 0.01) for p in points.values())
    assert all(p.target == TARGETS[p.severity] for p in points.values())


def test_severities_that_cannot_be_reached_are_one_condition_and_marked(scaled: Run) -> None:
    points = [p for p in scaled.info.severities if p.corruption == "case-punctuation"]
    assert [(p.rate, p.wer, p.reached) for p in points] == [(1.0, 0.0, False)] * 2  # there is nothing to strip
    rows = scaled.predictions[scaled.predictions["corruption"] == "case-punctuation"]
    assert set(zip(rows["rate"], rows["severity"], strict=True)) == {(1.0, 1)}


def test_severity_is_refused_behind_the_words_and_beside_rates(tmp_path: Path, manifest: Path) -> None:
    with pytest.raises(UserError, match="'token-zero' acts behind the words; give rates"):
        plan_for(manifest, corruptions=["token-zero"], severities=[1])
    study = tmp_path / "both.toml"
    study.write_text('name = "both"\ndataset = "synthetic"\nmodels = ["dual"]\nrates = [0.5]\nseverities = [1]\n')
    with pytest.raises(UserError, match="rates or severities, found both"):
        read_plan(str(study), {})
    with pytest.raises(UserError, match="less than or equal to 5"):
        plan_for(manifest, severities=[6])


def test_naming_severities_puts_the_rates_of_a_study_aside_and_the_other_way_round(tmp_path: Path) -> None:
    study = tmp_path / "s.toml"
    study.write_text('name = "s"\ndataset = "synthetic"\nmodels = ["dual"]\nseverities = [1]\n')
    assert read_plan(str(study), {"rates": [0.5]}).severities == ()
    assert read_plan("default", {"severities": ["3"]}).severities == (3,)


def test_rates_may_be_signal_to_noise_ratios(manifest: Path) -> None:
    assert plan_for(manifest, rates=["10 dB", "0dB", 1]).rates == pytest.approx((1 / 11, 0.5, 1.0))
    with pytest.raises(UserError, match="rates"):
        plan_for(manifest, rates=["loud dB"])


# ----------------------------------------------------------------------------------------------- regimes


def test_every_regime_has_every_condition(scaled: Run) -> None:
    counts = scaled.predictions.groupby(["model", "regime"], observed=True).size()
    assert counts.nunique() == 1
    assert set(counts.index.get_level_values("regime")) == {"clean", "matched", "mixed"}


def test_matched_trains_one_model_for_each_corruption_and_rate_and_clean_text_is_the_clean_one(scaled: Run) -> None:
    rows = scaled.predictions[(scaled.predictions["model"] == "dual") & (scaled.predictions["draw"] == 0)]
    dual = rows[rows["regime"] == "matched"]
    assert (dual.groupby(["corruption", "rate"], observed=True)["cell"].nunique() == 1).all()
    assert dual["cell"].nunique() == 7  # clean, two rates of two corruptions, one of the third, the recogniser
    scores = [c for c in rows.columns if c.startswith("score_")]
    clean = rows[rows["corruption"] == "clean"].set_index(["regime", "utterance"])[scores]
    pd.testing.assert_frame_equal(clean.loc["matched"], clean.loc["clean"])
    noisy = rows[(rows["corruption"] == "word-drop") & (rows["severity"] == 5)].set_index(["regime", "utterance"])
    assert (noisy.loc["matched", "score_0"] != noisy.loc["clean", "score_0"]).any()
    trained = {(c.corruption, c.rate) for c in scaled.cells if c.regime == "matched" and c.model == "dual"}
    assert ("clean", 0.0) in trained
    assert ("case-punctuation", 1.0) in trained


def test_matched_trains_at_its_rate_with_noise_that_is_not_tested(manifest: Path) -> None:
    from dual_bench.words import words_of

    plan = plan_for(manifest, corruptions=["word-drop"], rates=[0.5], regimes=["matched"])
    corpus = load_corpus(plan.dataset, Path())
    conditions = plan.conditions(corpus)
    regimens = dict.fromkeys(cell.reads for cell in cells(plan, corpus, conditions, {}, "cpu"))
    words = words_of(plan, corpus, conditions, regimens)
    (regimen,) = [r for r in regimens if r.corruption == "word-drop"]
    train = corpus.folds[0].train
    texts = [words.readings[i].text for i in words.training[regimen][0][:, train].ravel()]
    assert 1 - sum(len(text.split()) for text in texts) / (5 * len(texts)) == pytest.approx(0.5, abs=0.08)
    assert (words.training[regimen][0][:, corpus.folds[0].test] == -1).all()
    rows = [words.training[regimen][0], words.validation[regimen][0]]
    assert max(part.max() for part in rows) < words.sealed


def test_the_same_utterance_is_read_otherwise_in_training_than_in_testing(manifest: Path) -> None:
    from dual_bench.corruptions.noise import Spoken, corrupted, matched
    from dual_bench.words import training_text

    corpus = load_corpus(str(manifest), Path())
    training = training_text(corpus, corpus.folds[0])
    condition = Condition("word-drop", 0.5)
    both = [
        (corrupted(one, condition, 0).text, matched(one, condition, 0, 0).text)
        for one in (Spoken(u, training) for u in corpus.utterances)
    ]
    same = sum(test == train for test, train in both)
    assert same < 0.15 * len(both)  # of five words, chance makes the same pattern of losses in 1 of 32


def test_severities_in_any_order_are_the_same_plan(manifest: Path, cache: Path) -> None:
    plans = [plan_for(manifest, corruptions=["case-punctuation"], severities=given) for given in ([5, 4, 1], [1, 4, 5])]
    assert plans[0] == plans[1]
    corpus = load_corpus(str(manifest), Path())
    scale = [
        SeverityPoint(corruption="case-punctuation", severity=s, target=t, rate=1.0, wer=0.0, reached=False)
        for s, t in ((5, 0.7), (1, 0.1), (4, 0.5))
    ]
    noisy = [c for c in plans[0].conditions(corpus, scale) if c.corruption == "case-punctuation"]
    assert {c.severity for c in noisy} == {1}


def test_models_matched_to_rates_that_look_alike_are_trained_apart(manifest: Path) -> None:
    plan = plan_for(manifest, corruptions=["typo"], rates=["10dB", 0.0909091], regimes=["matched"])
    corpus = load_corpus(str(manifest), Path())
    trainings = {
        c.training for c in cells(plan, corpus, plan.conditions(corpus), {}, "cpu") if c.variant.model == "dual"
    }
    assert len(trainings) == 4  # clean, two rates, the recogniser


def test_a_damaged_scale_is_found_again(manifest: Path, tmp_path: Path) -> None:
    from dual_bench.words import scale_of

    plan, corpus = plan_for(manifest, corruptions=["word-drop"], severities=[2]), load_corpus(str(manifest), Path())
    searched: list[str] = []
    first = scale_of(plan, corpus, tmp_path, searched.append)
    (kept,) = (tmp_path / "scale").iterdir()
    assert scale_of(plan, corpus, tmp_path, searched.append) == first
    kept.write_bytes(b"[{]")
    assert scale_of(plan, corpus, tmp_path, searched.append) == first


def test_a_model_that_reads_no_words_is_trained_once_for_all_regimes(
    scaled: Run, manifest: Path, cache: Path, tmp_path: Path
) -> None:
    av = scaled.predictions[scaled.predictions["model"] == "audio-vision"]
    assert (av.groupby("utterance", observed=True)["score_0"].nunique() == 1).all()
    plan = plan_for(
        manifest, models=["audio-vision:width=8"], corruptions=["word-drop"], rates=[0.5, 1.0],
        regimes=["clean", "matched", "mixed"],
    )  # fmt: skip
    with kept_weights() as weights:
        go(plan, cache, tmp_path / "run")
    assert len(weights) == 1


def test_modality_dropout_trains_another_model_but_of_one_modality_none_can_be_spared(
    manifest: Path, cache: Path, tmp_path: Path
) -> None:
    models = ["audio-vision:width=8", "audio-only:width=8"]
    fields = {"corruptions": ["word-drop"], "rates": [1.0], "regimes": ["clean", "modality-dropout"]}
    with kept_weights() as weights:
        run = go(plan_for(manifest, models=models, **fields), cache, tmp_path / "run")
    assert len(weights) == 3
    scores = run.predictions.astype({"model": str, "regime": str}).groupby(["model", "regime"])["score_0"].sum()
    assert scores["audio-only", "clean"] == scores["audio-only", "modality-dropout"]
    assert scores["audio-vision", "clean"] != scores["audio-vision", "modality-dropout"]


def test_mixed_trains_up_to_the_largest_rate_and_on_nothing_that_needs_a_model() -> None:
    conditions = [
        CLEAN,
        Condition("typo", 0.2, 0, 4),
        Condition("typo", 0.1, 0, 1),
        Condition("transcript:x", 1.0),
        Condition("worst-case", 0.9),
    ]
    assert largest_rates(conditions) == {"typo": 0.2}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"corruptions": ["worst-case"], "regimes": ["mixed"]}, "does not depend on the model"),
        ({"corruptions": ["word-drop"], "rates": [0.0], "regimes": ["mixed"]}, "a rate above 0"),
        ({"corruptions": ["worst-case", "typo"], "regimes": ["matched"]}, "cannot train on 'worst-case'"),
        ({"corruptions": ["tpyo"]}, "did you mean 'typo'"),
        ({"corruptions": ["dual_bench.corruptions.words:drop_words"]}, "is no corruption"),
    ],
)
def test_what_does_not_go_together_is_refused(manifest: Path, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        plan_for(manifest, **fields)


def test_sound_is_asked_of_a_corpus_that_has_none(manifest: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'asr-loop' needs sound, and 'corpus' has none but features"):
        go(plan_for(manifest, corruptions=["asr-loop"], rates=[0.5]), cache, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------ what was measured, sealed


def test_cosine_distance_is_0_for_clean_text_1_for_none_and_between_for_some(scaled: Run, hidden: Run) -> None:
    for run in (scaled, hidden):
        assert (run.predictions.loc[run.predictions["corruption"] == "clean", "cosine"] == 0).all()
    rows = scaled.predictions
    assert (rows.loc[rows["dropped"] == 1, "cosine"] == 1).all()
    means = rows[rows["corruption"] == "word-drop"].groupby("severity")["cosine"].mean()
    assert 0 < means[1] < means[5] < 1
    shared = scaled.texts.set_index(["corruption", "rate", "draw", "utterance"])["cosine"]
    asked = rows.set_index(["corruption", "rate", "draw", "utterance"])["cosine"]
    np.testing.assert_array_equal(asked, shared.loc[asked.index])


def test_noise_behind_the_words_has_no_error_rate_but_a_distance_and_changes_predictions(hidden: Run) -> None:
    dual = hidden.predictions[(hidden.predictions["model"] == "dual") & (hidden.predictions["regime"] == "clean")]
    for name in ("token-zero", "token-unk", "token-noise"):
        rows = dual[dual["corruption"] == name]
        assert rows[["wer", "cer", "dropped"]].isna().all(axis=None)
        assert rows["cosine"].mean() > 0
        assert set(rows["score_0"]) != set(dual.loc[dual["corruption"] == "clean", "score_0"])
    texts = hidden.texts.set_index(["corruption", "utterance"])["text"]
    assert set(texts.loc["token-zero"]) == set(texts.loc["clean"])


def test_the_worst_case_is_worse_than_random_loss_for_its_model_and_tells_its_words(
    hidden: Run, manifest: Path, cache: Path, tmp_path: Path
) -> None:
    rows = hidden.predictions[hidden.predictions["model"] == "dual"]
    worst = rows[rows["corruption"] == "worst-case"]
    assert set(worst["draw"]) == {0}
    assert worst["text"].notna().all()
    assert rows.loc[rows["corruption"] != "worst-case", "text"].isna().all()
    assert "worst-case" not in set(hidden.texts["corruption"])
    assert (worst["text"].astype(str).str.split().str.len() + 5 * worst["dropped"] == 5).all()
    plan = plan_for(manifest, corruptions=["word-drop", "worst-case"], rates=[0.5], models=["dual:width=8"], draws=5)
    run = go(plan, cache, tmp_path / "run").predictions
    truth = run[[f"score_{i}" for i in range(4)]].to_numpy()[np.arange(len(run)), run["truth"].astype(int)]
    loss = pd.Series(-np.log(truth))
    means = loss.groupby([run["regime"].astype(str), run["corruption"].astype(str)]).mean()
    for regime in ("clean", "mixed"):
        assert means[regime, "worst-case"] > means[regime, "word-drop"]
        assert means[regime, "worst-case"] > means[regime, "clean"]


def test_poisoned_test_labels_change_no_weight_though_words_and_attacks_use_them(cache: Path, tmp_path: Path) -> None:
    weights, runs = {}, {}
    for kind in ("honest", "poisoned"):
        (tmp_path / kind).mkdir()
        manifest = write_corpus(tmp_path / kind, poison=kind == "poisoned")
        fields = {"corruptions": ["contradiction", "worst-case", "token-noise"], "rates": [0.5]}
        with kept_weights() as weights[kind]:
            runs[kind] = go(plan_for(manifest, **fields), cache, tmp_path / kind / "run")
    assert len(weights["honest"]) == 3  # audio-vision reads no text and is trained once for both regimes
    for one, other in zip(weights["honest"], weights["poisoned"], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    said = [run.texts.loc[run.texts["corruption"] == "contradiction", "text"].tolist() for run in runs.values()]
    assert said[0] != said[1]  # the poison reached the words of the test
    chosen = [[(c.model, c.regime, c.best_epoch, c.history) for c in run.cells] for run in runs.values()]
    assert chosen[0] == chosen[1]


def test_two_processes_attack_as_one(manifest: Path, cache: Path, tmp_path: Path, hidden: Run) -> None:
    plan = plan_for(manifest, corruptions=["worst-case", "token-noise"], rates=[0.5], regimes=["clean"])
    for jobs in (1, 2):
        runner.run(plan, Path(), cache, tmp_path, tmp_path / f"run{jobs}", "cpu", jobs)
    one, two = (
        {p.name: p.read_bytes() for p in (tmp_path / f"run{jobs}" / "cells").glob("*.parquet")} for jobs in (1, 2)
    )
    assert one == two


def test_a_scale_read_back_is_the_scale_that_was_found(scaled: Run) -> None:
    assert all(isinstance(point, SeverityPoint) for point in scaled.info.severities)
    corpus = load_corpus(scaled.info.plan["dataset"], Path())
    plan = Plan.model_validate(scaled.info.plan | {"rates": ()})
    asked = {(c.corruption, c.rate, c.draw, c.severity) for c in plan.conditions(corpus, scaled.info.severities)}
    stored = scaled.texts[["corruption", "rate", "draw", "severity"]].drop_duplicates()
    assert asked == set(stored.itertuples(index=False, name=None))
