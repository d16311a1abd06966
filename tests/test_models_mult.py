"""What makes a model MulT (Tsai et al. 2019): six crossmodal directions, each between two modalities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from dual_bench.models.mult import CrossmodalLayer, Direction, Mult, MultSettings
from dual_bench.seeding import torch_stream
from dual_bench.types import MODALITIES, Batch, Task, Widths

WIDTHS = Widths(audio=5, vision=7, text=6)
TASK = Task("classification", ("a", "b", "c"))
PAIRS = tuple(permutations(MODALITIES, 2))


def mult(**settings: object) -> Mult:
    with torch_stream("test mult"):
        sizes = {"width": 8, "heads": 2, "steps": 6, "layers": 2, "self_layers": 2, "dropout": 0.0}
        return Mult(WIDTHS, TASK, MultSettings(**{**sizes, **settings})).eval()


def batch() -> Batch:
    with torch_stream("mult batch"):
        parts: dict[str, Tensor] = {}
        for name, steps in (("audio", 11), ("vision", 4), ("text", 5)):
            parts[name] = torch.randn(3, steps, getattr(WIDTHS, name))
            parts[f"{name}_mask"] = torch.ones(3, steps, dtype=torch.bool)
        return Batch(**parts)


@contextmanager
def heard(modules: dict[str, nn.Module]) -> Iterator[dict[str, tuple[tuple[Tensor, ...], Tensor]]]:
    """What the modules were given, and gave, in the last pass."""
    found: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}
    hooks = [
        module.register_forward_hook(lambda _, given, gave, name=name: found.update({name: (given, gave)}))
        for name, module in modules.items()
    ]
    yield found
    for hook in hooks:
        hook.remove()


def outputs(model: Mult, given: Batch) -> dict[str, Tensor]:
    """What each direction gives in a pass of the whole model."""
    with heard(dict(model.directions.items())) as found:
        model(given)
    return {name: gave for name, (_, gave) in found.items()}


def test_the_directions_are_the_six_ordered_pairs_and_each_runs() -> None:
    found = outputs(mult(), batch())
    assert set(found) == {
        "audio>vision", "audio>text", "vision>audio", "vision>text", "text>audio", "text>vision",
    }  # fmt: skip


@pytest.mark.parametrize("changed", MODALITIES)
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_direction_reads_its_two_modalities_and_is_blind_to_the_third(source: str, target: str, changed: str) -> None:
    model, given, name = mult(), batch(), f"{source}>{target}"
    with torch_stream("mult other"):
        other = replace(given, **{changed: torch.randn_like(getattr(given, changed))})
    same = torch.equal(outputs(model, given)[name], outputs(model, other)[name])
    assert same == (changed not in (source, target))


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_direction_keeps_the_length_of_its_target(source: str, target: str) -> None:
    steps = {"audio": 6, "vision": 6, "text": 5}
    assert outputs(mult(), batch())[f"{source}>{target}"].shape == (3, steps[target], 8)


def softmax_attention(layer: CrossmodalLayer, x: Tensor, source: Tensor, valid: list[int]) -> Tensor:
    """softmax(Q K^T / sqrt(d_h)) V of one utterance, head by head, query by query; only ``valid`` steps are read."""
    attention, heads = layer.attention, 2
    q = x @ attention.query.weight.T + attention.query.bias
    key_value = source @ attention.key_value.weight.T + attention.key_value.bias
    k, v = key_value[:, :8], key_value[:, 8:]
    mixed = torch.zeros_like(q)
    for head in range(heads):
        columns = slice(4 * head, 4 * head + 4)
        for i in range(len(q)):
            weights = torch.stack([torch.exp(q[i, columns] @ k[j, columns] / math.sqrt(4)) for j in valid])
            for weight, j in zip(weights / weights.sum(), valid, strict=True):
                mixed[i, columns] += weight * v[j, columns]
    return mixed @ attention.out.weight.T + attention.out.bias


def test_a_crossmodal_transformer_equals_its_equations_written_out() -> None:
    """Two layers on one utterance: queries of the target, keys and values of the source as it was at first, of which
    the last step is not valid."""
    with torch_stream("mult longhand"):
        direction = Direction(MultSettings(width=8, heads=2, layers=2)).eval()
        target, source = torch.randn(3, 8), torch.randn(4, 8)
    z = target
    for layer in direction.layers:
        assert isinstance(layer, CrossmodalLayer)
        z = z + softmax_attention(layer, layer.norm(z), layer.norm(source), [0, 1, 2])
        z = z + layer.feed_forward(z)
    mask = torch.tensor([[True, True, True, False]])
    found = direction(target[None], source[None], mask)[0]
    torch.testing.assert_close(found, direction.norm(z), atol=1e-5, rtol=0)


def test_low_level_features_are_a_convolution_over_time_plus_sinusoids() -> None:
    model, given = mult(kernel=3), batch()
    with heard({"text>audio": model.directions["text>audio"]}) as found:
        model(given)
    words = found["text>audio"][0][1]
    weight = model.convolutions["text"].weight  # (d, source, k)
    ends = torch.zeros(3, 1, 6)
    padded = torch.cat([ends, given.text, ends], dim=1)
    for step in range(5):
        expected = sum(padded[:, step + tap] @ weight[:, :, tap].T for tap in range(3))
        angles = [step / 10_000 ** (2 * (i // 2) / 8) for i in range(8)]
        place = torch.tensor([math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(angles)])
        torch.testing.assert_close(words[:, step], expected + place, atol=1e-5, rtol=0)


def test_what_padding_holds_does_not_pass_the_convolution() -> None:
    """A kernel of 5 reaches two steps past the end of the words."""
    model, given = mult(kernel=5), batch()
    mask = given.text_mask.clone()
    mask[:, 3:] = False
    loud = given.text.masked_fill(~mask[:, :, None], 1e3)
    cut = replace(given, text=given.text[:, :3], text_mask=mask[:, :3])
    padded = model(replace(given, text=loud, text_mask=mask)).logits
    torch.testing.assert_close(padded, model(cut).logits, atol=1e-5, rtol=0)


def test_the_last_valid_element_is_read_as_if_all_had_been_computed() -> None:
    model = mult()
    with torch_stream("mult last"):
        x = torch.randn(3, 5, 16)
    lengths = torch.tensor([5, 2, 1])
    mask = torch.arange(5) < lengths[:, None]
    last = model.last["text"]
    every = x
    for layer in last.layers:
        every = layer(every, every, mask)
    expected = last.norm(torch.stack([every[0, 4], every[1, 1], every[2, 0]]))
    torch.testing.assert_close(last(x, mask), expected, atol=1e-5, rtol=0)


def test_an_utterance_without_words_reads_as_one_step_of_zeros() -> None:
    model, given = mult(), batch()
    gone = replace(given, text_mask=torch.zeros_like(given.text_mask))
    zeros = replace(given, text=torch.zeros(3, 1, 6), text_mask=torch.ones(3, 1, dtype=torch.bool))
    torch.testing.assert_close(model(gone).logits, model(zeros).logits, atol=1e-5, rtol=0)


def test_no_text_reaches_the_trunk_and_forward_is_decode_of_it() -> None:
    model, given = mult(), batch()
    other = replace(given, text=given.text + 1)
    assert torch.equal(model.trunk(given), model.trunk(other))
    assert torch.equal(model(given).logits, model.decode(model.trunk(given), given.text, given.text_mask))


def test_a_kernel_without_a_middle_is_refused() -> None:
    with pytest.raises(ValidationError, match="kernel"):
        MultSettings(kernel=2)
