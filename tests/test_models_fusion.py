"""The classic fusions against their papers' equations: early, late, by tensors, by tensors of low rank, and none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dual_bench.catalog import MODELS, validated
from dual_bench.models.ef_lstm import EfLstm
from dual_bench.models.lf_dnn import LfDnn
from dual_bench.models.linear import Linear
from dual_bench.models.lmf import Lmf
from dual_bench.models.spec import ModelSpec
from dual_bench.models.tfn import Tfn
from dual_bench.seeding import torch_stream
from dual_bench.training import build
from dual_bench.types import MODALITIES, SUBSETS, Batch, Modality, Task, UserError, Widths

WIDTHS = Widths(audio=5, vision=7, text=6)
TASK = Task("classification", ("a", "b", "c"))
LATE = ("lf-dnn", "tfn", "lmf")
SMALL: dict[str, dict[str, int]] = {
    "tfn": {"audio_width": 3, "vision_width": 4, "text_width": 5, "width": 6},
    "lmf": {"audio_width": 3, "vision_width": 4, "text_width": 5, "width": 6, "rank": 2},
}


def made(name: str, **settings: Any) -> Any:
    """A model of double precision, ready to predict."""
    spec: ModelSpec = MODELS.load(name)
    given = spec.settings(**(SMALL.get(name, {}) | settings))
    return build(spec, given, WIDTHS, TASK, "fusion").double().eval()


def batch(audio: int = 8, vision: int = 4, text: int = 12, size: int = 3) -> Batch:
    """All steps valid."""
    parts: dict[str, Tensor] = {}
    with torch_stream("fusion batch"):
        for modality, steps in (("audio", audio), ("vision", vision), ("text", text)):
            parts[modality] = torch.randn(size, steps, getattr(WIDTHS, modality), dtype=torch.float64)
            parts[f"{modality}_mask"] = torch.ones(size, steps, dtype=torch.bool)
    return Batch(**parts)


def lstm_last(lstm: nn.LSTM, x: Tensor) -> Tensor:
    """The last state (B, h) of an LSTM over x (B, T, d), gate by gate."""
    h = c = x.new_zeros(len(x), lstm.hidden_size)
    for step in x.unbind(dim=1):
        gates = step @ lstm.weight_ih_l0.T + lstm.bias_ih_l0 + h @ lstm.weight_hh_l0.T + lstm.bias_hh_l0
        enter, keep, cell, leave = gates.chunk(4, dim=1)
        c = keep.sigmoid() * c + enter.sigmoid() * cell.tanh()
        h = leave.sigmoid() * c.tanh()
    return h


def relus(network: nn.Module, x: Tensor) -> Tensor:
    """x through each linear layer of ``network``, cut at zero after each."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            x = (x @ layer.weight.T + layer.bias).clamp_min(0)
    return x


