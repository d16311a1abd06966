"""What makes a model MISA (Hazarika et al. 2020): one invariant and three specific subspaces, and their losses."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from dual_bench.models.misa import (
    Misa,
    MisaSettings,
    central_moment_discrepancy,
    difference_loss,
    reconstruction_loss,
    similarity_loss,
)
from dual_bench.seeding import torch_stream
from dual_bench.types import MODALITIES, Batch, Task, Widths

WIDTHS = Widths(audio=5, vision=7, text=6)
TASK = Task("classification", ("a", "b", "c"))
LOSSES = {"similarity": "alpha", "difference": "beta", "reconstruction": "gamma"}


def misa(**settings: object) -> Misa:
    with torch_stream("test misa"):
        return Misa(WIDTHS, TASK, MisaSettings(**{"width": 8, "steps": 6, "dropout": 0.0, **settings}))


def batch(size: int = 4) -> Batch:
    with torch_stream("misa batch", size):
        parts: dict[str, Tensor] = {}
        for name, steps in (("audio", 11), ("vision", 4), ("text", 5)):
            parts[name] = torch.randn(size, steps, getattr(WIDTHS, name))
            parts[f"{name}_mask"] = torch.ones(size, steps, dtype=torch.bool)
        return Batch(**parts)


def sample(name: str, *shape: int) -> Tensor:
    with torch_stream("misa sample", name):
        return torch.rand(shape)


# -------------------------------------------------------------------------------------------- similarity


def test_cmd_equals_its_five_moments_written_out() -> None:
    x, y = sample("x", 6, 3), sample("y", 9, 3)

    def moment(values: list[float], order: int) -> float:
        mean = sum(values) / len(values)
        return mean if order == 1 else sum((v - mean) ** order for v in values) / len(values)

    expected = 0.0
    for order in range(1, 6):
        gaps = [moment(x[:, j].tolist(), order) - moment(y[:, j].tolist(), order) for j in range(3)]
        expected += math.sqrt(sum(gap**2 for gap in gaps))
    assert float(central_moment_discrepancy(x, y)) == pytest.approx(expected, rel=1e-5)


def test_cmd_of_equal_samples_is_zero_in_whatever_order_and_its_gradient_finite() -> None:
    x = sample("x", 6, 3).requires_grad_()
    discrepancy = central_moment_discrepancy(x, x.detach().clone())
    discrepancy.backward()
    assert float(discrepancy.detach()) == 0.0
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert float(central_moment_discrepancy(x.detach(), x.detach().flip(0))) == pytest.approx(0.0, abs=1e-6)


def test_similarity_is_the_mean_discrepancy_of_the_three_pairs() -> None:
    c = sample("c", 6, 3, 4)
    pairs = [central_moment_discrepancy(c[:, i], c[:, j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(similarity_loss(c), torch.stack(pairs).mean())


# -------------------------------------------------------------------------------------------- difference


def orthogonal() -> tuple[Tensor, Tensor]:
    """c and p (8, 3, 4) whose subspaces are columns of a Hadamard matrix, which are orthogonal and have mean 0:
    one in common for all c, and one for each p."""
    h = torch.tensor([[1.0]])
    for _ in range(3):
        h = torch.cat([torch.cat([h, h], dim=1), torch.cat([h, -h], dim=1)], dim=0)
    c, p = torch.zeros(8, 3, 4), torch.zeros(8, 3, 4)
    for i in range(3):
        c[:, i, 0] = h[:, 1]
        p[:, i, 0] = h[:, 2 + i]
    return c, p


def test_difference_is_zero_for_orthogonal_subspaces_although_all_share_the_invariant_one() -> None:
    assert float(difference_loss(*orthogonal())) == 0.0


@pytest.mark.parametrize("i", range(3))
def test_difference_sees_a_specific_subspace_that_repeats_the_invariant_one(i: int) -> None:
    """Rows of length 1 with mean 0: C^T P has one entry, 8, of the 16."""
    c, p = orthogonal()
    p[:, i] = c[:, i]
    assert float(difference_loss(c, p)) == pytest.approx(8**2 / 16)


@pytest.mark.parametrize(("i", "j"), list(combinations(range(3), 2)))
def test_difference_sees_two_specific_subspaces_that_are_the_same(i: int, j: int) -> None:
    c, p = orthogonal()
    p[:, i] = p[:, j]
    assert float(difference_loss(c, p)) == pytest.approx(8**2 / 16)


def test_difference_equals_the_frobenius_norms_written_out() -> None:
    c, p = sample("c", 6, 3, 4), sample("p", 6, 3, 4)

    def rows(x: Tensor) -> Tensor:
        return torch.stack([(row - x.mean(dim=0)) / torch.linalg.vector_norm(row - x.mean(dim=0)) for row in x])

    pairs = [(c[:, i], p[:, i]) for i in range(3)] + [(p[:, i], p[:, j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    expected = sum(float(torch.linalg.matrix_norm(rows(a).T @ rows(b)) ** 2) for a, b in pairs) / 4**2
    assert float(difference_loss(c, p)) == pytest.approx(expected, rel=1e-5)


def test_rounding_residues_have_no_direction_and_do_not_blow_up_the_gradient() -> None:
    """A modality that is absent everywhere has the same vectors in each row, but for rounding."""
    c = (0.5 + 1e-7 * sample("c", 6, 3, 4)).requires_grad_()
    difference_loss(c, sample("p", 6, 3, 4)).backward()
    assert c.grad is not None
    assert float(c.grad.abs().max()) < 10.0


# ---------------------------------------------------------------------------------------- reconstruction


def test_reconstruction_is_zero_for_a_perfect_decoder_alone() -> None:
    """Where u is c + p, the decoder that is the identity is perfect, and one with a bias of 2 is 4 off."""
    c, p = sample("c", 6, 3, 4), sample("p", 6, 3, 4)
    decoder = nn.Linear(4, 4)
    with torch.no_grad():
        decoder.weight.copy_(torch.eye(4))
        decoder.bias.zero_()
        assert float(reconstruction_loss(c + p, decoder(c + p))) == 0.0
        decoder.bias.fill_(2.0)
        assert float(reconstruction_loss(c + p, decoder(c + p))) == pytest.approx(4.0)


def test_the_model_rebuilds_its_utterance_vectors_from_the_sum_of_both_subspaces() -> None:
    model, given = misa().train(), batch()
    found = model(given).auxiliary["reconstruction"][1]
    words = model.utterance["text"](given.text, given.text_mask)
    u = torch.cat([model.trunk(given), words[:, None]], dim=1)
    assert model.decoder is not None
    total = torch.zeros(())
    for i, m in enumerate(MODALITIES):
        rebuilt = model.decoder(model.invariant(u[:, i]) + model.specific[m](u[:, i]))
        total = total + ((u[:, i] - rebuilt) ** 2).sum(dim=1).mean() / 8
    torch.testing.assert_close(found, total / 3)


# --------------------------------------------------------------------------------------------- the model


def test_the_invariant_encoder_is_one_for_all_and_the_specific_ones_share_nothing() -> None:
    """Four encoders with parameters of their own; the first is given the vectors of all three modalities."""
    model = misa()
    encoders = [model.invariant, *model.specific.values()]
    parameters = [id(p) for encoder in encoders for p in encoder.parameters()]
    assert len(model.specific) == 3
    assert len(set(parameters)) == 4 * 2
    inputs: list[Tensor] = []
    model.invariant.register_forward_hook(lambda _, given, gave: inputs.append(given[0]))
    model(batch())
    assert [given.shape for given in inputs] == [(4, 3, 8)]


@pytest.mark.parametrize("m", MODALITIES)
def test_a_specific_encoder_reads_its_own_modality_alone(m: str) -> None:
    model, given = misa().eval(), batch()
    read: dict[str, Tensor] = {}
    for name, encoder in model.specific.items():
        encoder.register_forward_hook(lambda _, given, gave, name=name: read.update({name: gave}))
    model(given)
    before = dict(read)
    model(replace(given, **{m: getattr(given, m).flip(0)}))
    assert {name for name in MODALITIES if not torch.equal(before[name], read[name])} == {m}


def test_training_has_three_auxiliary_losses_and_evaluation_none() -> None:
    model, given = misa(alpha=0.5, beta=0.25, gamma=2.0), batch()
    weights = {name: weight for name, (weight, _) in model.train()(given).auxiliary.items()}
    assert weights == {"similarity": 0.5, "difference": 0.25, "reconstruction": 2.0}
    assert model.eval()(given).auxiliary == {}


@pytest.mark.parametrize("left_out", LOSSES)
def test_a_weight_of_zero_leaves_its_term_out(left_out: str) -> None:
    model = misa(**{LOSSES[left_out]: 0.0}).train()
    assert set(model(batch()).auxiliary) == set(LOSSES) - {left_out}
    assert any("decoder" in name for name, _ in model.named_parameters()) == (left_out != "reconstruction")


def test_a_last_batch_of_one_utterance_gives_finite_losses_and_gradients() -> None:
    model = misa().train()
    output = model(batch(size=1))
    (output.logits.sum() + sum(w * v for w, v in output.auxiliary.values())).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_no_text_reaches_the_trunk_and_forward_is_decode_of_it() -> None:
    model, given = misa().eval(), batch()
    other = replace(given, text=given.text + 1)
    assert torch.equal(model.trunk(given), model.trunk(other))
    assert torch.equal(model(given).logits, model.decode(model.trunk(given), given.text, given.text_mask))
