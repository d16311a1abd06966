"""Fit on train, choose on validation, predict on test.

Nothing here ever holds a test label: ``Examples`` (with targets) are made for the training and validation parts
alone, and prediction takes rows and texts and returns scores. Labels join them in ``store``.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dual_bench.models.losses import task_loss
from dual_bench.models.spec import ModelSpec
from dual_bench.seeding import generator, torch_stream
from dual_bench.types import (
    MODALITIES,
    Batch,
    DualBenchError,
    IntArray,
    Lesson,
    Modality,
    Output,
    Ragged,
    Task,
    UserError,
    Widths,
)

_PREDICTION_BATCH = 512


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
    noisy_texts: Annotated[int, Field(ge=1)] = 8
    """Regime ``mixed``: noisy texts prepared for each training utterance; each epoch reads one, drawn anew."""
    noisy_validation_texts: Annotated[int, Field(ge=1)] = 2
    """The same for validation, where each epoch reads all of them."""
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Regime ``modality-dropout``: probability that an utterance of a batch goes without a modality, drawn for each
    modality that the model reads, and never all of them. Validation goes without as often, in
    ``noisy_validation_texts`` draws that stay the same."""


@dataclass(frozen=True)
class Inputs:
    """What models read: voice and face of each utterance of a corpus, and a row of ``text`` for each distinct text."""

    audio: Ragged
    vision: Ragged
    text: Ragged

    @property
    def widths(self) -> Widths:
        return Widths(self.audio.width, self.vision.width, self.text.width)


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


class Resident:
    """The inputs on the device, voice and face standardised by the training part; batches are gathered from it."""

    def __init__(self, inputs: Inputs, train: IntArray, reads: frozenset[Modality], device: str) -> None:
        self.device = device
        self.reads = reads
        self._sequences: dict[Modality, tuple[Tensor, Tensor, Tensor]] = {}
        for modality in MODALITIES:
            ragged: Ragged = getattr(inputs, modality)
            if modality in reads and modality != "text":
                ragged = standardised(ragged, train)
            elif device != "cpu":  # on the CPU a memory map will do
                ragged = ragged.compact()
            self._sequences[modality] = _tensors(ragged, device)

    def reading(self, text: Ragged) -> Resident:
        """The same voices and faces, with other texts."""
        other = copy(self)
        other._sequences = self._sequences | {"text": _tensors(text, self.device)}
        return other

    def batch(self, rows: IntArray, texts: IntArray, faces: IntArray | None = None) -> Batch:
        """Pad and mask what the model reads; a modality it does not read comes without a valid step.

        ``faces`` are the rows whose faces are seen, by default those whose voices are heard.
        """
        found: dict[str, Any] = {}
        chosen = {"audio": rows, "vision": rows if faces is None else faces, "text": texts}
        for modality in MODALITIES:
            padded, mask = self._gather(modality, torch.from_numpy(chosen[modality]).to(self.device))
            found |= {modality: padded, f"{modality}_mask": mask}
        return Batch(**found)

    def text(self, texts: IntArray) -> tuple[Tensor, Tensor]:
        return self._gather("text", torch.from_numpy(texts).to(self.device))

    def _gather(self, modality: Modality, rows: Tensor) -> tuple[Tensor, Tensor]:
        values, starts, lengths = self._sequences[modality]
        chosen = lengths[rows] if modality in self.reads else torch.zeros_like(rows)
        steps = torch.arange(max(1, int(chosen.max())), device=self.device)
        mask = steps < chosen[:, None]
        if not len(values):
            return values.new_zeros(len(rows), 1, values.shape[1]), mask
        # padding repeats some row of the corpus: finite, and masked
        return values[torch.where(mask, starts[rows][:, None] + steps, 0)], mask


def _tensors(ragged: Ragged, device: str) -> tuple[Tensor, Tensor, Tensor]:
    parts = (ragged.values, ragged.starts, ragged.lengths)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing is ever written to it
        values, starts, lengths = (torch.from_numpy(part).to(device) for part in parts)
    return values, starts, lengths


def standardised(ragged: Ragged, train: IntArray) -> Ragged:
    """The same sequences, each feature with mean 0 and standard deviation 1 over the steps of the training part."""
    ragged, steps = ragged.compact(), ragged.select(train).compact().values
    if not len(steps):
        return ragged
    mean, spread = steps.mean(axis=0, dtype=np.float64), steps.std(axis=0, dtype=np.float64)
    scale = np.where(spread > 1e-6, spread, 1.0)
    return replace(ragged, values=((ragged.values - mean) / scale).astype(np.float32))


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
    began = time.perf_counter()
    optimiser = _optimiser(module, settings, resident.device)
    class_weights = _class_weights(task, train, settings, resident.device)
    loss_of = partial(_losses, module, resident, task, class_weights=class_weights)
    everyone = torch.from_numpy(train.targets).float().to(resident.device)
    places = torch.arange(len(everyone), device=everyone.device)
    best, best_epoch, history = {}, 0, []
    with torch_stream("dropout", *stream):
        for epoch in range(1, settings.epochs + 1):
            rng = generator("batches", epoch, *stream)
            lesson = Lesson(everyone, everyone, places, epoch, class_weights)
            parts = _train_epoch(module, optimiser, train, settings, rng, loss_of, absent, lesson)
            parts["validation"] = _validate(module, validation, loss_of, absent, settings, *stream)
            history.append(parts)
            if best_epoch == 0 or parts["validation"] < history[best_epoch - 1]["validation"]:
                best, best_epoch = {k: v.clone() for k, v in module.state_dict().items()}, epoch
            elif epoch - best_epoch >= settings.patience:
                break
    module.load_state_dict(best)
    return Fit(best_epoch, tuple(history), time.perf_counter() - began)


