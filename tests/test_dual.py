"""What an implementation of DUAL must show (the last section of its description), part by part."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dual_bench.models.dual import Dual, DualSettings, visual_differential, widths_between
from dual_bench.models.losses import alignment_loss
from dual_bench.models.spec import parameter_count
from dual_bench.seeding import torch_stream
from dual_bench.types import Batch, Task, Widths

WIDTHS = Widths(audio=5, vision=7, text=6)
TASK = Task("classification", ("a", "b", "c"))
SWITCHES = ("nonlinear_alignment", "sdm", "vdm", "static_alignment", "dynamic_alignment", "sentiment_residual")
PATHS = ("decoder", "early", "late", "concat", "none")


def dual(**settings: object) -> Dual:
    with torch_stream("test", 0):
        return Dual(WIDTHS, TASK, DualSettings(**{"width": 8, "steps": 6, "dropout": 0.0, **settings}))


def batch(audio: int = 11, vision: int = 4, text: int = 5, size: int = 3) -> Batch:
    with torch_stream("batch", audio, vision, text):
        parts: dict[str, Tensor] = {}
        for name, steps in (("audio", audio), ("vision", vision), ("text", text)):
            parts[name] = torch.randn(size, steps, getattr(WIDTHS, name))
            parts[f"{name}_mask"] = torch.ones(size, steps, dtype=torch.bool)
        return Batch(**parts)


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_off_changes_what_the_model_computes_or_its_loss(switch: str) -> None:
    on, off = dual().train(), dual(**{switch: False}).train()
    given, other = on(batch()), off(batch())
    same_logits = torch.equal(given.logits, other.logits)
    assert not same_logits or set(given.auxiliary) != set(other.auxiliary)


@pytest.mark.parametrize("switch", ["nonlinear_alignment", "sdm", "vdm", "sentiment_residual"])
def test_each_switch_of_a_module_changes_the_parameter_count(switch: str) -> None:
    assert parameter_count(dual(**{switch: False})) != parameter_count(dual())


@pytest.mark.parametrize(
    ("settings", "absent"),
    [
        ({"sdm": False}, "sdm."),
        ({"sentiment_residual": False}, ".to_"),
        ({"text_path": "none"}, "words."),
        ({"nonlinear_alignment": False}, "static_a.project.2"),
    ],
)
def test_a_switched_off_part_has_no_parameters(settings: dict[str, object], absent: str) -> None:
    assert not [name for name, _ in dual(**settings).named_parameters() if absent in name]


def test_only_the_decoder_path_has_cross_attention() -> None:
    for path in PATHS:
        attended = [name for name, _ in dual(text_path=path).decoder.named_parameters() if "attention" in name]
        assert bool(attended) == (path == "decoder"), path


def test_the_switches_of_the_alignments_leave_their_terms_uncomputed() -> None:
    assert set(dual().train()(batch()).auxiliary) == {"static_alignment", "dynamic_alignment"}
    assert set(dual(static_alignment=False).train()(batch()).auxiliary) == {"dynamic_alignment"}
    for without in ({"dynamic_alignment": False}, {"sdm": False}, {"vdm": False}, {"lambda_d": 0.0}):
        assert set(dual(**without).train()(batch()).auxiliary) == {"static_alignment"}, without


@pytest.mark.parametrize("path", PATHS)
def test_every_parameter_receives_a_gradient(path: str) -> None:
    model = dual(text_path=path).train()
    output = model(batch())
    (output.logits.square().sum() + sum(w * v for w, v in output.auxiliary.values())).backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert untouched == []


@pytest.mark.parametrize("path", [path for path in PATHS if path != "early"])
def test_no_text_reaches_anything_before_the_decoder(path: str) -> None:
    model, one = dual(text_path=path).eval(), batch()
    other = Batch(one.audio, one.audio_mask, one.vision, one.vision_mask, 9 * one.text, ~one.text_mask)
    assert torch.equal(model.trunk(one), model.trunk(other))


@pytest.mark.parametrize("path", [path for path in PATHS if path != "early"])
def test_forward_is_exactly_decode_of_trunk(path: str) -> None:
    model, given = dual(text_path=path).eval(), batch()
    assert torch.equal(model(given).logits, model.decode(model.trunk(given), given.text, given.text_mask))


@pytest.mark.parametrize("path", PATHS)
def test_words_matter_on_every_path_but_none(path: str) -> None:
    model, one = dual(text_path=path).eval(), batch()
    other = Batch(one.audio, one.audio_mask, one.vision, one.vision_mask, one.text + 1, one.text_mask)
    assert torch.equal(model(one).logits, model(other).logits) == (path == "none")
    assert ("text" in model.modalities) == (path != "none")


def test_sdm_equals_the_four_gates_written_out() -> None:
    """Section 2: u_t = [h_{t-1}; f_{t-1}; f_t], and T1 … T4 as the framework lays them out."""
    d, model = 8, dual()
    assert model.sdm is not None
    with torch_stream("sdm", 0):
        f = torch.randn(2, 6, d)
    lstm = model.sdm.lstm
    gates = torch.cat([lstm.weight_hh_l0, lstm.weight_ih_l0], dim=1)  # on [h; f_{t-1}; f_t]
    bias = lstm.bias_hh_l0 + lstm.bias_ih_l0
    h = c = before = torch.zeros(2, d)
    found = []
    for t in range(6):
        u = torch.cat([h, before, f[:, t]], dim=1)
        into, forget, candidate, output = (u @ gates.T + bias).chunk(4, dim=1)
        c = torch.sigmoid(forget) * c + torch.sigmoid(into) * torch.tanh(candidate)
        h = torch.sigmoid(output) * torch.tanh(c)
        found.append(h)
        before = f[:, t]
    torch.testing.assert_close(model.sdm(f), torch.stack(found, dim=1), atol=1e-5, rtol=0)


def test_vdm_is_the_difference_to_the_next_frame_and_keeps_the_last() -> None:
    f = torch.tensor([[[1.0], [4.0], [9.0]]])
    assert visual_differential(f).flatten().tolist() == [-3.0, -5.0, 9.0]


@pytest.mark.parametrize("negatives", ["time", "batch"])
def test_the_alignment_loss_equals_infonce_written_out(negatives: str) -> None:
    with torch_stream("infonce", 0):
        a, v = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    groups = [(a[i], v[i]) for i in range(2)] if negatives == "time" else [(a.reshape(6, 4), v.reshape(6, 4))]
    terms = []
    for left, right in groups:
        steps = len(left)
        s = [[torch.cosine_similarity(left[i], right[j], dim=0) / 0.2 for j in range(steps)] for i in range(steps)]
        for i in range(steps):
            terms.append(torch.logsumexp(torch.stack(s[i]), 0) - s[i][i])
            terms.append(torch.logsumexp(torch.stack([s[j][i] for j in range(steps)]), 0) - s[i][i])
    torch.testing.assert_close(alignment_loss(a, v, 0.2, negatives), torch.stack(terms).mean())


def test_aligned_sequences_lose_less_than_shuffled_ones() -> None:
    with torch_stream("aligned", 0):
        a = torch.randn(2, 8, 16)
    assert alignment_loss(a, a, 0.1) < alignment_loss(a, a.flip(1), 0.1)


@pytest.mark.parametrize("modules", [{}, {"sdm": False}, {"vdm": False}])
def test_without_time_mixing_only_the_differential_modules_see_order(modules: dict[str, bool]) -> None:
    blind = dual(time_mixing=False, sdm=False, vdm=False).eval()
    seeing = dual(time_mixing=False, **modules).eval()
    one = batch(audio=12, vision=12)
    back = Batch(one.audio.flip(1), one.audio_mask, one.vision.flip(1), one.vision_mask, one.text, one.text_mask)
    torch.testing.assert_close(blind(one).logits, blind(back).logits, atol=1e-5, rtol=0)
    assert (seeing(one).logits - seeing(back).logits).abs().max() > 1e-3


def test_widths_narrow_and_widen_in_equal_steps_of_whole_heads() -> None:
    assert widths_between(64, 16, 3, 4) == [64, 48, 32, 16]
    assert widths_between(16, 64, 3, 4) == [16, 32, 48, 64]
    assert all(width % 4 == 0 for width in widths_between(50, 7, 3, 4))


@pytest.mark.parametrize(("audio", "vision"), [(1, 1), (9, 1), (1, 9)])
def test_features_without_time_leave_nothing_to_align_and_the_gradient_whole(audio: int, vision: int) -> None:
    """Averages over a clip have no differences; directions of rounding residues must not steer the training."""
    model = dual().train()
    output = model(batch(audio=audio, vision=vision))
    assert output.auxiliary == {}


def test_steps_that_hardly_differ_do_not_blow_up_the_gradient() -> None:
    model, given = dual().train(), batch(audio=9, vision=9)
    still = torch.cat([given.vision[:, :1]] * 9, dim=1) + 1e-6 * given.vision
    output = model(Batch(given.audio, given.audio_mask, still, given.vision_mask, given.text, given.text_mask))
    weight, loss = output.auxiliary["dynamic_alignment"]
    (weight * loss).backward()
    norm = sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None) ** 0.5
    assert norm < 100
