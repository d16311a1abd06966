"""The bounded text path: what it certifies holds under every text that is tried."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import write_corpus

from dual_bench import runner
from dual_bench.certificate import Certificate, unmoved, worst_scores
from dual_bench.models.dual import Dual, DualSettings
from dual_bench.plan import read_plan
from dual_bench.seeding import torch_stream
from dual_bench.store import Run, read_run
from dual_bench.types import ANY_TEXT, Batch, Task, Widths

CLASSES = Task("classification", ("a", "b", "c"))
VALUE = Task("regression", low=-3.0, high=3.0)
ATTACKS = ["worst-case", "contradiction", "mismatch"]
BOUNDS = (0.1, 0.5, 3.0)


@pytest.fixture(scope="module", params=[False, True], ids=["classification", "regression"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Bounded models, and one without words, under the corruptions that harm most."""
    folder = tmp_path_factory.mktemp("certified")
    manifest = write_corpus(folder, regression=request.param)
    bounded = [f"dual:width=8,text_path=bounded,s_max={s}" for s in BOUNDS]
    plan = read_plan(
        "default",
        {
            "dataset": str(manifest),
            "models": [*bounded, "dual:width=8,text_path=none", "dual:width=8"],
            "regimes": ["clean"],
            "corruptions": ATTACKS,
            "rates": [0.5, 1.0],
            "draws": 3,
            "seeds": 1,
            "metric": "",
            "training": {"epochs": 6},
        },
    )
    runner.run(plan, Path(), folder / "cache", folder, folder / "run", "cpu", 1)
    return read_run(folder / "run")


def hits(rows: object, task: Task) -> np.ndarray:
    """Accuracy, or minus the absolute error, of each row."""
    scores = rows.filter(like="score_").to_numpy()  # type: ignore[attr-defined]
    truth = rows["truth"].to_numpy()  # type: ignore[index]
    return (
        -np.abs(scores[:, 0] - truth) if task.kind == "regression" else (scores.argmax(axis=1) == truth).astype(float)
    )


def test_what_is_certified_is_never_better_than_what_any_attack_leaves(trained: Run) -> None:
    """Utterance by utterance, and so in every mean: on the same weights, under every rate and draw."""
    bound = trained.certified.assign(hit=hits(trained.certified, trained.task))
    measured = trained.predictions.assign(hit=hits(trained.predictions, trained.task))
    assert set(measured["corruption"]) >= set(ATTACKS)
    worst = measured.groupby(["cell", "utterance"], observed=True)["hit"].min()
    certified = bound.set_index(["cell", "utterance"])["hit"]
    assert len(certified) == (len(BOUNDS) + 1) * 32
    assert (certified <= worst.reindex(certified.index) + 1e-6).all()


def test_no_text_changes_a_certified_class(trained: Run) -> None:
    if trained.task.kind == "regression":
        assert trained.certified["certified"].isna().all()
        return
    rows = trained.predictions
    rows = rows.assign(answer=rows.filter(like="score_").to_numpy().argmax(axis=1))
    answers = rows.groupby(["cell", "utterance"], observed=True)["answer"].nunique()
    sure = trained.certified.set_index(["cell", "utterance"])["certified"].astype(bool)
    assert sure.any()
    assert (answers.reindex(sure[sure].index) == 1).all()
    by_model = sure.groupby("cell", observed=True).mean()
    variants = trained.certified.drop_duplicates("cell").set_index("cell")["variant"].astype(str)
    share = {s: by_model[variants[variants.str.contains(f"s_max={s},")].index].mean() for s in (0.1, 0.5, 3.0)}
    assert share[0.1] > share[0.5] >= share[3.0]


def test_only_models_that_bound_their_text_are_certified(trained: Run) -> None:
    radius = {c.variant: c.radius for c in trained.cells}
    assert radius["width=8"] is None
    assert radius["text_path=none,width=8"] == pytest.approx(0, abs=1e-3)
    for s in BOUNDS:
        assert 0 < radius[f"s_max={s},text_path=bounded,width=8"] <= s + 1e-3
    assert (trained.predictions["corruption"] != ANY_TEXT.corruption).all()
    assert set(trained.certified["variant"]) == set(radius) - {"width=8"}


def words(text: torch.Tensor) -> Batch:
    with torch_stream("certified batch"):
        audio, vision = torch.randn(len(text), 5, 5), torch.randn(len(text), 5, 7)
    valid = torch.ones(len(text), 5, dtype=torch.bool)
    return Batch(audio, valid, vision, valid, text, torch.ones(text.shape[:2], dtype=torch.bool))


@pytest.mark.parametrize("task", [CLASSES, VALUE], ids=["classification", "regression"])
def test_no_embedding_however_absurd_moves_a_logit_by_more_than_the_radius(task: Task) -> None:
    with torch_stream("bounded", 0):
        model = Dual(Widths(5, 7, 6), task, DualSettings(width=8, text_path="bounded", s_max=0.7)).eval()
        texts = torch.randn(64, 4, 6) * 10.0 ** torch.arange(64).remainder(7)[:, None, None]
    given = words(texts)
    with torch.no_grad():
        found = model.certify(model.trunk(given))
        assert found is not None
        moved = (model(given).logits - found[0]).abs()
    assert moved.max() <= found[1]
    assert moved.max() > 0.1  # and the bound is used


@given(st.lists(st.floats(-4, 4), min_size=3, max_size=3), st.floats(0.01, 2), st.integers(0, 2), st.data())
def test_the_worst_scores_are_wrong_wherever_some_move_within_the_radius_is(
    logits: list[float], radius: float, truth: int, data: st.DataObject
) -> None:
    z = np.array([logits])
    certificate = Certificate(np.array([0]), z, radius)
    move = np.array([data.draw(st.lists(st.floats(-radius, radius), min_size=3, max_size=3))])
    right = worst_scores(CLASSES, certificate, np.array([truth]))[0].argmax() == truth
    gap = np.sort(z[0])[-1] - np.sort(z[0])[-2]
    if abs(gap - 2 * radius) < 1e-6:
        return  # on the edge rounding decides
    if right:
        assert (z + move)[0].argmax() == truth
    if unmoved(CLASSES, certificate)[0]:  # type: ignore[index]
        assert (z + move)[0].argmax() == z[0].argmax()
        assert right == (z[0].argmax() == truth)


@given(st.floats(-4, 4), st.floats(0, 2), st.floats(-3, 3), st.floats(-1, 1))
def test_the_worst_value_is_as_far_from_the_truth_as_any_within_the_radius(
    value: float, radius: float, truth: float, share: float
) -> None:
    worst = worst_scores(VALUE, Certificate(np.array([0]), np.array([[value]]), radius), np.array([truth]))[0, 0]
    moved = np.clip(value + share * radius, -3, 3)
    assert abs(worst - truth) >= abs(moved - truth) - 1e-6
