"""What every encoder of sound, pictures or words is, and how one is named: ``wav2vec2:layer=9``.

An encoder is a name, a width, and items to feature sequences. Building one loads nothing: its weights are looked for
when its name is asked for, and read when the first item has to be encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from dual_bench.catalog import ENCODERS, did_you_mean, joined_spec, parse_spec, validated
from dual_bench.features.media import Picture
from dual_bench.types import MODALITIES, Modality, UserError

DEFAULTS: Mapping[Modality, str] = {"audio": "log-mel", "vision": "frame-dct", "text": "sentence-transformers"}
"""None of them needs a download."""
_AHEAD = 8
"""How many batches are looked ahead for items of like length."""


class Encoder(Protocol):
    """Waveforms (samples,) float32, or frames (frames, height, width[, 3]) uint8, to sequences (steps, ``width``).

    An item's features depend on nothing but the item: not on what else is in a batch, beyond the last bits. On the CPU
    ``batch`` is 1, so that not even those do.
    """

    @property
    def name(self) -> str:
        """Identifies every setting, and the weights by their digest; features are cached under it."""

    @property
    def width(self) -> int:
        """Features a step."""

    @property
    def rate(self) -> float:
        """Steps a second; of pictures, also how many are to be given. NaN where an item is one step."""

    @property
    def batch(self) -> int:
        """How many items, at most, are well given at once: 1 where a batch is no faster."""

    def encode(self, items: Sequence[NDArray[np.generic]], rate: float) -> list[NDArray[np.float32]]:
        """Items at ``rate`` samples or frames a second, each to (steps, width); an empty item gives no steps."""


class PictureEncoder(Encoder, Protocol):
    """One that reads pictures."""

    @property
    def picture(self) -> Picture:
        """How it wants to be given them."""


class TextEncoder(Protocol):
    """Words to the embeddings of their tokens. The last bits depend on the batch (``features.text.encode_texts``).

    It may further offer ``lengths(texts) -> (n,)``, the tokens of each text, by which batches are made; otherwise its
    characters tell.
    """

    @property
    def name(self) -> str:
        """Identifies the weights and every setting; embeddings are cached under it."""

    @property
    def width(self) -> int:
        """Features a token."""

    @property
    def device(self) -> str:
        """Where it computes."""

    @property
    def unknown(self) -> str:
        """The text of the unknown token; UserError where the tokenizer has none."""

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """One forward pass: each text to (tokens, width); a text without words to (0, width)."""


@dataclass(frozen=True)
class EncoderSpec:
    """What the catalogue holds: ``build(settings, device)`` gives an ``Encoder``, of pictures a ``PictureEncoder``, of
    words a ``TextEncoder``. It may raise UserError for what is not installed or not known, and loads no weights."""

    name: str
    modality: Modality
    settings: type[BaseModel]
    build: Callable[[Any, str], Any]


def _spec_of(name: str) -> EncoderSpec:
    spec = ENCODERS.load(name)
    if not isinstance(spec, EncoderSpec):
        raise UserError(f"encoder '{name}': expected a dual_bench.features.encoder.EncoderSpec, found {spec!r}")
    return spec


def _of(modality: Modality, text: str, device: str) -> Any:
    name, given = parse_spec(text)
    spec = _spec_of(name)
    if spec.modality != modality:
        raise UserError(f"encoder '{name}' reads {spec.modality}, not {modality}; `dual-bench list encoders` tells")
    return spec.build(validated(spec.settings, given, f"encoder '{name}'"), device)


def audio_encoder(spec: str = "", device: str = "cpu") -> Encoder:
    """The encoder of sound that ``spec`` names, by default log-mel; UserError where there is none."""
    return cast(Encoder, _of("audio", spec or DEFAULTS["audio"], device))


def picture_encoder(spec: str = "", device: str = "cpu") -> PictureEncoder:
    """The same of pictures, by default frame-dct."""
    return cast(PictureEncoder, _of("vision", spec or DEFAULTS["vision"], device))


def text_encoder(spec: str = "", device: str = "cpu") -> TextEncoder:
    """The same of words, by default all-MiniLM-L6-v2."""
    return cast(TextEncoder, _of("text", spec or DEFAULTS["text"], device))


@dataclass(frozen=True)
class Encoders:
    """One for each modality."""

    audio: Encoder
    vision: PictureEncoder
    text: TextEncoder


def encoders_of(chosen: Mapping[str, str], device: str = "cpu") -> Encoders:
    """Those that ``chosen`` names by modality, and the defaults for the rest; UserError where a name is unknown."""
    for modality in chosen:
        if modality not in MODALITIES:
            raise UserError(f"encoders: unknown modality '{modality}'{did_you_mean(modality, MODALITIES)}")
    return Encoders(
        audio_encoder(chosen.get("audio", ""), device),
        picture_encoder(chosen.get("vision", ""), device),
        text_encoder(chosen.get("text", ""), device),
    )


def by_modality(values: Iterable[str]) -> dict[str, str]:
    """``MODALITY=NAME`` as the command line has it; UserError for something else, or a modality twice.

    >>> by_modality(["audio=wav2vec2:layer=9"])
    {'audio': 'wav2vec2:layer=9'}
    """
    found: dict[str, str] = {}
    for value in values:
        modality, equals, spec = value.partition("=")
        if not (equals and spec) or modality in found:
            what = f"'{modality}' twice" if modality in found else f"'{value}'"
            raise UserError(f"--encoder: expected MODALITY=NAME, as in audio=log-mel, once each, found {what}")
        found[modality] = spec
    return found


def with_settings(spec: str, settings: Mapping[str, str]) -> str:
    """An encoder with ``settings`` in place of its own, as it was where they change nothing, and without those of them
    that are its defaults: so that what is the same has the same name. UserError where it does not know them.

    >>> with_settings("sentence-transformers:model=mine,precision=bf16", {"precision": "fp32", "backend": "openvino"})
    'sentence-transformers:backend=openvino,model=mine'
    >>> with_settings("sentence-transformers", {"precision": "fp32"})
    'sentence-transformers'
    """
    name, given = parse_spec(spec)
    kind = _spec_of(name).settings
    before, after = (validated(kind, each, f"encoder '{name}'") for each in (given, {**given, **settings}))
    if after == before:
        return spec
    usual = {key for key in settings if getattr(after, key) == kind.model_fields[key].default}
    kept = {key: value for key, value in {**given, **settings}.items() if key not in usual}
    return joined_spec(name, kept)


def encode_in_batches(
    encoder: Encoder, items: Iterable[tuple[int, NDArray[np.generic]]], rate: float
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(position, item) at ``rate`` samples or frames a second to (position, rows), in any order.

    Items of like length are encoded together. No more than 8 batches of items are held at a time, and where a batch is
    one item, no more than that one.
    """
    coming, size = iter(items), encoder.batch
    while held := list(islice(coming, size * _AHEAD if size > 1 else 1)):
        held.sort(key=lambda entry: len(entry[1]))
        for start in range(0, len(held), size):
            part = held[start : start + size]
            found = encoder.encode([item for _, item in part], rate)
            yield from zip((position for position, _ in part), found, strict=True)
