"""What EMT-DLFR promises: context and sequences promote each other, and holes are restored at two levels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dual_bench.models.emt_dlfr import (
    EmtDlfr,
    EmtDlfrSettings,
    Promotion,
    ToContext,
    ToLocal,
    attraction_loss,
)
from dual_bench.models.layers import Attention, drawn_holes, on_clock
from dual_bench.seeding import torch_stream
from dual_bench.types import Batch, Lesson, Modality, Task, Widths

WIDTHS = Widths(audio=5, vision=7, text=6)
TASK = Task("classification", ("a", "b", "c"))
STEPS = 8


def model(**settings: object) -> EmtDlfr:
    with torch_stream("test"):
        return EmtDlfr(WIDTHS, TASK, EmtDlfrSettings(**{"width": 8, "steps": STEPS, "dropout": 0.0, **settings}))


def batch(size: int = 4, words: int = 6) -> Batch:
    with torch_stream("batch"):
        parts: dict[str, Tensor] = {}
        for name, steps in (("audio", 9), ("vision", 5), ("text", words)):
            parts[name] = torch.randn(size, steps, getattr(WIDTHS, name))
            parts[f"{name}_mask"] = torch.ones(size, steps, dtype=torch.bool)
        return Batch(**parts)


def trained(made: EmtDlfr, given: Batch) -> dict[str, tuple[float, Tensor]]:
    """The auxiliary losses of one training forward, with the same holes whenever it is called."""
    with torch_stream("holes"):
        return dict(made.train()(given).auxiliary)


def test_what_is_restored_is_the_complete_input() -> None:
    """Every answer is 100, which is so far off that SmoothL1 is linear: 100 - u - 1/2."""
    made, given = model(missing=0.8), batch()
    with torch.no_grad():
        for layer in made.restore:
            layer.weight.zero_()
            layer.bias.fill_(100.0)
    with torch_stream("holes"):
        gone = drawn_holes(given, STEPS, 0.8 * torch.rand(3, 4))
    complete = (*on_clock(given, STEPS), given.text)
    expected = sum((99.5 - x[lost]).mean() for x, lost in zip(complete, gone, strict=True))
    torch.testing.assert_close(trained(made, given)["restoration"][1], expected)


def test_nothing_gone_restores_nothing() -> None:
    assert trained(model(missing=0.0), batch())["restoration"][1] == 0.0
    assert trained(model(missing=1.0), batch())["restoration"][1] > 0.0


def test_attraction_is_minus_one_for_equal_views_and_one_for_opposite_ones() -> None:
    with torch_stream("views"):
        view = torch.randn(3, 5)
    assert attraction_loss(view, 4 * view, nn.Identity()).item() == pytest.approx(-1.0)
    assert attraction_loss(view, -view, nn.Identity()).item() == pytest.approx(1.0)


def test_attraction_sends_no_gradient_through_what_is_compared_with() -> None:
    """Longhand: each view is pulled as if the other were a constant."""
    with torch_stream("views"):
        one, other, predictor = torch.randn(3, 5), torch.randn(3, 5), nn.Linear(5, 5)
    pulled = [x.clone().requires_grad_() for x in (one, other)]
    attraction_loss(*pulled, predictor).backward()
    for x, constant, found in ((one, other, pulled[0]), (other, one, pulled[1])):
        free = x.clone().requires_grad_()
        predicted = predictor(free)
        cosine = (predicted * constant).sum(dim=1) / (predicted.norm(dim=1) * constant.norm(dim=1))
        (-cosine.mean() / 2).backward()
        assert free.grad is not None
        torch.testing.assert_close(found.grad, free.grad)


@pytest.mark.parametrize("index", range(3))
def test_context_reaches_each_sequence_and_each_sequence_the_context(index: int) -> None:
    settings = EmtDlfrSettings(width=8, dropout=0.0)
    with torch_stream("units"):
        to_context, to_local = ToContext(settings), ToLocal(settings)
        context, local = torch.randn(2, 3, 8), [torch.randn(2, t, 8) for t in (4, 5, 6)]
    masks = [torch.ones(2, x.shape[1], dtype=torch.bool) for x in local]
    other_context = context.clone()
    other_context[:, index] += torch.arange(8.0)  # more than a shift, which the normalisation takes away
    for before, after in zip(to_local(context, local, masks), to_local(other_context, local, masks), strict=True):
        assert not torch.allclose(before, after)
    other_local = [x + torch.arange(8.0) * (place == index) for place, x in enumerate(local)]
    assert not torch.allclose(to_context(context, local, masks), to_context(context, other_local, masks))
    promoted = zip(to_local(context, local, masks), to_local(context, other_local, masks), strict=True)
    assert [torch.equal(before, after) for before, after in promoted] == [place != index for place in range(3)]


def test_the_context_is_pooled_by_attention_over_the_modalities() -> None:
    settings = EmtDlfrSettings(width=8, dropout=0.0)
    with torch_stream("units"):
        layer, context, local = ToContext(settings), torch.randn(2, 3, 8), [torch.randn(2, t, 8) for t in (4, 5, 6)]
    masks = [torch.ones(2, x.shape[1], dtype=torch.bool) for x in local]
    versions = [unit(context, x, None, mask) for unit, x, mask in zip(layer.units, local, masks, strict=True)]
    scores = [layer.weigh[2](torch.tanh(layer.weigh[0](version.reshape(2, 24)))) for version in versions]
    total = sum(score.exp() for score in scores)
    expected = sum(version * (score.exp() / total)[:, :, None] for version, score in zip(versions, scores, strict=True))
    torch.testing.assert_close(layer(context, local, masks), expected)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_layer_has_six_cross_attentions_and_in_each_one_side_is_the_context(layers: int) -> None:
    """Three modalities, two directions; no sequence ever attends to another, which would be six pairs of sequences."""
    made, met = model(layers=layers, missing=1.0), []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        met.append((inputs[0].shape[1], inputs[1].shape[1]))

    units = [module for module in made.modules() if isinstance(module, Promotion)]
    attentions = [module for module in made.modules() if isinstance(module, Attention)]
    for unit in units:
        unit.cross.register_forward_pre_hook(note)
    made.train()(batch(words=6))
    assert len(units) == len(met) == 6 * layers
    assert sorted(met) == sorted([(3, STEPS), (STEPS, 3), (3, STEPS), (STEPS, 3), (3, 6), (6, 3)] * layers)
    assert len(attentions) == 2 * len(units)  # the other of each unit is over its own steps


def test_holes_are_where_there_is_something_and_at_the_rate_of_the_utterance() -> None:
    given = replace(batch(), audio_mask=torch.zeros(4, 9, dtype=torch.bool))
    given.text_mask[:, 4:] = False
    audio, vision, text = drawn_holes(
        given, STEPS, torch.tensor([[1.0] * 4, [0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    )
    assert audio.shape == vision.shape == (4, STEPS)
    assert not audio.any()
    assert vision.all(dim=1).tolist() == [False, True, False, True]
    assert vision.any(dim=1).tolist() == [False, True, False, True]
    assert torch.equal(text, given.text_mask & torch.tensor([True, True, False, False])[:, None])


def test_evaluation_reads_what_comes_without_holes() -> None:
    given = batch()
    rates = [model(missing=missing).eval()(given) for missing in (0.0, 1.0)]
    assert torch.equal(rates[0].logits, rates[1].logits)
    assert not rates[1].auxiliary


def test_without_holes_training_answers_as_evaluation_does() -> None:
    made, given = model(missing=0.0), batch()
    torch.testing.assert_close(made.train()(given).logits, made.eval()(given).logits)
    made = model(missing=1.0)
    assert not torch.allclose(made.train()(given).logits, made.eval()(given).logits)


def test_the_complete_view_is_supervised_where_there_are_labels() -> None:
    made, targets = model(missing=1.0, lambda_attraction=0.7), torch.tensor([0.0, 1.0, 2.0, 1.0])
    given = replace(batch(), lesson=Lesson(targets, targets, torch.arange(4), 1))
    weight, found = trained(made, given)["complete_view"]
    log_odds = made.eval()(given).logits.log_softmax(dim=1)
    assert weight == 0.7
    assert found.item() == pytest.approx(-log_odds[torch.arange(4), targets.long()].mean().item(), abs=1e-5)
    assert "complete_view" not in trained(made, batch())


def test_a_weight_of_zero_leaves_its_terms_and_their_parameters_out() -> None:
    bare = model(lambda_attraction=0.0, lambda_restoration=0.0)
    assert not trained(bare, batch())
    assert not [name for name, _ in bare.named_parameters() if name.startswith(("pro", "pre", "restore", "last"))]
    assert set(trained(model(lambda_attraction=0.0), batch())) == {"restoration"}
    assert set(trained(model(lambda_restoration=0.0), batch())) == {"attraction"}


@pytest.mark.parametrize("modality", ["audio", "vision", "text"])
def test_one_utterance_without_a_modality_can_be_learned_from(modality: Modality) -> None:
    given = batch(size=1)
    mask = torch.zeros_like(getattr(given, f"{modality}_mask"))
    output = model().train()(replace(given, **{f"{modality}_mask": mask}))
    assert all(torch.isfinite(value) for _, value in output.auxiliary.values())
