"""Fitting: what is chosen, from what, and that it repeats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dual_bench.catalog import MODELS
from dual_bench.inputs import Inputs, Resident, feature_scale
from dual_bench.models.losses import task_loss
from dual_bench.plan import read_plan
from dual_bench.seeding import generator
from dual_bench.training import (
    Examples,
    Fit,
    TrainingSettings,
    build,
    drawn_absent,
    exact_repeats,
    fit,
    resolve_device,
    without,
)
from dual_bench.types import MODALITIES, Batch, DualBenchError, Modality, Output, Ragged, Task, UserError, Widths

TASK = Task("classification", ("a", "b"))
ROWS = np.arange(24)


def inputs() -> Inputs:
    rng = generator("training inputs")

    def sequences(width: int) -> Ragged:
        return Ragged.pack([rng.normal(size=(n, width)).astype(np.float32) for n in rng.integers(1, 5, 24)])

    return Inputs(sequences(3), sequences(4), sequences(6))


def examples(rows: np.ndarray[Any, Any] = ROWS, texts: int = 1) -> Examples:
    return Examples(rows, np.stack([(rows + i) % 24 for i in range(texts)]), (rows % 2).astype(float))


def fitted(settings: TrainingSettings, texts: int = 1, stream: int = 0) -> tuple[nn.Module, Fit]:
    spec = MODELS.load("dual")
    with exact_repeats("cpu", 1):
        model = build(spec, spec.settings(width=8, steps=4), Widths(3, 4, 6), TASK, stream)
        resident = Resident(inputs(), ROWS[:16], model.modalities, "cpu")
        return model, fit(model, resident, examples(ROWS[:16], texts), examples(ROWS[16:]), TASK, settings, stream)


def test_training_keeps_the_weights_of_the_best_validation_epoch() -> None:
    """Training again up to the chosen epoch, and no further, gives the very weights that were kept."""
    model, found = fitted(TrainingSettings(epochs=12, patience=4, learning_rate=1e-2))
    losses = [epoch["validation"] for epoch in found.history]
    assert found.best_epoch == int(np.argmin(losses)) + 1
    assert len(losses) == min(12, found.best_epoch + 4)
    short, _ = fitted(TrainingSettings(epochs=found.best_epoch, patience=12, learning_rate=1e-2))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), short.parameters(), strict=True))


def test_equal_streams_repeat_to_the_bit_and_others_differ() -> None:
    settings = TrainingSettings(epochs=2)
    (one, first), (same, second), (other, third) = (fitted(settings, 3, stream) for stream in (0, 0, 1))
    assert first.history == second.history
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert first.history != third.history
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_each_part_of_the_loss_is_logged_by_name_at_each_epoch() -> None:
    _, found = fitted(TrainingSettings(epochs=2))
    for epoch in found.history:
        assert set(epoch) == {"task", "static_alignment", "dynamic_alignment", "total", "validation"}
        total = epoch["task"] + 0.1 * (epoch["static_alignment"] + epoch["dynamic_alignment"])
        assert epoch["total"] == pytest.approx(total, rel=1e-5)


def test_each_epoch_draws_anew_which_noisy_text_an_utterance_reads() -> None:
    read: list[tuple[int, ...]] = []

    class Spy(nn.Module):
        modalities = frozenset({"text"})

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 2)

        def forward(self, batch: Batch) -> Output:
            if self.training:
                read.append(tuple(batch.text_mask.sum(dim=1).tolist()))
            return Output(self.head(batch.text[:, 0]))

    with exact_repeats("cpu", 1):
        resident = Resident(inputs(), ROWS[:16], Spy.modalities, "cpu")
        one_batch = TrainingSettings(epochs=3, batch_size=24)
        fit(Spy(), resident, examples(ROWS[:16], texts=4), examples(ROWS[16:]), TASK, one_batch, "spy")
    assert len({tuple(sorted(lengths)) for lengths in read}) == 3


def test_standardising_looks_at_the_training_part_alone() -> None:
    given = inputs().audio
    steps = np.concatenate([given[i] for i in range(16)])
    found = feature_scale(given, ROWS[:16])
    np.testing.assert_allclose(found.mean, steps.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.spread, steps.std(0), atol=1e-6)
    changed = Ragged(given.values.copy(), given.starts, given.lengths)
    changed.values[given.starts[20] :] = 99.0
    again = feature_scale(changed, ROWS[:16])
    np.testing.assert_array_equal(again.mean, found.mean)
    np.testing.assert_array_equal(again.spread, found.spread)
    batch = Resident(inputs(), ROWS[:16], frozenset(MODALITIES), "cpu").batch(ROWS[:16], ROWS[:16])
    heard = batch.audio[batch.audio_mask]
    np.testing.assert_allclose(heard.mean(dim=0), np.zeros(3), atol=1e-5)
    np.testing.assert_allclose(heard.std(dim=0, correction=0), np.ones(3), atol=1e-5)


def test_a_constant_feature_is_centred_and_not_blown_up() -> None:
    given = Ragged.pack([np.full((2, 1), 7.0, np.float32)] * 3)
    batch = Resident(Inputs(given, given, given), np.arange(3), frozenset({"audio"}), "cpu").batch(*[np.arange(3)] * 2)
    np.testing.assert_array_equal(batch.audio, np.zeros((3, 2, 1)))


def test_a_loss_that_is_not_a_number_stops_with_advice() -> None:
    with pytest.raises(DualBenchError, match="smaller learning_rate"):
        fitted(TrainingSettings(epochs=30, learning_rate=1e18, clip=1e30))


def test_settings_that_do_not_fit_together_are_a_sentence() -> None:
    with pytest.raises(UserError, match=r"model 'text-only': width 6 is not a multiple of 4 heads"):
        read_plan("default", {"models": ["text-only:width=6"]})


def test_class_weights_weigh_each_class_the_same() -> None:
    logits, target = torch.zeros(4, 2), torch.tensor([0.0, 0.0, 0.0, 1.0])
    logits[3, 0] = 2.0
    weights = torch.tensor([4 / 3 / 2, 4 / 1 / 2])
    expected = (3 * weights[0] * np.log(2) + weights[1] * np.log(1 + np.e**2)) / (3 * weights[0] + weights[1])
    assert float(task_loss(TASK, logits, target, weights)) == pytest.approx(float(expected), rel=1e-5)
    balanced, _ = fitted(TrainingSettings(epochs=1, class_weights=True))
    plain, _ = fitted(TrainingSettings(epochs=1))
    assert all(torch.equal(a, b) for a, b in zip(balanced.parameters(), plain.parameters(), strict=True))


def test_regression_loss_is_the_mean_absolute_error() -> None:
    loss = task_loss(Task("regression", low=-3, high=3), torch.tensor([[1.0], [-1.0]]), torch.tensor([0.0, 1.0]))
    assert float(loss) == 1.5


def test_devices_that_are_not_there_are_refused() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in {"cpu", "cuda", "mps"}
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="'cuda' is not available"):
            resolve_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_trains_and_repeats_itself() -> None:
    spec = MODELS.load("dual")
    histories = []
    for _ in range(2):
        with exact_repeats("cuda", 1):
            model = build(spec, spec.settings(width=8, steps=4), Widths(3, 4, 6), TASK, 0).to("cuda")
            resident = Resident(inputs(), ROWS[:16], model.modalities, "cuda")
            settings = TrainingSettings(epochs=2)
            histories.append(fit(model, resident, examples(ROWS[:16]), examples(ROWS[16:]), TASK, settings, 0).history)
    assert histories[0] == histories[1]


# ------------------------------------------------------------------------------------- modality dropout


@given(
    st.integers(0, 1000),
    st.floats(0, 0.99),
    st.sets(st.sampled_from(MODALITIES), min_size=1).map(frozenset),
)
def test_no_utterance_goes_without_everything_that_is_read(
    seed: int, probability: float, reads: frozenset[Modality]
) -> None:
    absent = drawn_absent(generator("absent", seed), 50, reads, probability)
    assert set(absent) == reads
    assert not np.all(list(absent.values()), axis=0).any()


def test_each_modality_is_absent_as_often_as_it_says() -> None:
    absent = drawn_absent(generator("absent share"), 40_000, frozenset(MODALITIES), 0.3)
    # of those without all three, .3 ** 3, one is given back
    for gone in absent.values():
        assert abs(gone.mean() - (0.3 - 0.3**3 / 3)) < 0.01


def test_an_absent_modality_has_no_valid_step_and_the_others_stay_as_they_are() -> None:
    mask = torch.ones(3, 4, dtype=torch.bool)
    batch = Batch(torch.ones(3, 4, 2), mask, torch.ones(3, 4, 2), mask, torch.ones(3, 4, 2), mask)
    gone = without(batch, {"audio": np.array([True, False, False]), "text": np.array([False, False, True])})
    assert gone.audio_mask.any(dim=1).tolist() == [False, True, True]
    assert gone.text_mask.any(dim=1).tolist() == [True, True, False]
    assert gone.vision_mask.all()
    assert torch.equal(gone.audio, batch.audio)
