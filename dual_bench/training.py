"""Fit on train, choose on validation, predict on test.

Nothing here ever holds a test label: ``Examples`` (with targets) are made for the training and validation parts
alone, and prediction takes rows and texts and returns scores. Labels join them in ``store``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import Tensor, nn

from dual_bench.inputs import Resident
from dual_bench.models.losses import task_loss
from dual_bench.models.spec import ModelSpec
from dual_bench.seeding import generator, torch_stream
from dual_bench.stacked import Stack
from dual_bench.types import (
    MODALITIES,
    Batch,
    DualBenchError,
    IntArray,
    Lesson,
    Modality,
    Output,
    Task,
    UserError,
    Widths,
)

_PREDICTION_BATCH = 512
_POOL = 16
"""Batches that are sorted by length together."""


def _pack(value: object) -> object:
    if value == "auto":
        return value
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if isinstance(number, int) and number >= 1:
        return number
    raise ValueError(f"expected a whole number from 1 or auto, found {value!r}")


class TrainingSettings(BaseModel):
    """How every model of a plan is trained. Defaults were chosen on validation parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Annotated[int, Field(ge=1)] = 60
    """At most."""
    patience: Annotated[int, Field(ge=1)] = 6
    """Epochs without a better validation loss before training stops."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest gradient norm."""
    class_weights: bool = False
    """Weight each class by its inverse frequency in the training part (mean weight of an utterance is 1)."""
    pack: Annotated[int | Literal["auto"], BeforeValidator(_pack)] = 1
    """How many seeds of a model are trained stacked (``stacked``), where it can be: seeds 0 to pack - 1, and so on. It
    changes rounding, and thus the results a little. ``auto``: all or 1, whichever a short measurement finds faster
    (``packing``).
    """
    bucketing: bool = False
    """Whether a batch is made of utterances of like length: less padding, but no longer any utterance with any other.

    The shuffled order is cut into pools of 16 batches, each sorted by how much is to be read; then batches are
    shuffled.
    """
    noisy_texts: Annotated[int, Field(ge=1)] = 8
    """Regime ``mixed``: noisy texts prepared for each training utterance; each epoch reads one, drawn anew."""
    noisy_validation_texts: Annotated[int, Field(ge=1)] = 2
    """The same for validation, where each epoch reads all of them."""
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Regime ``modality-dropout``: probability that an utterance of a batch goes without a modality, drawn for each
    modality that the model reads, and never all of them. Validation goes without as often, in
    ``noisy_validation_texts`` draws that stay the same."""


@dataclass(frozen=True)
class Examples:
    """Labelled utterances: ``rows`` (n,) of the corpus, ``texts`` (V, n) rows of ``Inputs.text``, ``targets`` (n,).

    Where V > 1 an utterance has several noisy texts.
    """

    rows: IntArray
    texts: IntArray
    targets: NDArray[np.float64]


@dataclass(frozen=True)
class Queries:
    """Pairs to predict: ``rows`` (n,) of the corpus, each with one of the ``texts`` (n,)."""

    rows: IntArray
    texts: IntArray


@dataclass(frozen=True)
class Fit:
    """How training went; the module itself holds the weights of ``best_epoch`` (from 1)."""

    best_epoch: int
    history: tuple[dict[str, float], ...]
    seconds: float


def resolve_device(name: str) -> str:
    """``auto`` is cuda, mps or cpu, whichever is there first; UserError where the named device is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, found in there.items() if found)
    if name not in there:
        raise UserError(f"unknown device '{name}'; expected auto, cuda, mps or cpu")
    if not there[name]:
        raise UserError(f"device '{name}' is not available here; use --device auto")
    return name


@contextmanager
def exact_repeats(device: str, threads: int) -> Iterator[None]:
    """Deterministic kernels and a fixed number of threads inside the block, for equal results from equal seeds."""
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    memory_before = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True)
    # nothing here reads memory it has not written, and filling it costs a tenth of the time
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = memory_before  # type: ignore[attr-defined]
        torch.set_num_threads(before[1])


