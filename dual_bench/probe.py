"""The probe: what a trained model says of clean text with modalities taken away, exchanged, or kept from interacting.

Let f(a, v, t) (K,) be the logits of a voice, a face and a text, and i and j test utterances. Asked are

* ``absent:A``: the modalities A of i have no valid step. With the clean condition these are the eight values that
  Shapley values of three players need (Shapley 1953).
* ``permuted:A``: the modalities A of i come, together, from one other utterance. What the exchange costs is the
  perceptual score of A (Gat et al. 2021, NeurIPS).
* ``additive``: EMAP, the projection of f onto sums of a part that reads the text and one that reads the rest (Hessel &
  Lee 2020, EMNLP). With l_ij = f(a_j, v_j, t_i) it is mean_j l_ij + mean_j l_ji - mean_jk l_jk for utterance i. Where
  it does as well as f, the model owes nothing to interactions.

Departure: Hessel & Lee average over the whole test set, which costs n^2 evaluations. Here the test part is cut at
random into blocks, each a small test set of its own, which costs n times the size B of a block. What f has beyond the
additive is understated so: of the variance of an interaction that is independent from pair to pair, (1 - 1/B)^2 shows,
which is 88 % at B = 16.

Who exchanges with whom, and who shares a block, is drawn for a fold and is the same for all models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dual_bench.inputs import Resident
from dual_bench.seeding import generator
from dual_bench.training import answer, autocast, chunks, scores_of, without
from dual_bench.types import (
    ABSENT_PREFIX,
    ADDITIVE,
    MODALITIES,
    PERMUTED_PREFIX,
    SUBSETS,
    Batch,
    Condition,
    FloatArray,
    IntArray,
    Modality,
    Task,
)

_BLOCK = 16
"""Utterances, at most, that the additive projection averages over."""


@dataclass(frozen=True)
class Probe:
    """Test utterances ``rows`` (n,) of the corpus with their clean ``texts`` (n,), rows of ``Inputs.text``.

    ``donors`` (draws, n): the place among them of the utterance that modalities are exchanged for. ``blocks``: the
    places that share a block, every place once.
    """

    rows: IntArray
    texts: IntArray
    donors: IntArray
    blocks: tuple[IntArray, ...]


def drawn(rows: IntArray, texts: IntArray, draws: int, root_seed: int, fold: str) -> Probe:
    """The probe of a test part. In each draw utterances are paired at random and give to each other, three of them in a
    ring where their number is odd: so none has itself for its donor, but where it is alone. Blocks are of nearly equal
    size.

    Pairs, because what i says with the modalities A of j is what j says with all but A of i: one answer does for both.
    """
    n = len(rows)
    donors = np.empty((draws, n), np.int64)
    for draw in range(draws):
        order = generator("permutation", root_seed, fold, draw).permutation(n)
        paired = order[: n - n % 2]
        donors[draw, paired] = paired.reshape(-1, 2)[:, ::-1].ravel()
        if n % 2:
            donors[draw, order[-3:]] = np.roll(order[-3:], 1)
    shuffled = generator("blocks", root_seed, fold).permutation(n)
    return Probe(rows, texts, donors, tuple(np.array_split(shuffled, -(-n // _BLOCK))))


def conditions(draws: int) -> tuple[Condition, ...]:
    """What a model is asked, in the order of its answers."""
    names = ["+".join(subset) for subset in SUBSETS]
    absent = (Condition(f"{ABSENT_PREFIX}{name}", 1.0) for name in names)
    permuted = (Condition(f"{PERMUTED_PREFIX}{name}", 1.0, draw) for name in names for draw in range(draws))
    return (*absent, *permuted, Condition(ADDITIVE, 1.0))


def probe(module: Any, resident: Resident, task: Task, wanted: Probe) -> NDArray[np.float32]:
    """Scores (conditions, n, K), in the order of ``conditions``."""
    n = len(wanted.rows)
    own, questions = _asked(wanted)
    logits = _logits(module, resident, np.concatenate([*questions, *_pairs(own, wanted.blocks)], axis=1))
    plain = len(questions) * n
    additive, start = np.empty((n, logits.shape[1]), np.float32), plain
    for block in wanted.blocks:
        size = len(block)
        additive[block] = projected(logits[start : start + size**2].reshape(size, size, -1))
        start += size**2
    scores = scores_of(task, torch.from_numpy(np.concatenate([logits[:plain], additive])))
    return scores.numpy().reshape(-1, n, logits.shape[1])


def _asked(wanted: Probe) -> tuple[IntArray, list[IntArray]]:
    """The rows (3, n) of the utterances in the order of ``MODALITIES``, and those that are asked about under each
    condition but the additive."""
    own = np.stack([wanted.rows, wanted.rows, wanted.texts])
    taken = [np.isin(MODALITIES, subset)[:, None] for subset in SUBSETS]
    absent = [np.where(gone, -1, own) for gone in taken]
    permuted = [np.where(gone, own[:, donor], own) for gone in taken for donor in wanted.donors]
    return own, [*absent, *permuted]


def distinct(wanted: Probe, reads: frozenset[Modality]) -> IntArray:
    """A number for each answer under each condition but the additive (conditions, n): equal where a model that reads
    no more than this is asked the same."""
    read = np.isin(MODALITIES, list(reads))[:, None]
    _, which = np.unique(np.where(read, np.concatenate(_asked(wanted)[1], axis=1), 0), axis=1, return_inverse=True)
    found: IntArray = which.reshape(-1, len(wanted.rows))
    return found


def _pairs(own: IntArray, blocks: tuple[IntArray, ...]) -> Iterator[IntArray]:
    """For each block of B the texts of all with the voices and faces of all, text after text: (3, B * B)."""
    for block in blocks:
        heard, read = np.tile(block, len(block)), np.repeat(block, len(block))
        yield np.stack([own[0, heard], own[1, heard], own[2, read]])


def projected(logits: FloatArray) -> FloatArray:
    """The additive projection (B, K) of logits (B, B, K) of text i with voice and face j, at the pairs ii.

    >>> interaction = np.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    >>> projected(interaction).ravel().tolist()
    [0.5, 0.5]
    """
    logits = logits.astype(np.float64)
    found: FloatArray = logits.mean(axis=1) + logits.mean(axis=0) - logits.mean(axis=(0, 1))
    return found


@torch.no_grad()
def _logits(module: Any, resident: Resident, asked: IntArray) -> NDArray[np.float32]:
    """Logits (m, K) of ``asked`` (3, m): rows of voice, face and text, -1 where there is none.

    What is asked twice, as far as the model can tell, is answered once. A model with a trunk pays once for each voice
    with a face, however many texts it is asked about.
    """
    module.eval()
    read = np.isin(MODALITIES, list(resident.reads))[:, None]
    triples, which = np.unique(np.where(read, asked, 0), axis=1, return_inverse=True)
    parts = []
    with autocast(resident.device):
        if getattr(module, "text_enters_late", False):
            heard, where = np.unique(triples[:2], axis=1, return_inverse=True)
            states = _States(module, resident, heard)
            for piece in chunks(triples.shape[1]):
                state = states.of(where.ravel()[piece])
                parts.append(module.decode(state, *_text(resident, triples[2, piece])))
        else:
            parts = [answer(module, _batch(resident, triples[:, piece])).logits for piece in chunks(triples.shape[1])]
    return torch.cat(parts).float().cpu().numpy()[which.ravel()]


class _States:
    """The states of a trunk for pairs ``heard`` (2, m) of rows of voice and face, asked for in ascending order: made
    when they are, and dropped when they are passed, as all of them may be more than memory."""

    def __init__(self, module: Any, resident: Resident, heard: IntArray) -> None:
        self._module = module
        self._resident = resident
        self._met = np.concatenate([heard, np.zeros_like(heard[:1])])  # a text that nothing reads
        self._coming = iter(chunks(heard.shape[1]))
        self._first, self._end = 0, 0
        self._held: list[torch.Tensor] = []

    def of(self, numbers: IntArray) -> torch.Tensor:
        """The states of pairs by number (n,), ascending; none may come before the first of those asked for last."""
        while self._end <= numbers[-1]:
            piece = next(self._coming)
            self._held.append(self._module.trunk(_batch(self._resident, self._met[:, piece])))
            self._end += len(self._held[-1])
        while self._first + len(self._held[0]) <= numbers[0]:
            self._first += len(self._held.pop(0))
        there = torch.from_numpy(numbers - self._first).to(self._resident.device)
        return torch.cat(self._held)[there]


def _batch(resident: Resident, triples: IntArray) -> Batch:
    """Voices, faces and texts of the rows ``triples`` (3, B); no valid step where a row is -1."""
    voices, faces, texts = np.maximum(triples, 0)
    return without(resident.batch(voices, texts, faces), dict(zip(MODALITIES, triples < 0, strict=True)))


def _text(resident: Resident, texts: IntArray) -> tuple[torch.Tensor, torch.Tensor]:
    """The texts alone, likewise."""
    padded, mask = resident.text(np.maximum(texts, 0))
    return padded, mask & torch.from_numpy(texts >= 0).to(mask.device)[:, None]


def settled(probed: NDArray[np.float32], clean: NDArray[np.float32], reads: frozenset[Modality]) -> NDArray[np.float32]:
    """The scores ``probed`` (conditions, n, K), or the ``clean`` (n, K) ones where all that a model ``reads`` is left.

    They are equal but for rounding, which depends on who shares a batch; to the bit, a modality that is not read is
    worth exactly nothing. So it is with the additive projection of a model that reads no text, or nothing else.
    """
    untouched = [reads.isdisjoint(subset) for subset in SUBSETS]
    draws = (len(probed) - 1) // len(SUBSETS) - 1
    same = [*untouched, *np.repeat(untouched, draws), "text" not in reads or len(reads) == 1]
    return np.where(np.array(same)[:, None, None], clean, probed)
