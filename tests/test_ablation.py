"""Studies: what a file may say, where it is found, what it compares, and that planted truth comes out of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import kept_weights, write_corpus

from dual_bench import provenance, runner
from dual_bench.ablation import changed, read_study
from dual_bench.plan import Cell, cells, load_corpus, variants
from dual_bench.report.evidence import gather
from dual_bench.schema import ComparisonInfo, StudyInfo
from dual_bench.stats.frame import system_name
from dual_bench.store import RunFolder, read_run
from dual_bench.study import find_study
from dual_bench.types import UserError

SHARED_BASELINE = ("components", "text_path", "alignment", "factorial", "capacity", "training_noise")
PACKAGED = (*SHARED_BASELINE, "motion")

SMALL = """
name = "small"
question = "Does it matter?"
dataset = "synthetic"
metric = "accuracy"
margin = 0.02
regimes = ["clean"]
"""
VARIANT = """
[[variants]]
change = { sdm = "off" }
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


# -------------------------------------------------------------------------------------- what a file says


@pytest.mark.parametrize("name", PACKAGED)
def test_every_packaged_study_is_an_experiment(name: str) -> None:
    plan, study = read_study(name, {})
    assert plan.question.endswith("?")
    assert study.margin > 0
    assert study.primary
    assert study.digest == hashlib.sha256(find_study(name)[0].encode()).hexdigest()
    trained = {system_name(v.model, v.changed) for v in variants(plan)}
    named = {term.system for c in study.comparisons for term in c.terms}
    assert study.baseline in named
    assert named == trained == set(study.titles)
    assert {term.regime for c in study.comparisons for term in c.terms} == set(plan.regimes)
    for comparison in study.comparisons:
        assert sum(term.weight for term in comparison.terms) == pytest.approx(0)


def titles(study: StudyInfo) -> set[str]:
    return {c.name for c in study.comparisons}


def test_the_studies_ask_what_they_promise() -> None:
    _, components = read_study("components", {})
    assert len(components.comparisons) == 9
    assert titles(components) >= {"SDM off", "VDM off", "SR off", "both alignments off", "everything off"}
    _, text_path = read_study("text_path", {})
    assert titles(text_path) >= {"early", "late", "concat", "none"}
    assert len([name for name in titles(text_path) if name.startswith("bounded")]) >= 3
    _, noise = read_study("training_noise", {})
    assert titles(noise) == {"trained mixed", "trained matched", "trained modality-dropout"}
    _, capacity = read_study("capacity", {})
    assert {name.removesuffix(" plain") for name in titles(capacity) if name.endswith("plain")} == {
        "SDM", "VDM", "SR", "nonlinear alignment",
    }  # fmt: skip
    _, alignment = read_study("alignment", {})
    for field in ("lambda_s", "lambda_d", "temperature", "negatives"):
        assert any(field in name for name in titles(alignment)), field


def test_the_factorial_estimates_each_effect_from_all_16_cells() -> None:
    plan, study = read_study("factorial", {})
    assert len(variants(plan)) == 16
    kinds = [c.kind for c in study.comparisons]
    assert (kinds.count("main effect"), kinds.count("interaction")) == (4, 6)
    columns = np.array([[term.weight for term in c.terms] for c in study.comparisons])
    assert all([t.system for t in c.terms] == [t.system for t in study.comparisons[0].terms] for c in study.comparisons)
    np.testing.assert_allclose(columns @ columns.T, np.eye(10) * 16 / 64)  # +-1/8 each, orthogonal
    sdm = next(c for c in study.comparisons if c.name == "SDM off")
    for term in sdm.terms:
        assert (term.weight > 0) == ("sdm=off" in term.system)
    assert {c.expected for c in study.comparisons if c.kind == "interaction"} == {"none"}