def settings_for(model: BaseModel, shared: TrainingSettings) -> TrainingSettings:
    """The settings of training, with those in their place that a model brings for itself."""
    own = {name: getattr(model, name) for name in ("learning_rate", "weight_decay")}
    return shared.model_copy(update={name: value for name, value in own.items() if value is not None})


def build(spec: ModelSpec, settings: BaseModel, widths: Widths, task: Task, *stream: str | int) -> nn.Module:
    """A fresh module whose weights come from the stream named; UserError where the settings do not fit together."""
    with torch_stream("weights", *stream):
        try:
            return spec.build(widths, task, settings)
        except ValueError as error:
            raise UserError(f"model '{spec.name}': {error}") from error


def fit(
    module: nn.Module,
    resident: Resident,
    train: Examples,
    validation: Examples,
    task: Task,
    settings: TrainingSettings,
    *stream: str | int,
    absent: float = 0.0,
) -> Fit:
    """Train ``module`` in place by AdamW; stop when the validation loss no longer falls, keep the best weights.

    ``stream`` names the order of batches, the choice among noisy texts, and the dropout; ``absent`` is the probability
    that an utterance goes without a modality (0 but in the regime ``modality-dropout``).
    """
    course = _Course(module, resident, train, validation, task, settings, (stream,), absent)
    with torch_stream("dropout", *stream):
        (kept,) = _run(course)
    module.load_state_dict(kept.state)
    return kept.fit


def fit_stacked(
    modules: Sequence[nn.Module],
    resident: Resident,
    train: Examples,
    validation: Examples,
    task: Task,
    settings: TrainingSettings,
    streams: Sequence[tuple[str | int, ...]],
    absent: float = 0.0,
) -> list[Fit]:
    """The same for modules of one shape together, each with its stream, by a ``Stack``: on the CPU what ``fit`` would
    make of each, but for rounding. The seconds of each are its share. UserError where they cannot be stacked."""
    try:
        stack = Stack(modules).to(resident.device)
    except ValueError as error:
        raise UserError(f"{type(modules[0]).__name__} cannot be trained in packs: {error}") from None
    course = _Course(stack, resident, train, validation, task, settings, tuple(streams), absent)
    stack.seed([("dropout", *stream) for stream in streams])
    kept = _run(course)
    for module, one in zip(modules, kept, strict=True):
        module.load_state_dict(module.state_dict() | one.state)
    return [replace(one.fit, seconds=one.fit.seconds / len(kept)) for one in kept]


@dataclass(frozen=True)
class _Course:
    """A training: what does not change in the course of it. ``module`` is a ``Stack`` where there are several
    ``streams``, or one that is to be stacked."""

    module: nn.Module
    resident: Resident
    train: Examples
    validation: Examples
    task: Task
    settings: TrainingSettings
    streams: tuple[tuple[str | int, ...], ...]
    absent: float

    @property
    def stacked(self) -> bool:
        return isinstance(self.module, Stack)

    @property
    def exact(self) -> torch.dtype:
        """In which losses are summed: mps has no float64."""
        return torch.float32 if self.resident.device == "mps" else torch.float64

    @cached_property
    def optimiser(self) -> torch.optim.Optimizer | None:
        """AdamW over what descent can change; None of a model that has nothing to change."""
        trained = [p for p in self.module.parameters() if p.requires_grad]
        if not trained:
            return None
        rate, decay = self.settings.learning_rate, self.settings.weight_decay
        return torch.optim.AdamW(trained, rate, weight_decay=decay, fused=self.resident.device != "mps")

    @cached_property
    def class_weights(self) -> Tensor | None:
        if not self.settings.class_weights or self.task.kind != "classification":
            return None
        targets = self.train.targets
        counts = np.bincount(targets.astype(int), minlength=self.task.outputs)
        weights = len(targets) / np.maximum(counts, 1) / (counts > 0).sum()
        return torch.tensor(weights, dtype=torch.float32, device=self.resident.device)

    def lesson(self, epoch: int) -> Lesson | None:
        """What training knows of all utterances; a stack reads none of it."""
        if self.stacked:
            return None
        return Lesson(self._everyone, self._everyone, self._places, epoch, self.class_weights)

    @cached_property
    def _everyone(self) -> Tensor:
        return torch.from_numpy(self.train.targets).float().to(self.resident.device)

    @cached_property
    def _places(self) -> Tensor:
        return torch.arange(len(self._everyone), device=self._everyone.device)


