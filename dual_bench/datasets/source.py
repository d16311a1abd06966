"""What a reader of raw media finds in a folder, before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dual_bench.catalog import LAYOUTS, Settings, parse_spec
from dual_bench.features.media import Clip
from dual_bench.types import Modality, Signal, Task, UserError, Utterance


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

    def clips(self) -> Iterator[tuple[Modality, int, Clip]]:
        """Every clip that the tables name, with its modality and the number of its utterance."""
        for modality, media in self.media.items():
            if not isinstance(media, Signal):
                yield from ((modality, i, clip) for i, clip in enumerate(media) if clip is not None)


@dataclass(frozen=True)
class Layout:
    """How the owners of a corpus arrange it. ``read(path, **settings)`` gives a ``Source``; UserError where the tables
    are at fault. ``recognises(path)`` says whether a folder or file looks so, and opens as little as possible."""

    name: str
    recognises: Callable[[Path], bool]
    read: Callable[..., Source]


def find_layout(path: Path, spec: str | None = None) -> tuple[Layout, Settings]:
    """The layout that ``spec`` names (``meld:quotes=plain``), or the first in the catalogue that recognises ``path``,
    and its settings. UserError tells what each layout looks for where none does."""
    if not path.exists():
        raise UserError(f"{path} is missing; expected the folder or file of a corpus")
    if spec is not None:
        name, settings = parse_spec(spec)
        return LAYOUTS.load(name), settings
    for name in LAYOUTS.parts:
        layout: Layout = LAYOUTS.load(name)
        if layout.recognises(path):
            return layout, {}
    known = "; ".join(f"{name}: {entry.summary}" for name, entry in LAYOUTS.parts.items())
    raise UserError(f"{path} is arranged like no corpus that is known ({known}); name a layout with --layout")


def some(names: Sequence[str], count: int = 5) -> str:
    """A list for people: all names where they are few, else the first."""
    return ", ".join(names) if len(names) <= count else f"{', '.join(names[:count])} and {len(names) - count:,} more"


def counted(number: int, one: str, many: str = "") -> str:
    """A number and its noun.

    >>> counted(1, "row"), counted(2610, "row")
    ('1 row', '2,610 rows')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
