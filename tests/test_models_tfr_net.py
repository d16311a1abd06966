"""TFR-Net: holes in training alone, each modality its own, and a loss on what is in them and on nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dual_bench.models.layers import drawn_holes
from dual_bench.models.losses import restoration_loss
from dual_bench.models.tfr_net import SPEC, TfrNet, TfrNetSettings
from dual_bench.seeding import torch_stream
from dual_bench.training import build
from dual_bench.types import MODALITIES, Batch, Modality, Output, Task, Widths

WIDTHS = Widths(audio=5, vision=7, text=6)
TASK = Task("classification", ("a", "b", "c"))
STEPS = 8


def made(**settings: object) -> TfrNet:
    given = TfrNetSettings(**{"width": 8, "steps": STEPS, "dropout": 0.0, **settings})
    model = build(SPEC, given, WIDTHS, TASK, "tfr-net")
    assert isinstance(model, TfrNet)
    return model


def batch(size: int = 4, steps: int = STEPS) -> Batch:
    """Each sequence has as many steps as the clock has bins, so that a bin is a step."""
    with torch_stream("tfr-net batch"):
        parts: dict[str, Tensor] = {m: torch.randn(size, steps, getattr(WIDTHS, m)) for m in MODALITIES}
    return Batch(**parts, **{f"{m}_mask": torch.ones(size, steps, dtype=torch.bool) for m in MODALITIES})


def trained_on(model: TfrNet, given: Batch, stream: int = 0) -> tuple[Output, dict[Modality, Tensor]]:
    """What comes of a batch in training, and the holes (B, T) seen at the door of each modality."""
    read: dict[Modality, Tensor] = {}
    doors = [
        getattr(model, m).project.register_forward_pre_hook(lambda _, came, m=m: read.update({m: came[0]}))
        for m in MODALITIES
    ]
    with torch_stream("holes", stream):
        output = model.train()(given)
    for door in doors:
        door.remove()
    return output, {m: (read[m] == 0).all(dim=2) for m in MODALITIES}


def changed(given: Batch, modality: Modality, where: Tensor) -> Batch:
    return replace(given, **{modality: getattr(given, modality) + 3.0 * where[:, :, None]})


# ---------------------------------------------------------------------------------------------- the loss


def test_the_loss_is_smooth_l1_written_out_at_the_missing_steps() -> None:
    found = torch.tensor([[[0.5, 3.0], [9.0, 9.0]], [[1.0, 1.0], [0.0, -2.0]]])
    missing = torch.tensor([[True, False], [False, True]])
    expected = (0.5 * 0.5**2 + (3.0 - 0.5) + 0.0 + (2.0 - 0.5)) / 4
    assert restoration_loss(found, torch.zeros(2, 2, 2), missing).item() == pytest.approx(expected)


@pytest.mark.parametrize("which", ["restored", "sequence"])
def test_the_loss_hears_of_missing_steps_alone(which: str) -> None:
    with torch_stream("loss", 0):
        given = {"restored": torch.randn(3, 5, 2), "sequence": torch.randn(3, 5, 2), "gone": torch.rand(3, 5) < 0.5}
    for b in range(3):
        for t in range(5):
            other = given[which].clone()
            other[b, t] += 10.0  # more than two features could cancel
            same = torch.equal(restoration_loss(**given), restoration_loss(**{**given, which: other}))
            assert same != given["gone"][b, t]


def test_the_loss_is_zero_where_nothing_is_missing() -> None:
    assert restoration_loss(torch.ones(2, 3, 4), torch.zeros(2, 3, 4), torch.zeros(2, 3).bool()) == 0


def test_in_the_model_the_target_of_each_modality_is_what_was_in_its_holes() -> None:
    """Every answer is 100, which is so far off that SmoothL1 is linear: 100 - u - 1/2."""
    model, given = made(missing=0.8), batch()
    with torch.no_grad():
        for m in MODALITIES:
            getattr(model, m).reconstruct.weight.zero_()
            getattr(model, m).reconstruct.bias.fill_(100.0)
    output, found = trained_on(model, given)
    expected = sum((99.5 - getattr(given, m)[found[m]]).mean() for m in MODALITIES)
    torch.testing.assert_close(output.auxiliary["reconstruction"][1], expected)


# --------------------------------------------------------------------------------------------- the holes


@pytest.mark.parametrize("modality", MODALITIES)
def test_what_is_in_a_hole_does_not_reach_the_logits_and_what_is_not_does(modality: Modality) -> None:
    model, given = made(), batch()
    output, found = trained_on(model, given)
    hole = found[modality]
    assert hole.any()
    hidden, _ = trained_on(model, changed(given, modality, hole))
    shown, _ = trained_on(model, changed(given, modality, ~hole))
    assert torch.equal(hidden.logits, output.logits)
    assert not torch.equal(shown.logits, output.logits)


def test_the_holes_of_the_modalities_have_nothing_to_do_with_each_other() -> None:
    """Neither the steps nor the rates: over many utterances their correlation is none."""
    _, found = trained_on(made(), batch(size=2000))
    for one, other in (("audio", "vision"), ("audio", "text"), ("vision", "text")):
        for of in (torch.flatten, lambda mask: mask.float().mean(dim=1)):
            pair = torch.stack([of(found[one]).float(), of(found[other]).float()])
            assert abs(torch.corrcoef(pair)[0, 1]) < 0.06


@pytest.mark.parametrize("missing", [0.3, 1.0])
def test_rates_are_spread_evenly_from_none_to_the_largest(missing: float) -> None:
    _, found = trained_on(made(missing=missing), batch(size=2000))
    for mask in found.values():
        rates = mask.float().mean(dim=1)
        assert rates.mean() == pytest.approx(missing / 2, abs=0.015)
        drawn = rates.var() - (missing / 2 - missing**2 / 3) / STEPS  # less what drawing the steps adds
        assert drawn == pytest.approx(missing**2 / 12, abs=0.01)


def test_each_batch_has_holes_of_its_own() -> None:
    model, given = made(), batch()
    (_, one), (_, other) = trained_on(model, given, 0), trained_on(model, given, 1)
    assert not any(torch.equal(one[m], other[m]) for m in MODALITIES)


def test_what_is_absent_has_no_holes_and_no_loss() -> None:
    model, given = made(missing=1.0), batch()
    gone = replace(given, **{f"{m}_mask": torch.zeros(4, STEPS, dtype=torch.bool) for m in MODALITIES})
    assert not any(mask.any() for mask in drawn_holes(gone, STEPS, torch.ones(3, 4)))
    assert trained_on(model, gone)[0].auxiliary["reconstruction"][1] == 0


def test_there_are_no_holes_in_evaluation_and_answers_repeat_to_the_bit() -> None:
    model, given = made(missing=1.0), batch()
    answers = []
    for stream in (0, 1):
        with torch_stream("holes", stream):
            output = model.eval()(given)
        assert output.auxiliary == {}
        answers.append(output.logits)
    assert torch.equal(*answers)
    assert not torch.equal(answers[0], trained_on(model, given)[0].logits)
    without_holes = made(missing=0.0)
    without_holes.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(answers[0], trained_on(without_holes, given)[0].logits)


@pytest.mark.parametrize("off", [{"missing": 0.0}, {"lambda_r": 0.0}], ids=["no holes", "no weight"])
def test_without_holes_or_weight_nothing_is_reconstructed(off: dict[str, float]) -> None:
    model = made(**off)
    assert trained_on(model, batch())[0].auxiliary == {}
    assert not [name for name, _ in model.named_parameters() if "reconstruct" in name]


# --------------------------------------------------------------------------------------------- the parts


def test_each_modality_reads_itself_and_both_others() -> None:
    model, given = made().eval(), batch()

    def states(of: Batch) -> list[Tensor]:
        return model._states(model.trunk(of), of.text, of.text_mask)

    for modality in MODALITIES:
        moved = states(changed(given, modality, torch.ones(4, STEPS)))
        for before, after in zip(states(given), moved, strict=True):
            assert (before != after).flatten(1).any(dim=1).all()


def test_no_word_reaches_the_trunk_and_forward_is_exactly_decode_of_it() -> None:
    model, given = made().eval(), batch()
    other = replace(given, text=given.text + 1.0, text_mask=~given.text_mask)
    assert torch.equal(model.trunk(given), model.trunk(other))
    assert torch.equal(model(given).logits, model.decode(model.trunk(given), given.text, given.text_mask))


def test_the_gated_fusion_equals_its_sum_written_out() -> None:
    stream = made().audio
    with torch_stream("pool", 0):
        h = torch.randn(1, 5, 8)
    (kernel, bias), linear = (stream.gate.weight[0], stream.gate.bias), stream.gated
    found = []
    for t in range(5):
        near = sum((h[0, t + k - 1] @ kernel[:, k] for k in range(3) if 0 <= t + k - 1 < 5), start=bias[0])
        gate = 1 / (1 + torch.exp(-near))
        found.append(torch.tanh(linear.weight @ torch.cat([h[0, t], gate * h[0, t]]) + linear.bias))
    torch.testing.assert_close(
        stream.pool(h, torch.ones(1, 5).bool())[0], torch.stack(found).max(dim=0).values, atol=1e-5, rtol=0
    )