class _Kept:
    """The best epoch of one model so far, its weights, and how it came to it."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best_epoch, self.seconds = 0, 0.0
        self.state: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []

    @property
    def done(self) -> bool:
        """Whether the validation loss no longer falls."""
        return len(self.history) - self.best_epoch >= self.patience and self.best_epoch > 0

    @property
    def fit(self) -> Fit:
        return Fit(self.best_epoch, tuple(self.history), self.seconds)

    def saw(self, parts: dict[str, float], state: Callable[[], dict[str, Tensor]]) -> None:
        """Take an epoch's losses in, and the weights where they are the best."""
        if not np.isfinite(parts["total"]):
            raise DualBenchError(f"the training loss became {parts['total']}; try a smaller learning_rate")
        self.history.append(parts)
        if self.best_epoch == 0 or parts["validation"] < self.history[self.best_epoch - 1]["validation"]:
            self.best_epoch, self.state = len(self.history), state()


def _run(course: _Course) -> list[_Kept]:
    """Epoch after epoch, until every model is done. In a stack one that is done goes on, and nobody looks at it."""
    began = time.perf_counter()
    kept = [_Kept(course.settings.patience) for _ in course.streams]
    for epoch in range(1, course.settings.epochs + 1):
        losses = _train_epoch(course, epoch)
        for number, (one, parts, loss) in enumerate(zip(kept, losses, _validate(course), strict=True)):
            if not one.done:
                one.saw(parts | {"validation": loss}, partial(_state, course.module, number))
        if all(one.done for one in kept):
            break
    for one in kept:
        one.seconds = time.perf_counter() - began
    return kept


def _state(module: nn.Module, number: int) -> dict[str, Tensor]:
    if isinstance(module, Stack):
        return module.state_of(number)
    return {name: value.clone() for name, value in module.state_dict().items()}


def _train_epoch(course: _Course, epoch: int) -> list[dict[str, float]]:
    """One pass over the training part; the mean of each part of the loss, for each model."""
    module, train, settings, optimiser = course.module, course.train, course.settings, course.optimiser
    module.train()
    rngs = [generator("batches", epoch, *stream) for stream in course.streams]
    plans = []
    for rng in rngs:
        order = rng.permutation(len(train.rows))
        texts = train.texts[rng.integers(len(train.texts), size=len(order)), np.arange(len(order))]
        sizes = course.resident.size(train.rows, texts) if settings.bucketing else None
        plans.append([(chosen, texts[chosen]) for chosen in batches(order, settings.batch_size, sizes, rng)])
    whole = course.lesson(epoch)
    sums: dict[str, Tensor] = {}
    for together in zip(*plans, strict=True):
        chosen, texts = (np.stack(part) if course.stacked else part[0] for part in zip(*together, strict=True))
        lesson = None if whole is None else whole.of(torch.from_numpy(chosen))
        parts = _losses(course, train.rows[chosen], texts, train.targets[chosen], rngs, lesson)
        if optimiser is not None:
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(parts["total"].sum())
            _clip(module, settings.clip)
            optimiser.step()
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value.detach().to(course.exact) * chosen.shape[-1]
    means = {name: (total / len(train.rows)).reshape(-1).tolist() for name, total in sums.items()}
    return [dict(zip(means, each, strict=True)) for each in zip(*means.values(), strict=True)]


