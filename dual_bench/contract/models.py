"""What every model promises. ``PROMISES`` names each check; its function says what is wrong, or nothing.

Models are made on small widths with random numbers for features: no corpus, no encoder, and seconds at most.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from safetensors.torch import load as read_weights
from safetensors.torch import save as write_weights
from torch import Tensor, nn

from dual_bench.contract.checks import Check, SkippedError
from dual_bench.inputs import Inputs, Resident
from dual_bench.models.layers import time_grid
from dual_bench.models.spec import ModelSpec, modalities_of
from dual_bench.seeding import generator, torch_stream
from dual_bench.training import (
    Examples,
    Queries,
    TrainingSettings,
    answer,
    build,
    exact_repeats,
    fit,
    fit_stacked,
    predict,
    predict_all,
    scores_of,
)
from dual_bench.types import MODALITIES, SUBSETS, Batch, Modality, Output, Ragged, Task, Widths

WIDTHS = Widths(audio=8, vision=16, text=24)
"""All different, and such that up to 8 heads can share them, as those of the real encoders."""
CLASSES = Task("classification", ("a", "b", "c", "d"))
VALUE = Task("regression", low=-3.0, high=3.0)

_NEAR = 1e-5
"""How far two logits may be apart that rounding alone tells apart."""
_PADDING = 1e3
"""What stands where nothing is valid: large, so that a leak shows."""
_ROUNDS, _EPOCHS = 6, 50
"""Overfitting has at most so many rounds of so many epochs."""


@dataclass(frozen=True)
class Subject:
    """A model under examination: its record, and its settings."""

    spec: ModelSpec
    settings: BaseModel

    def made(self, task: Task = CLASSES, seed: int = 0) -> nn.Module:
        """A fresh module, ready to answer."""
        return build(self.spec, self.settings, WIDTHS, task, "contract", seed).eval()


# --------------------------------------------------------------------------------------------- inputs


def made_batch(size: int = 4, audio: int = 9, vision: int = 5, text: int = 6) -> Batch:
    """Random features; the first utterance fills its steps, what is not valid holds ``_PADDING``."""
    with torch_stream("contract batch"):
        parts: dict[str, Any] = {}
        for modality, steps in (("audio", audio), ("vision", vision), ("text", text)):
            lengths = torch.randint(1, steps + 1, (size,))
            lengths[0] = steps
            mask = torch.arange(steps) < lengths[:, None]
            values = torch.randn(size, steps, getattr(WIDTHS, modality))
            parts[modality] = values.masked_fill(~mask[:, :, None], _PADDING)
            parts[f"{modality}_mask"] = mask
        return Batch(**parts)


def _alone(batch: Batch, row: int, extra: int) -> Batch:
    """One utterance of a batch, with ``extra`` steps of padding."""
    parts: dict[str, Any] = {}
    for modality in MODALITIES:
        length = int(getattr(batch, f"{modality}_mask")[row].sum())
        sequence = getattr(batch, modality)[row : row + 1, :length]
        more = torch.full((1, extra, sequence.shape[2]), _PADDING)
        parts[modality] = torch.cat([sequence, more], dim=1)
        parts[f"{modality}_mask"] = torch.arange(length + extra)[None] < length
    return Batch(**parts)


def _lacking(batch: Batch, absent: tuple[Modality, ...], filling: float) -> Batch:
    """The batch with no valid step in the modalities ``absent``, whose steps hold ``filling``."""
    changed: dict[str, Any] = {}
    for m in absent:
        changed |= {m: torch.full_like(getattr(batch, m), filling)}
        changed |= {f"{m}_mask": torch.zeros_like(getattr(batch, f"{m}_mask"))}
    return replace(batch, **changed)


def _inputs(count: int) -> Inputs:
    """Random features; those of utterance i lean towards feature i mod 4, so that a linear model can learn them."""
    rng = generator("contract inputs", count)

    def sequences(width: int, longest: int) -> Ragged:
        lengths = rng.integers(1, longest + 1, count)
        towards = np.eye(width)[np.arange(count) % CLASSES.outputs]
        return Ragged.pack([rng.normal(size=(n, width)) + towards[i] for i, n in enumerate(lengths)])

    return Inputs(sequences(WIDTHS.audio, 9), sequences(WIDTHS.vision, 5), sequences(WIDTHS.text, 6))


def _logits(module: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        return answer(module, batch).logits.detach()  # a view of a parameter would still ask for a gradient


def _apart(one: Tensor, other: Tensor) -> float:
    """The largest difference; infinite where a number is missing."""
    return float((one - other).abs().nan_to_num(nan=torch.inf).max())


# ---------------------------------------------------------------------------------------- single answers


def shapes(subject: Subject) -> str | None:
    for task, what in ((CLASSES, f"{CLASSES.outputs} classes"), (VALUE, "one value")):
        found: Any = subject.made(task)(made_batch())
        if not isinstance(found, Output | Tensor):
            return f"expected forward to give an Output or bare logits, found {type(found).__name__}; return logits"
        logits = found.logits if isinstance(found, Output) else found
        if logits.shape != (4, task.outputs):
            return (
                f"expected logits of shape (4, {task.outputs}) for 4 utterances and {what}, found "
                f"{tuple(logits.shape)}; end with a layer of width task.outputs, and keep the utterances apart"
            )
    return None


def finite(subject: Subject) -> str | None:
    if any(not torch.isfinite(_logits(subject.made(task), made_batch())).all() for task in (CLASSES, VALUE)):
        return "expected finite logits, found NaN or infinity; look for a division by zero, a log or a square root"
    return None


def padding(subject: Subject) -> str | None:
    batch, worst = made_batch(), 0.0
    for module in (subject.made(CLASSES), subject.made(VALUE)):
        together = _logits(module, batch)
        rows = [(row, extra) for row in range(4) for extra in (0, 7)]
        apart = (_apart(_logits(module, _alone(batch, row, extra))[0], together[row]) for row, extra in rows)
        worst = max(worst, *apart)
    if worst > _NEAR:
        return (
            f"an utterance alone and in a padded batch gets different logits (largest difference {worst:.2g}): a "
            "padded step leaks in, or another utterance; multiply by the mask before you average"
        )
    return None


def reads(subject: Subject) -> str | None:
    module, batch = subject.made(), made_batch()
    promised, own = subject.spec.reads(subject.settings), modalities_of(module)
    if promised != own:
        return f"the record says that it reads {_listed(promised)}, the module {_listed(own)}; let both say the same"
    for m in MODALITIES:
        same = torch.equal(_logits(module, batch), _logits(module, replace(batch, **{m: getattr(batch, m) + 1.0})))
        if same and m in own:
            return f"it says that it reads {m}, and answers the same whatever that is; use it, or set `modalities`"
        if not same and m not in own:
            return f"it reads {m}, which its attribute `modalities` does not name; name it there"
    return None


def _listed(names: frozenset[Modality]) -> str:
    return " and ".join(sorted(names)) or "nothing"


def absent(subject: Subject) -> str | None:
    module, batch = subject.made(), made_batch()
    for gone in SUBSETS:
        logits = _logits(module, _lacking(batch, gone, _PADDING))
        named = " and ".join(gone)
        if not torch.isfinite(logits).all():
            return (
                f"where {named} has no valid step the logits are not finite: an average or a softmax over no step at "
                "all; divide by at least 1, or put something in the place of what is absent"
            )
        if (worst := _apart(logits, _logits(module, _lacking(batch, gone, 0.0)))) > _NEAR:
            return (
                f"where {named} has no valid step the answer still depends on what stands there (largest difference "
                f"{worst:.2g}); look at the mask alone"
            )
    return None


def bins(subject: Subject) -> str | None:
    for task in (CLASSES, VALUE):
        module = subject.made(task)
        if not (count := int(getattr(module, "time_bins", 0))):
            raise SkippedError("it does not say onto how many bins it averages")
        batch = made_batch(audio=max(40, 2 * count), vision=max(30, count))
        averaged: dict[str, Any] = {}
        for m in ("audio", "vision"):
            sequence, mask = getattr(batch, m), getattr(batch, f"{m}_mask")
            moving = mask.sum(dim=1)[:, None] > 1
            onto = torch.where(moving[..., None], time_grid(sequence, mask, count), sequence[:, :count])
            averaged |= {m: onto, f"{m}_mask": moving | mask[:, :count]}
        pairs = [(_logits(module, one), *_in_training(module, one)) for one in (batch, replace(batch, **averaged))]
        if (worst := max(_apart(*pair) for pair in zip(*pairs, strict=True))) > _NEAR:
            return (
                f"voice and face averaged onto its {count} bins before it sees them give other logits or losses "
                f"(largest difference {worst:.2g}); look at them through time_grid alone, or do not set `time_bins`"
            )
    return None


def _in_training(module: nn.Module, batch: Batch) -> list[Tensor]:
    """Logits and auxiliary losses in training, of the same random numbers each time."""
    with torch.no_grad(), torch_stream("contract bins"):
        found = answer(module.train(), batch)
    module.eval()
    return [found.logits, *(value for _, value in found.auxiliary.values())]


def stacks(subject: Subject) -> str | None:
    if not subject.spec.stackable:
        raise SkippedError("it is not stackable")
    inputs, rows = _inputs(32), np.arange(32)
    settings = TrainingSettings(epochs=3, patience=3, batch_size=12)
    streams = [("contract stack", seed) for seed in range(3)]
    for task, targets in ((CLASSES, (rows % 4).astype(np.float64)), (VALUE, (rows % 7 - 3).astype(np.float64))):
        part = Examples(rows, rows[None], targets)
        made = [[build(subject.spec, subject.settings, WIDTHS, task, *one) for one in streams] for _ in range(2)]
        with exact_repeats("cpu", 1):
            resident = Resident(inputs, rows, modalities_of(made[0][0]), "cpu")
            for module, stream in zip(made[0], streams, strict=True):
                fit(module, resident, part, part, task, settings, *stream)
            fit_stacked(made[1], resident, part, part, task, settings, streams)
            pairs = [predict_all(each, resident, task, Queries(rows, rows)) for each in made]
        if (worst := float(np.abs(pairs[0] - pairs[1]).max())) > _NEAR:
            return (
                f"trained stacked it gives other scores than alone (largest difference {worst:.2g}); count dimensions "
                "from the last, keep utterances apart, and let parameters broadcast over the dimensions before them"
            )
    return None


def repeats(subject: Subject) -> str | None:
    module, batch, found = subject.made(), made_batch(), []
    for time in range(2):
        with torch_stream("contract answers", time):
            found.append(_logits(module, batch))
    if not torch.equal(*found):
        return (
            f"the same batch gets other logits the second time (largest difference {_apart(*found):.2g}); after eval() "
            "draw nothing at random, and change no weight or buffer"
        )
    return None


def trunk(subject: Subject) -> str | None:
    module: Any = subject.made()
    if not getattr(module, "text_enters_late", False):
        raise SkippedError("text_enters_late is not set")
    batch = made_batch()
    with torch.no_grad():
        state = module.trunk(batch)
        if not torch.equal(state, module.trunk(replace(batch, text=batch.text + 1.0))):
            return "text changes what trunk gives; read it in decode alone"
        found = module.decode(state, batch.text, batch.text_mask)
    if not torch.equal(found, _logits(module, batch)):
        return (
            f"forward and decode(trunk(batch), text, text_mask) differ (largest difference "
            f"{_apart(found, _logits(module, batch)):.2g}); let forward call them"
        )
    return None


def predicts(subject: Subject) -> str | None:
    inputs, rows, texts = _inputs(8), np.repeat(np.arange(4), 3), np.tile(np.array([0, 3, 7]), 4)
    for task in (CLASSES, VALUE):
        module = subject.made(task)
        with exact_repeats("cpu", 1):
            resident = Resident(inputs, np.arange(8), modalities_of(module), "cpu")
            found = predict(module, resident, task, Queries(rows, texts))
            single = [_logits(module, resident.batch(rows[i : i + 1], texts[i : i + 1])) for i in range(12)]
        if (worst := _apart(torch.from_numpy(found), scores_of(task, torch.cat(single)))) > _NEAR:
            return (
                f"12 pairs of utterance and text, asked together, get other scores than one by one (largest difference "
                f"{worst:.2g}); keep the utterances of a batch apart"
            )
    return None


# ------------------------------------------------------------------------------------ weights and training


def gradients(subject: Subject) -> str | None:
    # of an odd number, so that the signs that an absolute error sends back cannot cancel
    each = [_gradients(subject.made(task), made_batch(5)) for task in (CLASSES, VALUE)]
    found = [pair for gradients in each for pair in gradients.items()]
    dead = list(dict.fromkeys(name for name, gradient in found if gradient is None or not gradient.abs().sum()))
    if dead:
        return (
            f"no gradient reaches {', '.join(dead)}; use {'it' if len(dead) == 1 else 'them'} in forward, or remove it"
        )
    return None


def _gradients(module: nn.Module, batch: Batch) -> dict[str, Tensor | None]:
    """The gradient of each parameter by name, in training mode, of a loss that every logit and auxiliary loss is in."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trained:
        return {}
    with torch_stream("contract dropout"):
        output = answer(module.train(), batch)
    # plus 1: a last layer of zeros is a good start
    losses = [(output.logits + 1.0).square().sum(), *(weight * value for weight, value in output.auxiliary.values())]
    found = torch.autograd.grad(torch.stack(losses).sum(), list(trained.values()), allow_unused=True)
    return dict(zip(trained, found, strict=True))