def _optimiser(module: nn.Module, settings: TrainingSettings, device: str) -> torch.optim.Optimizer | None:
    """AdamW over what descent can change; None of a model that has nothing to change."""
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        return None
    return torch.optim.AdamW(trained, settings.learning_rate, weight_decay=settings.weight_decay, fused=device != "mps")


def _train_epoch(
    module: nn.Module,
    optimiser: torch.optim.Optimizer | None,
    train: Examples,
    settings: TrainingSettings,
    rng: np.random.Generator,
    loss_of: Any,
    absent: float,
    lesson: Lesson,
) -> dict[str, float]:
    """One pass over the training part, of which ``lesson`` tells all; the mean of each part of the loss."""
    module.train()
    order = rng.permutation(len(train.rows))
    variant = rng.integers(len(train.texts), size=len(order))
    sums: dict[str, float] = {}
    for start in range(0, len(order), settings.batch_size):
        chosen = order[start : start + settings.batch_size]
        read = (train.rows[chosen], train.texts[variant[chosen], chosen], train.targets[chosen])
        parts = loss_of(*read, rng=rng, absent=absent, lesson=lesson.of(torch.from_numpy(chosen)))
        if optimiser is not None:
            optimiser.zero_grad(set_to_none=True)
            parts["total"].backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), settings.clip)
            optimiser.step()
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) * len(chosen)
    means = {name: total / len(order) for name, total in sums.items()}
    if not np.isfinite(means["total"]):
        raise DualBenchError(f"the training loss became {means['total']}; try a smaller learning_rate")
    return means


@torch.no_grad()
def _validate(
    module: nn.Module, validation: Examples, loss_of: Any, absent: float, settings: TrainingSettings, *stream: str | int
) -> float:
    """Mean task loss over all texts of the validation part."""
    module.eval()
    total, n = 0.0, len(validation.rows)
    rng = generator("absent in validation", *stream)  # the same in every epoch
    readings = np.repeat(validation.texts, settings.noisy_validation_texts if absent else 1, axis=0)
    for texts in readings:
        for chosen in chunks(n):
            read = (validation.rows[chosen], texts[chosen], validation.targets[chosen])
            total += float(loss_of(*read, rng=rng, absent=absent)["task"]) * len(texts[chosen])
    return total / (n * len(readings))


def _losses(
    module: nn.Module,
    resident: Resident,
    task: Task,
    rows: IntArray,
    texts: IntArray,
    targets: NDArray[np.float64],
    class_weights: Tensor | None,
    rng: np.random.Generator,
    absent: float,
    lesson: Lesson | None = None,
) -> Mapping[str, Tensor]:
    """Each part of the loss by name, and their weighted ``total``."""
    batch = replace(resident.batch(rows, texts), lesson=lesson)
    if absent:
        batch = without(batch, drawn_absent(rng, len(rows), resident.reads, absent))
    with autocast(resident.device):
        output = answer(module, batch)
    parts = {"task": task_loss(task, output.logits, torch.from_numpy(targets).to(resident.device), class_weights)}
    parts |= {name: value for name, (_, value) in output.auxiliary.items()}
    weighted = [weight * value for weight, value in output.auxiliary.values()]
    return parts | {"total": torch.stack([parts["task"], *weighted]).sum()}


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
    """The batch with no valid step where a modality is ``absent`` (B,)."""
    masks = {f"{m}_mask": getattr(batch, f"{m}_mask") for m in absent}
    gone = {f"{m}_mask": torch.from_numpy(where).to(batch.audio.device)[:, None] for m, where in absent.items()}
    return replace(batch, **{name: mask & ~gone[name] for name, mask in masks.items()})


def _class_weights(task: Task, train: Examples, settings: TrainingSettings, device: str) -> Tensor | None:
    if not settings.class_weights or task.kind != "classification":
        return None
    counts = np.bincount(train.targets.astype(int), minlength=task.outputs)
    weights = len(train.targets) / np.maximum(counts, 1) / (counts > 0).sum()
    return torch.tensor(weights, dtype=torch.float32, device=device)


def autocast(device: str) -> torch.autocast:
    """Half precision where that is exact enough and faster: on CUDA."""
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")


@torch.no_grad()
def predict(module: Any, resident: Resident, task: Task, queries: Queries) -> NDArray[np.float32]:
    """Scores (n, K) of each pair: class probabilities, or the value held within the task's range.

    A model with a trunk pays for each utterance once, however many texts it is asked about.
    """
    module.eval()
    rows, which = np.unique(queries.rows, return_inverse=True)
    if "text" not in resident.reads and len(rows) < len(queries.rows):
        return predict(module, resident, task, Queries(rows, np.zeros_like(rows)))[which]
    scores = np.empty((len(queries.rows), task.outputs), np.float32)
    states = trunk_states(module, resident, rows)
    for chosen in chunks(len(queries.rows)):
        with autocast(resident.device):
            if states is None:
                logits = answer(module, resident.batch(queries.rows[chosen], queries.texts[chosen])).logits
            else:
                state = states[torch.from_numpy(which[chosen]).to(resident.device)]
                logits = module.decode(state, *resident.text(queries.texts[chosen]))
        scores[chosen] = scores_of(task, logits).cpu().numpy()
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