def test_variants_build_on_the_settings_of_the_baseline() -> None:
    assert changed("dual:time_mixing=off,width=16", [{"sdm": "off"}, {"width": 8}]) == (
        "dual:sdm=off,time_mixing=off,width=8"
    )
    _, study = read_study("motion", {})
    for comparison in study.comparisons:
        assert "time_mixing=off" in comparison.terms[0].system


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL + "baselne = 'dual'\n" + VARIANT, "unknown setting 'baselne'; did you mean 'baseline'?"),
        (SMALL + "[[variants]]\nchnge = { sdm = 'off' }\n", "'variants.0.chnge'; did you mean 'change'?"),
        (SMALL + "[[variants]]\nchange = { sdmm = 'off' }\n", "unknown setting 'sdmm'; did you mean 'sdm'?"),
        (SMALL + "[[variants]]\nchange = { sdm = 'of' }\n", "sdm"),
        (SMALL + "[[variants]]\nchange = { sdm = 'on' }\n", "equals its baseline 'dual'"),
        (SMALL + "[[variants]]\nregime = 'clean'\n", "equals its baseline 'dual'"),
        (SMALL + "[[variants]]\nname = 'empty'\n", "equals its baseline 'dual'"),
        (SMALL + "[[variants]]\n", "changes nothing"),
        (SMALL + VARIANT + VARIANT, "two variants are called 'sdm=off'"),
        (SMALL + VARIANT + "[[variants]]\nname = 'other'\nchange = { sdm = 'off' }\n", "the same"),
        (SMALL, "expected variants or factors, found neither"),
        (SMALL + VARIANT + "[[factors]]\nname = 'SDM'\noff = { sdm = 'off' }\n", "found both"),
        (SMALL + "[[variants]]\nchange = { s_max = 0.5 }\n", "s_max acts on nothing here"),
        (
            SMALL + "[[factors]]\nname = 'A'\noff = { sdm = 'off' }\n[[factors]]\nname = 'B'\n"
            "off = { sdm = 'off', vdm = 'off' }\n",
            "two factors change 'sdm'",
        ),
        (SMALL + "primary = ['clean', 'clean']\n" + VARIANT, "'clean' stands twice"),
        (SMALL.replace("0.02", "0"), "margin"),
        (SMALL.replace('question = "Does it matter?"\n', "") + VARIANT, "'question' is missing"),
        (SMALL.replace("accuracy", "acuracy") + VARIANT, "did you mean 'accuracy'?"),
        (SMALL + "baseline = 'daul'\n" + VARIANT, "did you mean 'dual'?"),
        (SMALL + "expected = 'worse'\n" + VARIANT, "expected: Input should be 'loss', 'gain' or 'none'"),
        (SMALL + "models = ['dual']\n", "compares models; use `dual-bench run"),
    ],
)
def test_a_study_that_is_no_experiment_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        read_study(written(tmp_path, text), {})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_another_metric_asks_for_another_margin() -> None:
    with pytest.raises(UserError, match="give --margin too"):
        read_study("components", {"metric": "uar"})
    assert read_study("components", {"metric": "accuracy"})[1].margin == 0.02  # its own
    plan, study = read_study("components", {"metric": "uar", "margin": 0.05, "seeds": 2})
    assert (plan.metric, study.margin, plan.seeds) == ("uar", 0.05, 2)
    assert study.replaced == {"margin": "0.05", "metric": "uar", "seeds": "2"}


def test_a_study_is_found_as_a_path_then_in_the_folder_then_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_study("components", {})[1].where == "components, which comes with dual-bench"
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "components.toml").write_text(SMALL + VARIANT)
    assert read_study("components", {})[1].where == str(Path("ablations") / "components.toml")
    (tmp_path / "components").write_text(SMALL + VARIANT)
    assert read_study("components", {})[1].where == "components"


# ----------------------------------------------------------------------------------------- shared work


def wanted(name: str) -> tuple[Cell, ...]:
    plan, _ = read_study(name, {"dataset": "synthetic:utterances=24", "seeds": 2})
    corpus = load_corpus(plan.dataset, Path())
    return cells(plan, corpus, plan.conditions(corpus), {}, "cpu")


def test_all_packaged_studies_share_the_cells_of_their_baseline() -> None:
    digests = {
        name: {c.digest for c in wanted(name) if not c.variant.changed and c.regimen.regime == "clean"}
        for name in SHARED_BASELINE
    }
    assert all(len(found) == 2 for found in digests.values())  # a cell for each seed
    assert len(set(map(frozenset, digests.values()))) == 1
    shared = {c.digest for c in wanted("components")} & {c.digest for c in wanted("factorial")}
    assert len(shared) == 2 * 6  # as it is; without SDM, VDM, both, SR, both alignments


TINY = {"rates": [0.5, 1.0], "draws": 2, "seeds": 2, "training": {"epochs": 2}}


def ablate(study: str, manifest: Path, out: Path, cache: Path, **fields: Any) -> runner.RunResult:
    plan, record = read_study(study, {**TINY, "dataset": str(manifest), **fields})
    return runner.run(plan, Path(), cache, out.parent, out, "cpu", 1, study=record)


@pytest.fixture(scope="module", autouse=True)
def _clean_checkout() -> Iterator[None]:
    """As where the code is committed: cells are shared between runs of the same code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "_git_state", lambda folder: ("c0ffee" * 7, False))
        yield


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and a finished study."""
    folder = tmp_path_factory.mktemp("ablation")
    text = SMALL + 'primary = ["clean", "word-drop area"]\nbaseline = "dual:width=8"\n'
    (folder / "one.toml").write_text(text + VARIANT + "[[variants]]\nregime = 'modality-dropout'\n")
    (folder / "two.toml").write_text(text.replace("small", "other") + "[[variants]]\nchange = { vdm = 'off' }\n")
    ablate(str(folder / "one.toml"), write_corpus(folder), folder / "one", folder / "cache")
    return folder


def test_the_baseline_is_trained_once_for_all_studies_with_the_same_settings(studied: Path) -> None:
    with kept_weights() as weights:
        result = ablate(str(studied / "two.toml"), studied / "corpus.csv", studied / "two", studied / "cache")
    assert (result.trained, result.found, len(weights)) == (2, 2, 2)
    first, second = read_run(studied / "one"), read_run(studied / "two")
    assert {c.digest for c in first.cells} & {c.digest for c in second.cells} == {
        c.digest for c in second.cells if "vdm" not in c.variant
    }
    assert not second.missing