def batches(order: IntArray, size: int, lengths: IntArray | None, rng: np.random.Generator) -> list[IntArray]:
    """``order`` (n,) cut into batches of ``size``; of like ``lengths`` (n,), by utterance, where those are given.

    >>> batches(np.array([2, 0, 3, 1]), 2, np.array([1, 9, 8, 1]), np.random.default_rng(0))
    [array([0, 3]), array([2, 1])]
    """
    if lengths is not None:
        pools = [order[start : start + _POOL * size] for start in range(0, len(order), _POOL * size)]
        order = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    found = [order[start : start + size] for start in range(0, len(order), size)]
    if lengths is not None:  # a smaller batch stays the last one, so that seeds trained stacked have it together
        whole = found[: len(order) // size]
        rng.shuffle(whole)
        found = [*whole, *found[len(whole) :]]
    return found


def _clip(module: nn.Module, largest: float) -> None:
    """Shorten the gradient of each model to the norm ``largest``, where it is longer."""
    if not isinstance(module, Stack):
        torch.nn.utils.clip_grad_norm_(module.parameters(), largest)
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    squares = (
        torch.stack([torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for g in gradients]).square().sum(dim=0)
    )
    factor = (largest / (squares.sqrt() + 1e-6)).clamp_max(1.0)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *(1,) * (gradient.dim() - 1)))


@torch.no_grad()
def _validate(course: _Course) -> list[float]:
    """Mean task loss over all texts of the validation part, for each model."""
    course.module.eval()
    part, n = course.validation, len(course.validation.rows)
    rngs = [generator("absent in validation", *stream) for stream in course.streams]  # the same in every epoch
    readings = np.repeat(part.texts, course.settings.noisy_validation_texts if course.absent else 1, axis=0)
    total = torch.zeros(len(course.streams), dtype=course.exact, device=course.resident.device)
    for texts in readings:
        for chosen in chunks(n):
            found = _losses(course, part.rows[chosen], texts[chosen], part.targets[chosen], rngs)
            total += found["task"].to(course.exact) * len(texts[chosen])
    return (total / (n * len(readings))).tolist()


def _losses(
    course: _Course,
    rows: IntArray,
    texts: IntArray,
    targets: NDArray[np.float64],
    rngs: Sequence[np.random.Generator],
    lesson: Lesson | None = None,
) -> Mapping[str, Tensor]:
    """Each part of the loss by name, and their weighted ``total``; of a stack (M,), of rows (M, B) or, the same for
    all, (B,)."""
    resident, device = course.resident, course.resident.device
    batch = replace(resident.batch(rows.reshape(-1), texts.reshape(-1)), lesson=lesson)
    if course.stacked:
        batch = _of_each(batch, len(course.streams), shared=rows.ndim == 1)
    if course.absent:
        drawn = [drawn_absent(rng, rows.shape[-1], resident.reads, course.absent) for rng in rngs]
        absent = {m: np.stack([each[m] for each in drawn]) if course.stacked else drawn[0][m] for m in drawn[0]}
        batch = without(batch, absent)
    with autocast(device):
        output = answer(course.module, batch)
    target = torch.from_numpy(targets.astype(np.float32)).to(device).expand(output.logits.shape[:-1])
    parts = {"task": task_loss(course.task, output.logits, target, course.class_weights)}
    parts |= {name: value for name, (_, value) in output.auxiliary.items()}
    weighted = [weight * value for weight, value in output.auxiliary.values()]
    return parts | {"total": torch.stack([parts["task"], *weighted]).sum(dim=0)}


def _of_each(batch: Batch, count: int, shared: bool) -> Batch:
    """A batch for each of ``count`` models, (M, B, …): the same (B, …) where it is ``shared``, else parts of
    (M B, …)."""
    names = [name for m in MODALITIES for name in (m, f"{m}_mask")]
    tensors = {name: getattr(batch, name) for name in names}
    if shared:
        return replace(batch, **{name: each.expand(count, *each.shape) for name, each in tensors.items()})
    return replace(batch, **{name: each.unflatten(0, (count, -1)) for name, each in tensors.items()})


