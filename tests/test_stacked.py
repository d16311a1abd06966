"""Seeds trained together, and what is chosen for it; voice and face averaged once; batches of like length."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dual_bench import packing
from dual_bench.catalog import MODELS
from dual_bench.inputs import Inputs, Resident, binned, feature_scale
from dual_bench.models.layers import time_grid
from dual_bench.plan import Plan, check, load_corpus, read_plan
from dual_bench.seeding import generator
from dual_bench.stacked import Stack
from dual_bench.training import (
    Examples,
    Queries,
    TrainingSettings,
    batches,
    build,
    exact_repeats,
    fit,
    fit_stacked,
    predict,
    predict_all,
)
from dual_bench.types import MODALITIES, DualBenchError, Ragged, Task, UserError, Widths

TASK = Task("classification", ("a", "b", "c"))
ROWS = np.arange(40)
WIDTHS = Widths(3, 4, 6)


def sequences(width: int, longest: int, count: int = 40) -> Ragged:
    rng = generator("stacked inputs", width)
    return Ragged.pack([rng.normal(size=(n, width)).astype(np.float32) for n in rng.integers(1, longest + 1, count)])


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return Inputs(sequences(3, 9), sequences(4, 5), sequences(6, 7))


def both(inputs: Inputs, shared: TrainingSettings, seeds: int, absent: float = 0.0, **chosen: Any) -> Any:
    """Modules and fits of DUAL, trained one by one and stacked."""
    spec = MODELS.load("dual")
    own = spec.settings(width=8, steps=4, layers=1, **chosen)
    train = Examples(ROWS[:30], np.stack([(ROWS[:30] + i) % 40 for i in range(3)]), (ROWS[:30] % 3).astype(float))
    validation = Examples(ROWS[30:], ROWS[None, 30:], (ROWS[30:] % 3).astype(float))
    streams = [("stacked", seed) for seed in range(seeds)]
    with exact_repeats("cpu", 1):
        resident = Resident(inputs, ROWS[:30], frozenset(MODALITIES), "cpu")
        known = (resident, train, validation, TASK, shared)
        alone = [build(spec, own, WIDTHS, TASK, *stream) for stream in streams]
        fits = [fit(module, *known, *stream, absent=absent) for module, stream in zip(alone, streams, strict=True)]
        fresh = [build(spec, own, WIDTHS, TASK, *stream) for stream in streams]
        others = fit_stacked(fresh, *known, streams, absent)
        asked = Queries(np.tile(ROWS, 2), np.concatenate([ROWS, ROWS[::-1]]))
        scores = [predict_all(each, resident, TASK, asked) for each in (alone, fresh)]
        assert np.array_equal(scores[1][0], predict(fresh[0], resident, TASK, asked))
    return fits, others, *scores


@pytest.mark.parametrize("epochs", [6, pytest.param(20, marks=pytest.mark.slow)])  # of 15 steps
def test_90_and_300_steps_of_three_seeds_stacked_agree_with_separate_training(inputs: Inputs, epochs: int) -> None:
    fits, others, alone, together = both(inputs, TrainingSettings(epochs=epochs, patience=epochs, batch_size=2), 3)
    for one, other in zip(fits, others, strict=True):
        assert len(one.history) == len(other.history) == epochs
        assert one.best_epoch == other.best_epoch
        for epoch, same in zip(one.history, other.history, strict=True):
            assert epoch == pytest.approx(same, abs=1e-5)
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 1e-2  # seeds do differ


@pytest.mark.parametrize(
    "chosen",
    [
        {"text_path": "bounded"},
        {"text_path": "early", "sdm": "plain"},
        {"text_path": "concat", "vdm": False, "negatives": "batch"},
        {"text_path": "late", "nonlinear_alignment": "plain", "sentiment_residual": "plain"},
    ],
    ids=lambda chosen: chosen["text_path"],
)
def test_every_path_of_the_text_can_be_stacked(inputs: Inputs, chosen: dict[str, Any]) -> None:
    shared = TrainingSettings(epochs=3, patience=3, batch_size=8, class_weights=True)
    _, _, alone, together = both(inputs, shared, 2, **chosen)
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-5)


def test_stacked_seeds_stop_each_at_its_own_time_and_lose_their_own_modalities(inputs: Inputs) -> None:
    shared = TrainingSettings(epochs=60, patience=1, batch_size=8, learning_rate=2e-3, bucketing=True)
    fits, others, alone, together = both(inputs, shared, 4, absent=0.4)
    lengths = [len(one.history) for one in fits]
    assert len(set(lengths)) > 1
    assert lengths == [len(other.history) for other in others]
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-4)


def test_a_stack_whose_loss_is_not_a_number_stops_with_advice(inputs: Inputs) -> None:
    with pytest.raises(DualBenchError, match="smaller learning_rate"):
        both(inputs, TrainingSettings(epochs=30, learning_rate=1e18, clip=1e30), 2)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (lambda: nn.LSTM(3, 4, bidirectional=True), "one layer and one direction"),
        (lambda: nn.BatchNorm1d(3), "a BatchNorm1d cannot be stacked; Linear, LayerNorm, LSTM, Dropout can"),
        (lambda: nn.AlphaDropout(0.1), "a AlphaDropout cannot be stacked"),
        (lambda: nn.Linear(3, 4, bias=False), "a Linear without bias cannot be stacked"),
    ],
)
def test_a_layer_that_cannot_be_stacked_is_refused(layer: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Stack([nn.Sequential(layer()) for _ in range(2)])


def test_a_stack_holds_the_weights_it_was_made_of_and_no_others() -> None:
    spec = MODELS.load("dual")
    modules = [build(spec, spec.settings(width=8), WIDTHS, TASK, seed) for seed in range(3)]
    stack = Stack(modules)
    assert sum(p.numel() for p in stack.parameters()) == sum(p.numel() for m in modules for p in m.parameters())
    for number, module in enumerate(modules):
        found = stack.state_of(number)
        assert all(torch.equal(value, found[name]) for name, value in module.named_parameters())


# ------------------------------------------------------------------------------------------------ packs


def plan(**chosen: Any) -> Plan:
    return read_plan("default", chosen)


def test_a_pack_is_chosen_by_what_was_measured_and_the_measurement_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([(0.2, 0.5), (0.2, 2.0)])
    monkeypatch.setattr(packing, "_times", lambda *_: next(times))
    about = (1, WIDTHS, TASK, "cpu", tmp_path, lambda _: None)
    asked = plan(models=["dual"], seeds=5, training={"pack": "auto"})
    for _ in range(2):  # the second time without measuring
        found, said = packing.settled(asked, *about)
        assert found.training.pack == 5
        assert "packs of 5" in said
    other, said = packing.settled(plan(models=["dual:width=16"], seeds=5, training={"pack": "auto"}), *about)
    assert other.training.pack == 1
    assert "one by one" in said
    assert packing.settled(plan(models=["mult"], training={"pack": "auto"}), *about)[0].training.pack == 1


def test_a_pack_is_no_larger_than_there_are_seeds_and_not_for_models_that_cannot_be_stacked() -> None:
    corpus = load_corpus("synthetic:utterances=60", Path("unused"))
    assert check(plan(models=["dual", "mult"], seeds=3, training={"pack": 8}), corpus).training.pack == 3
    assert check(plan(models=["mult"], seeds=3, training={"pack": 1}), corpus).training.pack == 1
    with pytest.raises(UserError, match=r"none of the models can be trained stacked \(dual, concat, .* can\)"):
        check(plan(models=["mult"], training={"pack": 8}), corpus)


def test_the_measurement_times_both_ways(tmp_path: Path) -> None:
    chosen = plan(models=["linear"], seeds=2, training={"pack": "auto"})
    found, said = packing.settled(chosen, 1, WIDTHS, TASK, "cpu", tmp_path, lambda _: None)
    assert found.training.pack in (1, 2)
    (kept,) = (tmp_path / "packing").glob("*.json")
    measured = packing.Measured.model_validate_json(kept.read_bytes())
    assert measured.alone > 0
    assert measured.stacked > 0
    assert str(measured) == said


def test_a_pack_that_is_no_number_is_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match=r"pack.*expected a whole number from 1 or auto.*'many'"):
        plan(training={"pack": "many"})


# ---------------------------------------------------------------------------------------- bins, batches


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 9))
def test_averaging_once_is_averaging_in_the_model(lengths: list[int], bins: int) -> None:
    rng = generator("bins", *lengths)
    items = [rng.normal(size=(n, 3)).astype(np.float32) for n in lengths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dual_bench.inputs.cached", _in_memory)
        found = binned(Ragged.pack(items), bins, "test", Path("unused"))
    for item, averaged in zip(items, found, strict=True):
        if len(item) < 2:
            np.testing.assert_array_equal(averaged, item)
        else:
            fine = np.repeat(item, bins, axis=0).reshape(bins, len(item), 3).mean(axis=1)  # each step in equal parts
            np.testing.assert_allclose(averaged, fine, atol=1e-5)
            again = time_grid(torch.tensor(averaged)[None], torch.ones(1, bins, dtype=torch.bool), bins)
            np.testing.assert_array_equal(again[0], averaged)


def _in_memory(folder: Path, width: int, keys: list[str], encode: Any, told: Any) -> tuple[Ragged, int]:
    made = dict(encode(list(range(len(keys)))))
    return Ragged.pack([made[i] for i in range(len(keys))]), len(keys)


def test_a_scale_found_in_blocks_is_that_of_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    ragged = sequences(5, 20)
    steps = np.concatenate([ragged[i] for i in ROWS[3:]]) + 100.0
    shifted = Ragged(ragged.values + 100.0, ragged.starts, ragged.lengths)
    for size in (1, 64, 1 << 20):
        monkeypatch.setattr("dual_bench.inputs._BLOCK", size)
        found = feature_scale(shifted, ROWS[3:])
        np.testing.assert_allclose(found.mean, steps.mean(axis=0, dtype=np.float64), rtol=1e-6)
        np.testing.assert_allclose(found.spread, steps.std(axis=0, dtype=np.float64), rtol=1e-5)


@given(st.integers(1, 200), st.integers(1, 9), st.booleans(), st.integers(0, 5))
def test_an_epoch_reads_every_utterance_once_however_batches_are_made(
    count: int, size: int, bucketing: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 50, count)
    found = batches(rng.permutation(count), size, lengths if bucketing else None, rng)
    assert Counter(np.concatenate(found).tolist()) == Counter(range(count))
    assert max(map(len, found)) <= size
    assert len(found) == -(-count // size)


def test_bucketing_pads_less() -> None:
    rng = np.random.default_rng(0)
    lengths, order = rng.integers(1, 50, 640), rng.permutation(640)

    def padded(found: list[np.ndarray[Any, Any]]) -> int:
        return sum(int(lengths[chosen].max()) * len(chosen) for chosen in found)

    assert padded(batches(order, 64, lengths, rng)) < 0.7 * padded(batches(order, 64, None, rng))