def streams(subject: Subject) -> str | None:
    one, same, other = (subject.made(seed=seed).state_dict() for seed in (0, 0, 1))
    if not all(torch.equal(one[name], same[name]) for name in one):
        return "the same seed gives other first weights; draw them from torch alone, whose generator is seeded"
    if modalities_of(subject.made()) and all(torch.equal(one[name], other[name]) for name in one):
        return "another seed gives the same first weights; draw them at random, and set no seed of your own"
    return None


def trains_alike(subject: Subject) -> str | None:
    weights = []
    for _ in range(2):
        found: dict[str, Tensor] = {}
        for task in (CLASSES, VALUE):
            module = subject.made(task)
            _fitted(module, 2, 0, task)
            found |= {f"{task.kind} {name}": value for name, value in module.state_dict().items()}
        weights.append(found)
    apart = {name: _apart(weights[0][name].float(), weights[1][name].float()) for name in weights[0]}
    if max(apart.values(), default=0.0) > 0:
        return (
            f"two trainings from the same seed give different weights (largest difference {max(apart.values()):.2g}); "
            "draw random numbers from torch alone, whose generator training seeds"
        )
    return None


def _fitted(
    module: nn.Module, epochs: int, number: int, task: Task = CLASSES, device: str = "cpu"
) -> tuple[Resident, Examples]:
    """Train on 32 utterances, 8 of each class, which also choose the best epoch."""
    rows = np.arange(32)
    examples = Examples(rows, rows[None], (rows % 4).astype(float))
    settings = TrainingSettings(epochs=epochs, patience=epochs, batch_size=32, learning_rate=3e-3, weight_decay=0.0)
    with exact_repeats(device, 1):
        resident = Resident(_inputs(32), rows, modalities_of(module), device)
        fit(module, resident, examples, examples, task, settings, "contract", number)
    return resident, examples


