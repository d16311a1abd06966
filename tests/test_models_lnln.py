"""What LNLN promises: it tells how much of the language is there, and a proxy stands in for the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dual_bench.models.layers import on_clock
from dual_bench.models.lnln import (
    CompletenessCheck,
    Lnln,
    LnlnSettings,
    corrected,
    reversed_gradient,
    true_completeness,
)
from dual_bench.seeding import torch_stream
from dual_bench.types import Batch, Modality, Task, Widths

WIDTHS = Widths(audio=5, vision=7, text=6)
TASK = Task("classification", ("a", "b", "c"))
TERMS = ("completeness", "adversarial", "reconstruction")


def model(**settings: object) -> Lnln:
    with torch_stream("test"):
        return Lnln(WIDTHS, TASK, LnlnSettings(**{"width": 8, "steps": 6, "dropout": 0.0, "tokens": 3, **settings}))


def batch(size: int = 4) -> Batch:
    with torch_stream("batch"):
        parts: dict[str, Tensor] = {}
        for name, steps in (("audio", 9), ("vision", 5), ("text", 6)):
            parts[name] = torch.randn(size, steps, getattr(WIDTHS, name))
            parts[f"{name}_mask"] = torch.ones(size, steps, dtype=torch.bool)
        return Batch(**parts)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e3, 1e6])
def test_completeness_is_a_share_whatever_comes(scale: float) -> None:
    with torch_stream("extremes"):
        check, language = CompletenessCheck(LnlnSettings(width=8)), scale * torch.randn(100, 4, 8)
        nn.init.normal_(check.head[-1].weight, std=1e3)
    found = check(language)
    assert found.shape == (100,)
    assert ((found >= 0) & (found <= 1)).all()


def test_complete_language_is_not_corrected_and_lost_language_is_replaced() -> None:
    with torch_stream("features"):
        language, proxy = torch.randn(2, 3, 4, 8)
    dominant = corrected(language, proxy, torch.tensor([1.0, 0.0, 0.25]))
    assert torch.equal(dominant[0], language[0])
    assert torch.equal(dominant[1], proxy[1])
    torch.testing.assert_close(dominant[2], 0.25 * language[2] + 0.75 * proxy[2])


@pytest.mark.parametrize(("bias", "reads_words"), [(1e4, True), (-1e4, False)])
def test_words_reach_the_answer_as_far_as_they_are_held_complete(bias: float, reads_words: bool) -> None:
    """And so does the proxy: the other way round."""
    made, one = model().eval(), batch()
    nn.init.constant_(made.completeness.head[-1].bias, bias)
    other = replace(one, text=one.text.flip(0))
    assert torch.equal(made(one).logits, made(other).logits) == (not reads_words)
    state = made.trunk(one)
    proxy_changed = torch.cat([state[:, :6], 1 - state[:, 6:]], dim=1)
    answers = [made.decode(x, one.text, one.text_mask) for x in (state, proxy_changed)]
    assert torch.equal(*answers) == reads_words


def test_no_word_reaches_the_proxy_but_voice_and_face_do() -> None:
    made, one = model().eval(), batch()
    proxy = made.trunk(one)[:, 6:]
    assert torch.equal(made.trunk(replace(one, text=one.text + 1))[:, 6:], proxy)
    for modality in ("audio", "vision"):
        other = replace(one, **{modality: getattr(one, modality).flip(0)})
        assert not torch.allclose(made.trunk(other)[:, 6:], proxy)


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=9))
def test_reversal_keeps_the_value_and_turns_the_sign_of_the_gradient_exactly(values: list[float]) -> None:
    x = torch.tensor(values, requires_grad=True)
    came = torch.arange(1.0, len(values) + 1) / 7
    found = reversed_gradient(x)
    found.backward(came)
    assert torch.equal(found.detach(), x.detach())
    assert x.grad is not None
    assert torch.equal(x.grad, -came)


def test_the_discriminator_learns_to_tell_the_proxy_and_the_proxy_to_be_mistaken() -> None:
    """Longhand: the discriminator goes down the cross-entropy, and the proxy goes up; the language stays."""
    made = model()
    with torch_stream("features"):
        proxy, language = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    pushed = proxy.clone().requires_grad_()
    loss = made._adversarial(pushed, language)
    loss.backward()
    weight = made.discriminator[0].weight
    found = weight.grad.clone()
    weight.grad = None
    free = proxy.clone().requires_grad_()
    of_proxy, of_language = made.discriminator(free).sigmoid(), made.discriminator(language).sigmoid()
    longhand = -(torch.log(1 - of_proxy).sum() + torch.log(of_language).sum()) / 12
    longhand.backward()
    torch.testing.assert_close(loss, longhand)
    torch.testing.assert_close(found, weight.grad)
    assert free.grad is not None
    torch.testing.assert_close(pushed.grad, -free.grad)


def test_true_completeness_is_one_less_the_share_of_holes_among_valid_words() -> None:
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)
    gone = torch.tensor([[1, 0, 0, 0, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    assert true_completeness(mask, gone).tolist() == [0.75, 0.0, 1.0, 0.0]


def test_completeness_is_taught_by_the_holes_that_were_made() -> None:
    """Without holes every word is there: the loss is the squared distance from 1."""
    made, one = model(missing=0.0), batch()
    found = made.train()(one).auxiliary["completeness"][1]
    language = made.text(one.text, one.text_mask)
    torch.testing.assert_close(found, ((made.completeness(language) - 1) ** 2).mean())


def test_half_of_the_modalities_stay_whole_in_training_and_the_others_lose_half_on_average() -> None:
    made, seen = model(), []
    made.text.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch_stream("many"):
        text = torch.randn(1000, 20, WIDTHS.text)
        made.train()(replace(batch(1000), text=text, text_mask=torch.ones(1000, 20, dtype=torch.bool)))
    lost = (seen[0] == 0).all(dim=2).float().mean(dim=1)
    assert (lost == 0).float().mean().item() == pytest.approx(0.5 + 0.5 / 21, abs=0.05)
    assert lost.mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(seen[1], text)  # the complete input, which the losses compare with


def test_reconstruction_compares_with_the_features_of_the_complete_input() -> None:
    made, one = model(missing=0.0), batch()
    found = made.train()(one).auxiliary["reconstruction"][1]
    audio, vision = on_clock(one, made.settings.steps)
    features = [made.audio(audio), made.vision(vision), made.text(one.text, one.text_mask)]
    errors = [((rebuild(x) - x) ** 2).mean() for rebuild, x in zip(made.reconstructors, features, strict=True)]
    torch.testing.assert_close(found, sum(errors) / 3)


def test_evaluation_reads_what_comes_without_holes() -> None:
    outputs = [model(missing=missing).eval()(batch()) for missing in (0.0, 1.0)]
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    assert not outputs[1].auxiliary
    torch.testing.assert_close(model(missing=0.0).train()(batch()).logits, outputs[0].logits)


@pytest.mark.parametrize("term", TERMS)
def test_a_weight_of_zero_leaves_its_term_out(term: str) -> None:
    assert set(model(**{f"lambda_{term}": 0.0}).train()(batch()).auxiliary) == set(TERMS) - {term}


def test_no_weights_leave_the_parts_that_only_they_train_out() -> None:
    bare = model(lambda_adversarial=0.0, lambda_reconstruction=0.0)
    assert not [name for name, _ in bare.named_parameters() if name.startswith(("discriminator", "reconstructors"))]


@pytest.mark.parametrize("modality", ["audio", "vision", "text"])
def test_one_utterance_without_a_modality_can_be_learned_from(modality: Modality) -> None:
    one = batch(size=1)
    mask = torch.zeros_like(getattr(one, f"{modality}_mask"))
    output = model().train()(replace(one, **{f"{modality}_mask": mask}))
    assert all(torch.isfinite(value) for _, value in output.auxiliary.values())