def drawn_absent(
    rng: np.random.Generator, count: int, reads: frozenset[Modality], probability: float
) -> dict[Modality, NDArray[np.bool_]]:
    """Which of the modalities that a model reads each of ``count`` utterances goes without: never all of them.

    (Modality dropout after Neverova et al. 2016, "ModDrop", IEEE TPAMI 38:1692: there a modality goes in the course of
    training, here in each batch.)
    """
    names = [m for m in MODALITIES if m in reads]
    gone = rng.random((len(names), count)) < probability
    gone[rng.integers(len(names), size=count), np.arange(count)] &= ~gone.all(axis=0)
    return dict(zip(names, gone, strict=True))


def without(batch: Batch, absent: Mapping[Modality, NDArray[np.bool_]]) -> Batch:
    """The batch with no valid step where a modality is ``absent`` (B,), or (M, B) for a stack of M."""
    masks = {f"{m}_mask": getattr(batch, f"{m}_mask") for m in absent}
    gone = {f"{m}_mask": torch.from_numpy(where).to(batch.audio.device)[..., None] for m, where in absent.items()}
    return replace(batch, **{name: mask & ~gone[name] for name, mask in masks.items()})


def autocast(device: str) -> torch.autocast:
    """Half precision where that is exact enough and faster: on CUDA."""
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")


def predict(module: Any, resident: Resident, task: Task, queries: Queries) -> NDArray[np.float32]:
    """Scores (n, K) of each pair: class probabilities, or the value held within the task's range."""
    (scores,) = predict_all([module], resident, task, queries)
    return cast("NDArray[np.float32]", scores)


@torch.no_grad()
def predict_all(modules: Sequence[Any], resident: Resident, task: Task, queries: Queries) -> NDArray[np.float32]:
    """The same of several modules of one kind (M, n, K): what they read is gathered once for all of them.

    A model with a trunk pays for each utterance once, however many texts it is asked about.
    """
    rows, which = np.unique(queries.rows, return_inverse=True)
    if "text" not in resident.reads and len(rows) < len(queries.rows):
        return predict_all(modules, resident, task, Queries(rows, np.zeros_like(rows)))[:, which]
    scores = np.empty((len(modules), len(queries.rows), task.outputs), np.float32)
    states = [trunk_states(module.eval(), resident, rows) for module in modules]
    by_size = np.argsort(resident.size(queries.rows, queries.texts), kind="stable")  # less padding
    for chosen in (by_size[piece] for piece in chunks(len(by_size))):
        asked = queries.rows[chosen], queries.texts[chosen]
        read = resident.batch(*asked) if states[0] is None else resident.text(asked[1])
        met = torch.from_numpy(which[chosen]).to(resident.device)
        for number, (module, state) in enumerate(zip(modules, states, strict=True)):
            with autocast(resident.device):
                if isinstance(read, Batch):
                    logits = answer(module, read).logits
                else:
                    logits = module.decode(cast(Tensor, state)[met], *read)
            scores[number, chosen] = scores_of(task, logits).cpu().numpy()
    return scores


def answer(module: Any, batch: Batch) -> Output:
    """What a model makes of a batch, also where its ``forward`` gives bare logits."""
    found: Output | Tensor = module(batch)
    return Output(found) if isinstance(found, Tensor) else found


def scores_of(task: Task, logits: Tensor) -> Tensor:
    """What is stored of logits (n, K): class probabilities, or the value held within the task's range."""
    logits = logits.float()
    return logits.softmax(dim=1) if task.kind == "classification" else logits.clamp(task.low, task.high)


def trunk_states(module: Any, resident: Resident, rows: IntArray) -> Tensor | None:
    """What no text can reach, for all of ``rows``, where the model's text enters late; else None."""
    if not getattr(module, "text_enters_late", False):
        return None
    no_text = np.zeros(len(rows), np.int64)  # a text that nothing reads
    with autocast(resident.device):
        return torch.cat([module.trunk(resident.batch(rows[chosen], no_text[chosen])) for chosen in chunks(len(rows))])


def chunks(count: int) -> list[slice]:
    """The pieces in which ``count`` predictions are made."""
    return [slice(start, start + _PREDICTION_BATCH) for start in range(0, count, _PREDICTION_BATCH)]