def overfits(subject: Subject) -> str | None:
    module, right = subject.made(), 0
    if not modalities_of(module):
        raise SkippedError("it reads nothing")
    for number in range(_ROUNDS):
        resident, examples = _fitted(module, _EPOCHS, number)
        with exact_repeats("cpu", 1):
            scores = predict(module, resident, CLASSES, Queries(examples.rows, examples.rows))
        right = int((scores.argmax(axis=1) == examples.targets).sum())
        if right == 32:
            return None
    return (
        f"after {_ROUNDS * _EPOCHS} epochs on 32 utterances it knows {right} of them; it should know all: is it wide "
        "enough, does the gradient reach all of it, do auxiliary losses weigh too much?"
    )


def saves(subject: Subject) -> str | None:
    one, other = subject.made(), subject.made(seed=1)
    other.load_state_dict(read_weights(write_weights(one.state_dict())))
    if not torch.equal(*(found := [_logits(module, made_batch()) for module in (one, other)])):
        return (
            f"with the same saved weights it answers otherwise (largest difference {_apart(*found):.2g}): something "
            "random is neither a parameter nor a buffer; register it"
        )
    return None


def moves(subject: Subject) -> str | None:
    whole = subject.made()
    registered = {id(tensor) for tensor in (*whole.parameters(), *whole.buffers())}
    for path, module in whole.named_modules():
        for name, value in vars(module).items():
            if any(isinstance(item, Tensor) and id(item) not in registered for item in _items(value)):
                where = ".".join(filter(None, (path, name)))
                return f"'{where}' is a tensor that .to(device) leaves behind; use register_buffer, or a ParameterList"
    return None


