"""What models read, and how batches of it are made: gathered from memory maps, nothing is ever held whole on the CPU.

A model that looks at voice and face through ``time_grid`` alone says so (``time_bins`` of ``types.Model``). What is
longer than its bins is averaged onto them once, for all of its trainings, and not in every batch anew.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dual_bench.features.cache import BINS, cached, content_key
from dual_bench.features.rows import Told, unheard
from dual_bench.models.layers import time_grid
from dual_bench.types import MODALITIES, Batch, IntArray, Modality, Ragged, Widths

_BLOCK = 1 << 24
"""Numbers that are looked at together where all are: 64 MB of them."""


@dataclass(frozen=True)
class Scale:
    """``mean`` and standard deviation ``spread`` (d,) of each feature; 1 where a feature does not vary."""

    mean: NDArray[np.float32]
    spread: NDArray[np.float32]


@dataclass(frozen=True)
class Inputs:
    """What models read: voice and face of each utterance of a corpus, and a row of ``text`` for each distinct text.

    ``scales`` are those of the steps of a training part before any was averaged, where that is known already.
    """

    audio: Ragged
    vision: Ragged
    text: Ragged
    scales: Mapping[Modality, Scale] = field(default_factory=dict)

    @property
    def widths(self) -> Widths:
        return Widths(self.audio.width, self.vision.width, self.text.width)


def feature_scale(ragged: Ragged, rows: IntArray) -> Scale:
    """Over the steps of the sequences ``rows``, a block at a time, joined as Chan et al. 1983 have it (American
    Statistician 37:242)."""
    count, mean, squares = 0, np.zeros(ragged.width), np.zeros(ragged.width)
    for block in _blocks(ragged, rows):
        steps = ragged.select(block).compact().values
        if not len(steps):
            continue
        own = steps.mean(axis=0, dtype=np.float64)
        apart, total = own - mean, count + len(steps)
        squares += np.square(steps - own).sum(axis=0) + apart**2 * (count * len(steps) / total)
        mean, count = mean + apart * (len(steps) / total), total
    spread = np.sqrt(squares / max(count, 1))
    return Scale(mean.astype(np.float32), np.where(spread > 1e-6, spread, 1.0).astype(np.float32))


def _blocks(ragged: Ragged, rows: IntArray) -> Iterator[IntArray]:
    """``rows`` in pieces of bounded size."""
    sizes = np.cumsum(ragged.lengths[rows]) * ragged.width
    if len(rows):
        yield from np.split(rows, np.flatnonzero(np.diff(sizes // _BLOCK)) + 1)


def binned(
    ragged: Ragged,
    bins: int,
    identity: str,
    cache: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    told: Told = unheard,
) -> Ragged:
    """Sequences of two steps or more averaged onto so many ``bins`` (``time_grid``); with one bin, that is to their
    means. What is absent stays so, and a single step stays one: it has no course that a model could look at.

    What is made is kept in ``cache``; ``identity`` names the sequences there. A number depends on nothing but its own
    sequence. ``progress`` is told how many of how many are made, ``told`` what was found damaged.
    """
    moving = ragged.lengths > 1
    if (ragged.lengths[moving] == bins).all():
        return ragged
    all_true = torch.ones(1, int(ragged.lengths.max()), dtype=torch.bool)

    def make(positions: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for count, position in enumerate(positions):
            if count % 1000 == 0:
                progress(count, len(positions))
            sequence = np.array(ragged[position])
            if len(sequence) > 1:
                sequence = time_grid(torch.from_numpy(sequence)[None], all_true[:, : len(sequence)], bins)[0].numpy()
            yield position, sequence

    key = _bins_key(bins, identity)
    keys = [content_key(key, str(i)) for i in range(len(ragged))]
    return cached(bins_folder(bins, identity, cache), ragged.width, keys, make, told)[0]


def _bins_key(bins: int, identity: str) -> str:
    return content_key("bins 2", str(bins), identity)


def bins_folder(bins: int, identity: str, cache: Path) -> Path:
    """Where ``binned`` keeps what it makes of the sequences ``identity``."""
    return cache / BINS / _bins_key(bins, identity)[:16]


class Resident:
    """The inputs, memory-mapped or on the device; batches are gathered from it, voice and face standardised by the
    training part ``train``."""

    def __init__(self, inputs: Inputs, train: IntArray, reads: frozenset[Modality], device: str) -> None:
        self.device = device
        self.reads = reads
        self._sequences: dict[Modality, tuple[Tensor, Tensor, Tensor]] = {}
        self._scales: dict[Modality, tuple[Tensor, Tensor]] = {}
        for modality in MODALITIES:
            ragged: Ragged = getattr(inputs, modality)
            self._sequences[modality] = _tensors(ragged, device)
            if modality in reads and modality != "text":
                scale = inputs.scales.get(modality) or feature_scale(ragged, train)
                parts = (torch.from_numpy(part).to(device) for part in (scale.mean, 1 / scale.spread))
                self._scales[modality] = next(parts), next(parts)

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
            padded, mask = self._gather(modality, chosen[modality])
            found |= {modality: padded, f"{modality}_mask": mask}
        return Batch(**found)

    def text(self, texts: IntArray) -> tuple[Tensor, Tensor]:
        return self._gather("text", texts)

    def size(self, rows: IntArray, texts: IntArray) -> IntArray:
        """How many numbers the model reads of each utterance (n,) with its text (n,)."""
        found = np.zeros(len(rows), np.int64)
        for modality in self.reads:
            values, _, lengths = self._sequences[modality]
            chosen = texts if modality == "text" else rows
            found += lengths[torch.from_numpy(chosen).to(lengths.device)].cpu().numpy() * values.shape[1]
        return found

    def _gather(self, modality: Modality, chosen: IntArray) -> tuple[Tensor, Tensor]:
        values, starts, lengths = self._sequences[modality]
        rows = torch.from_numpy(chosen).to(values.device)
        valid = lengths[rows] if modality in self.reads else torch.zeros_like(rows)
        steps = torch.arange(max(1, int(valid.max())), device=values.device)
        mask = steps < valid[:, None]
        if not len(values):
            return torch.zeros(len(rows), 1, values.shape[1], device=self.device), mask.to(self.device)
        # padding repeats some row of the corpus: finite, and masked
        found = values[torch.where(mask, starts[rows][:, None] + steps, 0)].to(self.device)
        if modality in self._scales:
            mean, factor = self._scales[modality]
            found = found.sub_(mean).mul_(factor)
        return found, mask.to(self.device)


def _tensors(ragged: Ragged, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Values, starts and lengths on the device; on the CPU, and memory-mapped, where they would fill half of it."""
    if device == "cuda" and int(ragged.lengths.sum()) * ragged.width * 4 > torch.cuda.mem_get_info()[0] // 2:
        device = "cpu"
    elif device != "cpu":
        ragged = ragged.compact()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing is ever written to it
        values, starts, lengths = (torch.from_numpy(part) for part in (ragged.values, ragged.starts, ragged.lengths))
    return values.to(device), starts.to(device), lengths.to(device)