def test_a_damaged_cell_of_another_run_is_not_taken(studied: Path, tmp_path: Path) -> None:
    out = tmp_path / "reports" / "three"
    ablate(str(studied / "two.toml"), studied / "corpus.csv", out, studied / "cache")
    victim = sorted((out / "cells").glob("*.parquet"))[0]
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    result = ablate(str(studied / "two.toml"), studied / "corpus.csv", out.parent / "four", studied / "cache")
    assert (result.trained, result.found) == (1, 3)


@pytest.mark.parametrize("state", [("0ther" * 8, False), ("c0ffee" * 7, True)], ids=["other code", "uncommitted"])
def test_cells_of_other_code_or_of_nobody_knows_which_are_not_taken(
    studied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: tuple[str, bool]
) -> None:
    out = tmp_path / "reports" / "first"
    ablate(str(studied / "two.toml"), studied / "corpus.csv", out, studied / "cache")
    monkeypatch.setattr(provenance, "_git_state", lambda folder: state)
    result = ablate(str(studied / "two.toml"), studied / "corpus.csv", out.parent / "second", studied / "cache")
    assert (result.trained, result.found) == (4, 0)


def test_a_run_that_is_stopped_while_it_takes_cells_goes_on(
    studied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "reports" / "first"
    ablate(str(studied / "two.toml"), studied / "corpus.csv", out, studied / "cache")
    borrow, taken = RunFolder.borrow, []

    def stopped(self: RunFolder, digest: str, folders: Any, made_by: Any, weights: bool) -> bool:
        if taken:
            raise KeyboardInterrupt
        taken.append(digest)
        return borrow(self, digest, folders, made_by)

    monkeypatch.setattr(RunFolder, "borrow", stopped)
    with pytest.raises(KeyboardInterrupt):
        ablate(str(studied / "two.toml"), studied / "corpus.csv", out.parent / "second", studied / "cache")
    monkeypatch.setattr(RunFolder, "borrow", borrow)
    result = ablate(str(studied / "two.toml"), studied / "corpus.csv", out.parent / "second", studied / "cache")
    assert (result.trained, result.skipped, result.found) == (0, 1, 3)
    assert read_run(out.parent / "second").info.found == 3


def test_the_question_is_stored_with_the_answers(studied: Path) -> None:
    run = read_run(studied / "one")
    assert run.info.study is not None
    text = (studied / "one.toml").read_bytes()
    assert run.info.study.digest == hashlib.sha256(text).hexdigest()
    assert set(run.info.study.replaced) == {"rates", "draws", "seeds", "training", "dataset"}
    evidence = gather(run)
    assert {e.comparison.name for e in evidence.effects} == {"sdm=off", "trained modality-dropout"}
    assert {e.quantity for e in evidence.effects if e.primary} == {"clean", "word-drop area"}


def test_with_one_seed_models_of_one_shape_start_from_the_same_weights(studied: Path, tmp_path: Path) -> None:
    study = written(tmp_path, SMALL + VARIANT + "[[variants]]\nregime = 'mixed'\n")
    still = {"epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    with kept_weights() as weights:
        ablate(study, studied / "corpus.csv", tmp_path / "reports" / "run", studied / "cache", training=still, seeds=1)
    shapes = [{name: tuple(w.shape) for name, w in kept.items()} for kept in weights]
    pairs = [(i, k) for i in range(len(weights)) for k in range(i) if shapes[i] == shapes[k]]
    assert len(pairs) == 2  # the model with SDM, and that without, each trained clean and mixed
    for i, k in pairs:
        for name in weights[i]:
            np.testing.assert_allclose(weights[i][name], weights[k][name], atol=1e-6)


def test_another_margin_is_another_question(studied: Path) -> None:
    with pytest.raises(UserError, match="belongs to another plan"):
        ablate(str(studied / "one.toml"), studied / "corpus.csv", studied / "one", studied / "cache", margin=0.5)


def test_a_quantity_that_is_not_measured_is_refused_before_anything_is_written(studied: Path, tmp_path: Path) -> None:
    study = written(tmp_path, SMALL + 'primary = ["word-drop are"]\n' + VARIANT)
    with pytest.raises(UserError, match=r"called 'word-drop are'; did you mean 'word-drop area'\?"):
        ablate(study, studied / "corpus.csv", tmp_path / "run", studied / "cache")
    assert not (tmp_path / "run").exists()


def names(comparisons: tuple[ComparisonInfo, ...]) -> list[str]:
    return [c.regime for c in comparisons]


def test_a_variant_of_the_regime_is_compared_with_the_baseline_in_its_own() -> None:
    _, study = read_study("training_noise", {})
    assert names(study.comparisons) == [
        "mixed against clean", "matched against clean", "modality-dropout against clean",
    ]  # fmt: skip
    for comparison in study.comparisons:
        assert [(t.weight, t.system) for t in comparison.terms] == [(1, "dual"), (-1, "dual")]