def _items(value: object) -> Iterator[object]:
    """A value, or what stands in it."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set):
        for item in value:
            yield from _items(item)
    else:
        yield value


def on_gpu(subject: Subject) -> str | None:
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else ""
    if not device:
        raise SkippedError("no GPU here")
    batch, module = made_batch(), subject.made()
    expected = _logits(module, batch)
    there = Batch(**{f.name: getattr(batch, f.name).to(device) for f in fields(batch) if f.name != "lesson"})
    found = _logits(module.to(device), there).cpu()
    if (worst := _apart(found, expected)) > 1e-3:
        return f"on {device} it gives other logits than on the CPU (largest difference {worst:.2g})"
    resident, examples = _fitted(module, 1, 0, CLASSES, device)
    with exact_repeats(device, 1):
        predict(module, resident, CLASSES, Queries(examples.rows, examples.rows))
    return None


def crosses(subject: Subject) -> str | None:
    try:
        spec, settings = pickle.loads(pickle.dumps((subject.spec, subject.settings)))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return f"other processes cannot train it: {error}; define all it is made of at the top of a module"
    one, other = subject.made().state_dict(), Subject(spec, settings).made().state_dict()
    if not all(torch.equal(one[name], other[name]) for name in one):
        return "another process would build it otherwise; let nothing but its settings say how"
    return None


PROMISES: Mapping[str, Check[Subject]] = {
    "gives a row of logits for each utterance": shapes,
    "gives finite logits": finite,
    "is blind to padding and to the rest of the batch": padding,
    "reads the modalities it says, and no other": reads,
    "bears that any modality is absent": absent,
    "answers the same twice": repeats,
    "sees voice and face through its bins alone": bins,
    "learns the same stacked as alone": stacks,
    "is exactly its trunk and its decoder": trunk,
    "predicts many pairs as it does each": predicts,
    "uses every parameter": gradients,
    "has first weights that the seed alone decides": streams,
    "learns the same from the same seed": trains_alike,
    "can learn 32 utterances by heart": overfits,
    "survives saving and loading": saves,
    "leaves no tensor behind when it moves": moves,
    "answers on a GPU as on the CPU": on_gpu,
    "can be sent to another process": crosses,
}
