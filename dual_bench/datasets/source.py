"""What a reader of raw media finds in a folder, before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dual_bench.features.media import Clip
from dual_bench.types import Modality, Signal, Task, Utterance


@dataclass(frozen=True)
class Source:
    """Utterances in the order of their tables, and where the voice and face of each lie."""

    name: str
    task: Task
    utterances: tuple[Utterance, ...]
    folds: tuple[str, ...] | None
    """The fold in which each utterance tests; None where the utterances have official splits."""
    media: Mapping[Modality, Sequence[Clip | None] | Signal]
    """For ``audio`` and ``vision`` a clip of each utterance, None where its table names none (a clip whose file is
    missing is a clip); or features that the folder holds already."""
    licence: str
    notes: tuple[str, ...] = ()
    """Sentences that every report must open with."""
    deviations: tuple[str, ...] = ()
    """Whatever is otherwise than published: counts, files that the owners' users know to be broken or missing."""
    unused: tuple[Path, ...] = ()
    """Media files that no row names."""


@dataclass(frozen=True)
class Layout:
    """How the owners of a corpus arrange it. ``read(path, **settings)`` gives a ``Source``; UserError where the tables
    are at fault. ``recognises(path)`` says whether a folder or file looks so, and opens as little as possible."""

    name: str
    recognises: Callable[[Path], bool]
    read: Callable[..., Source]
