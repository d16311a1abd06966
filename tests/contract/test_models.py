"""What every model of the catalogue promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dual_bench.catalog import MODELS
from dual_bench.models.spec import ModelSpec
from dual_bench.seeding import generator, torch_stream
from dual_bench.training import (
    Examples,
    Inputs,
    Queries,
    Resident,
    TrainingSettings,
    build,
    exact_repeats,
    fit,
    predict,
)
from dual_bench.types import MODALITIES, SUBSETS, Batch, Modality, Ragged, Task, Widths

WIDTHS = Widths(audio=5, vision=7, text=6)
TASKS = {
    "classification": Task("classification", ("a", "b", "c", "d")),
    "regression": Task("regression", low=-3.0, high=3.0),
}
NAMES = sorted(MODELS.entries)


def made(name: str, task: Task = TASKS["classification"], seed: int = 0) -> nn.Module:
    spec: ModelSpec = MODELS.load(name)
    return build(spec, spec.settings(), WIDTHS, task, "contract", seed)


def batch(size: int = 4, audio: int = 9, vision: int = 5, text: int = 6) -> Batch:
    with torch_stream("contract batch"):
        parts: dict[str, Tensor] = {}
        for modality, steps in (("audio", audio), ("vision", vision), ("text", text)):
            parts[modality] = torch.randn(size, steps, getattr(WIDTHS, modality))
            lengths = torch.randint(1, steps + 1, (size,))
            lengths[0] = steps
            parts[f"{modality}_mask"] = torch.arange(steps) < lengths[:, None]
        return Batch(**parts)


def padded(given: Batch, row: int, extra: int, filling: float) -> Batch:
    """One utterance of a batch, alone, without padding, or with ``extra`` steps of it."""
    parts: dict[str, Tensor] = {}
    for modality in MODALITIES:
        length = int(getattr(given, f"{modality}_mask")[row].sum())
        sequence = getattr(given, modality)[row : row + 1, :length]
        more = torch.full((1, extra, sequence.shape[2]), filling)
        parts[modality] = torch.cat([sequence, more], dim=1)
        parts[f"{modality}_mask"] = torch.arange(length + extra)[None] < length
    return Batch(**parts)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("name", NAMES)
def test_gives_one_row_of_finite_logits_for_each_utterance(name: str, kind: str) -> None:
    logits = made(name, TASKS[kind]).eval()(batch()).logits
    assert logits.shape == (4, TASKS[kind].outputs)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("extra", [0, 7])
@pytest.mark.parametrize("name", NAMES)
def test_an_utterance_alone_and_in_a_padded_batch_gets_the_same_logits(name: str, extra: int) -> None:
    model, given = made(name).eval(), batch()
    together = model(given).logits
    for row in range(4):
        alone = model(padded(given, row, extra, filling=1e3)).logits
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_reads_the_modalities_it_says_and_no_other(name: str) -> None:
    model, given = made(name).eval(), batch()
    for modality in MODALITIES:
        other = replace(given, **{modality: getattr(given, modality) + 1.0})
        same = torch.equal(model(given).logits, model(other).logits)
        assert same == (modality not in model.modalities), modality


@pytest.mark.parametrize("absent", SUBSETS, ids="+".join)
@pytest.mark.parametrize("name", NAMES)
def test_absent_modalities_leave_the_logits_finite(name: str, absent: tuple[Modality, ...]) -> None:
    given = batch()
    gone = replace(given, **{f"{m}_mask": torch.zeros_like(getattr(given, f"{m}_mask")) for m in absent})
    assert torch.isfinite(made(name).eval()(gone).logits).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_receives_a_gradient(name: str) -> None:
    model = made(name).train()
    output = model(batch())
    (output.logits.square().sum() + sum(w * v for w, v in output.auxiliary.values())).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_same_stream_gives_the_same_weights_and_another_stream_others(name: str) -> None:
    one, same, other = made(name), made(name), made(name, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_weights_survive_saving_and_loading(name: str, tmp_path: Path) -> None:
    one, other = made(name).eval(), made(name, seed=1).eval()
    save_file(one.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(one(batch()).logits, other(batch()).logits)


def inputs_of(count: int) -> Inputs:
    rng = generator("contract inputs", count)

    def sequences(width: int, longest: int) -> Ragged:
        lengths = rng.integers(1, longest + 1, count)
        return Ragged.pack([rng.normal(size=(n, width)).astype(np.float32) for n in lengths])

    return Inputs(sequences(WIDTHS.audio, 9), sequences(WIDTHS.vision, 5), sequences(WIDTHS.text, 6))


@pytest.mark.parametrize("name", NAMES)
def test_overfits_32_utterances(name: str) -> None:
    task, rows = TASKS["classification"], np.arange(32)
    inputs, targets = inputs_of(32), (rows % 4).astype(float)
    examples = Examples(rows, rows[None], targets)
    settings = TrainingSettings(epochs=300, patience=300, batch_size=32, learning_rate=3e-3, weight_decay=0.0)
    with exact_repeats("cpu", 1):
        model = made(name)
        resident = Resident(inputs, rows, model.modalities, "cpu")
        fit(model, resident, examples, examples, task, settings, "overfit")
        scores = predict(model, resident, task, Queries(rows, rows))
    assert (scores.argmax(axis=1) == targets).all()


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("name", NAMES)
def test_predicting_pairs_equals_running_the_whole_model_on_each(name: str, kind: str) -> None:
    task, inputs = TASKS[kind], inputs_of(8)
    model = made(name, task).eval()
    rows, texts = np.repeat(np.arange(8), 3), np.tile(np.array([0, 3, 5]), 8)
    with exact_repeats("cpu", 1):
        resident = Resident(inputs, np.arange(8), model.modalities, "cpu")
        found = predict(model, resident, task, Queries(rows, texts))
        with torch.no_grad():
            logits = torch.cat([model(resident.batch(rows[i : i + 1], texts[i : i + 1])).logits for i in range(24)])
    expected = logits.softmax(dim=1) if kind == "classification" else logits.clamp(-3, 3)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