def embeddings(model: Tfn | Lmf, given: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """z_a, z_v and z_t without the constants."""
    z_a = relus(model.embed.audio, given.audio.mean(dim=1))
    z_v = relus(model.embed.vision, given.vision.mean(dim=1))
    return z_a, z_v, relus(model.embed.text, lstm_last(model.embed.lstm, given.text))


def outer(model: Tfn | Lmf, given: Batch) -> Tensor:
    """[z_a; 1] x [z_v; 1] x [z_t; 1]."""
    one = given.audio.new_ones(len(given.audio), 1)
    return torch.einsum("bi,bj,bk->bijk", *(torch.cat([z, one], dim=1) for z in embeddings(model, given)))


def fused(model: Tfn | Lmf, given: Batch) -> Tensor:
    return model.fuse(model.trunk(given), given.text, given.text_mask)


# ------------------------------------------------------------------------------------------------- tensors


def test_tfn_fuses_by_the_outer_product_of_embeddings_with_a_constant() -> None:
    model, given = made("tfn"), batch()
    torch.testing.assert_close(fused(model, given), outer(model, given))


def test_tfn_keeps_embeddings_and_their_pairs_where_the_constants_are() -> None:
    model, given = made("tfn"), batch()
    z_a, z_v, z_t = embeddings(model, given)
    assert all(bool(z.any()) for z in (z_a, z_v, z_t))
    z = fused(model, given)
    assert torch.equal(z[:, -1, -1, -1], torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(z[:, :-1, -1, -1], z_a)
    torch.testing.assert_close(z[:, -1, :-1, -1], z_v)
    torch.testing.assert_close(z[:, -1, -1, :-1], z_t)
    torch.testing.assert_close(z[:, :-1, :-1, -1], z_a[:, :, None] * z_v[:, None, :])
    torch.testing.assert_close(z[:, :-1, -1, :-1], z_a[:, :, None] * z_t[:, None, :])
    torch.testing.assert_close(z[:, -1, :-1, :-1], z_v[:, :, None] * z_t[:, None, :])


def weights(model: Lmf) -> Tensor:
    """W of LMF written out, (d_a + 1, d_v + 1, d_t + 1, d_h)."""
    return torch.einsum("rih,rjh,rkh->ijkh", *(model.factors[m] for m in MODALITIES))


@pytest.mark.parametrize("rank", [1, 4])
def test_lmf_fuses_as_the_full_tensor_contracted_with_weights_made_of_its_factors(rank: int) -> None:
    model, given = made("lmf", rank=rank), batch()
    model.bias.data.normal_(generator=torch.Generator().manual_seed(0))
    expected = torch.einsum("bijk,ijkh->bh", outer(model, given), weights(model)) + model.bias
    torch.testing.assert_close(fused(model, given), expected, rtol=0, atol=1e-10)


def test_lmf_is_a_tfn_whose_first_map_has_low_rank() -> None:
    low, full, given = made("lmf"), made("tfn"), batch()
    full.embed.load_state_dict(low.embed.state_dict())
    full.infer.load_state_dict(low.infer.state_dict())
    full.read.weight.data = weights(low).detach().flatten(0, 2).T.contiguous()
    full.read.bias.data = low.bias.detach()
    torch.testing.assert_close(full(given).logits, low(given).logits, rtol=0, atol=1e-10)


# ------------------------------------------------------------------------------------------- early and late


def test_ef_lstm_is_one_lstm_over_the_modalities_side_by_side_on_one_clock() -> None:
    model: EfLstm = made("ef-lstm", steps=4)
    given = batch(audio=8, vision=4, text=12)  # bins of two, one and three steps
    clock = [part.reshape(3, 4, -1, part.shape[2]).mean(dim=2) for part in (given.audio, given.vision, given.text)]
    last = lstm_last(model.lstm, torch.cat(clock, dim=2))
    torch.testing.assert_close(model(given).logits, model.head(last))


def test_lf_dnn_joins_what_each_network_makes_of_a_mean() -> None:
    model: LfDnn = made("lf-dnn")
    given = batch()
    read = [relus(model.networks[m], getattr(given, m).mean(dim=1)) for m in MODALITIES]
    torch.testing.assert_close(model(given).logits, model.joint(torch.cat(read, dim=1)))


@pytest.mark.parametrize("name", LATE)
def test_a_late_fusion_is_its_trunk_then_its_decoder_and_no_text_reaches_the_trunk(name: str) -> None:
    model, given = made(name), batch()
    other = replace(given, text=given.text + 1.0)
    state = model.trunk(given)
    assert model.text_enters_late
    assert torch.equal(state, model.trunk(other))
    for one in (given, other):
        assert torch.equal(model.decode(state, one.text, one.text_mask), model(one).logits)
    assert not torch.equal(model(given).logits, model(other).logits)


# ----------------------------------------------------------------------------------------------------- linear


@pytest.mark.parametrize("reads", SUBSETS, ids="+".join)
def test_a_linear_probe_weights_the_means_of_what_it_says_and_nothing_else(reads: tuple[Modality, ...]) -> None:
    model: Linear = made("linear", reads="+".join(reads))
    given = batch()
    assert model.modalities == frozenset(reads)
    assert MODELS.load("linear").reads(MODELS.load("linear").settings(reads="+".join(reads))) == frozenset(reads)
    means = torch.cat([getattr(given, m).mean(dim=1) for m in reads], dim=1)
    torch.testing.assert_close(model(given).logits, means @ model.layer.weight.T + model.layer.bias)


@pytest.mark.parametrize("reads", ["smell", "text+audio", "audio+audio", "", "audio, text"])
def test_a_linear_probe_of_something_else_is_refused_with_all_that_is_possible(reads: str) -> None:
    with pytest.raises(UserError) as caught:
        validated(MODELS.load("linear").settings, {"reads": reads}, "model 'linear'")
    assert all(f"'{'+'.join(subset)}'" in str(caught.value) for subset in SUBSETS)
    assert f"(found {reads!r})" in str(caught.value)


# ------------------------------------------------------------------------------------------------------- all


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("name", ["linear", "ef-lstm", *LATE])
def test_an_absent_modality_reads_as_zeros(name: str, modality: Modality) -> None:
    model, given = made(name), batch()
    mask: Tensor = getattr(given, f"{modality}_mask")
    zeros = {modality: getattr(given, modality)[:, :1] * 0.0, f"{modality}_mask": mask[:, :1]}
    gone = model(replace(given, **{f"{modality}_mask": torch.zeros_like(mask)})).logits
    torch.testing.assert_close(gone, model(replace(given, **zeros)).logits)
    assert not torch.allclose(gone, model(given).logits)


@pytest.mark.parametrize(("name", "reads"), [("audio-vision", "av"), ("audio-text", "at"), ("vision-text", "vt")])
def test_a_pair_reads_the_two_modalities_of_its_name(name: str, reads: str) -> None:
    spec: ModelSpec = MODELS.load(name)
    assert {m[0] for m in spec.reads(spec.settings())} == set(reads)
    assert list(made(name).encoders) == name.split("-")
