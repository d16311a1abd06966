"""What a folder of raw media holds, and what is wrong with it: ``dual-bench data check``."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from math import isfinite, nan
from statistics import median

import numpy as np
from pydantic import BaseModel, ConfigDict

from dual_bench.datasets.assemble import check_utterances, folds_of
from dual_bench.datasets.extracted import MEDIA
from dual_bench.datasets.source import Source
from dual_bench.features.decode import CRASHED, attempt
from dual_bench.features.media import Clip, Picture, frames, probe, sound
from dual_bench.features.mixing import SAMPLE_RATE
from dual_bench.processes import cores, spread
from dual_bench.types import Modality, Report, Signal, UserError


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fault(_Record):
    """A clip that is missing or does not decode, and why."""

    utterance: str
    file: str
    reason: str


class Media(_Record):
    """The clips of one modality; features that the folder holds already have no file, and nothing can fail."""

    clips: int
    """Utterances whose row names one."""
    missing: tuple[Fault, ...]
    broken: tuple[Fault, ...]
    silent: tuple[str, ...]
    """Utterances in whose sound every sample is zero."""
    beyond: tuple[str, ...]
    """Utterances whose row asks for more than half a second behind the end of the file."""
    hours: float
    seconds: tuple[float, float, float] | None
    """Shortest, median and longest clip; None where none decodes."""
    formats: dict[str, int]
    """How many clips are coded so."""


class Part(_Record):
    """One split or fold."""

    utterances: int
    clusters: int
    speakers: int
    """Those that have a name."""
    classes: dict[str, int]
    """Utterances of each class; empty where values are predicted."""


class Duplicate(_Record):
    """The same words by the same speaker in two parts; where speakers have no name, they count as one."""

    text: str
    speaker: str
    utterances: dict[str, tuple[str, ...]]
    """By part."""


class Inspection(_Record):
    """All that was found."""

    name: str
    layout: str
    utterances: int
    parts: dict[str, Part]
    media: dict[Modality, Media]
    duplicates: tuple[Duplicate, ...]
    deviations: tuple[str, ...]
    unused: tuple[str, ...]
    """Media files that no row names."""
    decoded: bool
    """Whether every clip was decoded to its end, or only opened."""

    @property
    def faults(self) -> int:
        """Clips that are missing or do not decode."""
        return sum(len(media.missing) + len(media.broken) for media in self.media.values())


@dataclass(frozen=True)
class Seen:
    """What one clip turned out to be; ``reason`` says why it gives nothing, or is empty."""

    reason: str
    seconds: float = nan
    """NaN where the file does not say, and was only opened."""
    format: str = ""
    silent: bool = False
    beyond: bool = False


def inspect(source: Source, layout: str, decode: bool, jobs: int, report: Report) -> Inspection:
    """Look at every clip of ``source``, by ``jobs`` processes (0: one a core); ``decode``: to its end."""
    part_of = source.folds or tuple(u.split for u in source.utterances)
    parts = {}
    for part in dict.fromkeys(part_of):
        here = [u for u, where in zip(source.utterances, part_of, strict=True) if where == part]
        counts = Counter(u.target for u in here)
        parts[part] = Part(
            utterances=len(here),
            clusters=len({u.cluster for u in here}),
            speakers=len({u.speaker for u in here} - {""}),
            classes={name: counts[i] for i, name in enumerate(source.task.classes)},
        )
    return Inspection(
        name=source.name,
        layout=layout,
        utterances=len(source.utterances),
        parts=parts,
        media={m: _media(source, m, decode, jobs or cores(), report) for m in MEDIA if m in source.media},
        duplicates=_duplicates(source, part_of),
        deviations=(*source.deviations, *_unfit(source)),
        unused=tuple(str(path) for path in source.unused),
        decoded=decode,
    )


def look(clip: Clip, modality: Modality, decode: bool) -> Seen:
    """Open a clip, and ``decode`` it to its end."""
    seen = attempt(lambda: _look(clip, modality, decode))
    return Seen(seen) if isinstance(seen, str) else seen


def _look(clip: Clip, modality: Modality, decode: bool) -> Seen:
    facts = probe(clip.path)
    seconds = min(clip.end, facts.seconds) - clip.start
    beyond = isfinite(clip.end) and clip.end > facts.seconds + 0.5
    if modality == "audio":
        if facts.sound is None:
            return Seen("has no audio track")
        coded = f"{facts.sound.codec}, {facts.sound.rate} Hz, {facts.sound.layout}"
        if not decode:
            return Seen("", seconds, coded, beyond=beyond)
        samples = sound(clip)
        return Seen("", len(samples) / SAMPLE_RATE, coded, silent=not np.any(samples), beyond=beyond)
    if facts.pictures is None:
        return Seen("has no video track")
    shown = facts.pictures
    if decode:
        frames(clip, 1.0, Picture(32, 32, colour=False))
    coded = f"{shown.codec}, {shown.width}x{shown.height}, {shown.rate:.4g} frames a second"
    return Seen("", seconds, coded, beyond=beyond)


def _media(source: Source, modality: Modality, decode: bool, jobs: int, report: Report) -> Media:
    signal = source.media[modality]
    if isinstance(signal, Signal):
        lengths = [len(item) for item in signal.items if len(item)]
        return Media(
            clips=len(lengths), missing=(), broken=(), silent=(), beyond=(), hours=0.0, seconds=None,
            formats={f"features, {min(lengths)} to {max(lengths)} steps": len(lengths)} if lengths else {},
        )  # fmt: skip
    clips = [(i, clip) for m, i, clip in source.clips() if m == modality]
    tasks = [(clip, modality, decode) for _, clip in clips]
    missing: list[Fault] = []
    broken: list[Fault] = []
    silent: list[str] = []
    beyond: list[str] = []
    seconds: list[float] = []
    formats = Counter[str]()
    for done, ((i, clip), seen) in enumerate(zip(clips, spread(look, tasks, jobs), strict=True)):
        report(modality, done + 1, len(clips), "decoding" if decode else "opening")
        name = source.utterances[i].id
        seen = seen or Seen(CRASHED)
        if seen.reason:
            where = broken if clip.path.is_file() else missing
            where.append(Fault(utterance=name, file=str(clip.path), reason=seen.reason))
            continue
        if isfinite(seen.seconds):
            seconds.append(seen.seconds)
        formats[seen.format] += 1
        if seen.silent:
            silent.append(name)
        if seen.beyond:
            beyond.append(name)
    return Media(
        clips=len(clips),
        missing=tuple(missing),
        broken=tuple(broken),
        silent=tuple(silent),
        beyond=tuple(beyond),
        hours=sum(seconds) / 3600,
        seconds=(min(seconds), median(seconds), max(seconds)) if seconds else None,
        formats=dict(formats.most_common()),
    )


def _unfit(source: Source) -> list[str]:
    """Why no study can be made of it, if none can."""
    try:
        folds_of(source.utterances, source.folds)
        check_utterances(source.task, source.utterances)
    except UserError as error:
        return [f"no study can be made of it: {error}"]
    return []


def _duplicates(source: Source, part_of: tuple[str, ...]) -> tuple[Duplicate, ...]:
    """Words that one speaker says in two parts; case and white space make no difference."""
    where: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for utterance, part in zip(source.utterances, part_of, strict=True):
        words = " ".join(utterance.text.casefold().split())
        if words:
            where[words, utterance.speaker][part].append(utterance.id)
    return tuple(
        Duplicate(text=text, speaker=speaker, utterances={part: tuple(ids) for part, ids in found.items()})
        for (text, speaker), found in where.items()
        if len(found) > 1
    )
