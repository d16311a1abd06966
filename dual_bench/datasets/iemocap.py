"""IEMOCAP (Busso et al. 2008): ``IEMOCAP_full_release`` as USC SAIL sends it to those who signed its licence.

In each of ``Session1`` to ``Session5``, ``dialog/EmoEvaluation/<dialogue>.txt`` has a line
``[6.2901 - 8.2357]<tab>Ses01F_impro01_F000<tab>neu<tab>[2.5, 2.5, 2.5]`` for each utterance,
``dialog/transcriptions/<dialogue>.txt`` a line ``Ses01F_impro01_F000 [006.2901-008.2357]: text``, the sound is
``sentences/wav/<dialogue>/<utterance>.wav``, and ``dialog/avi/DivX/<dialogue>.avi`` shows both actors side by side. The
release also holds files ``._*`` of another file system, which say nothing.

The letter after the session tells who wears the markers of the motion capture, that before the number who speaks
(README.txt of the release). Who wears markers is in the left half of the picture: so cut
https://github.com/IoannisKansizoglou/Iemocap-preprocess (extractionmapCreator.py, for both letters) and others after
it; no source was found that says otherwise, and none of the owners' that says so.

``classes=4`` joins excited to happy: 1,103 angry, 1,636 happy, 1,084 sad and 1,708 neutral, 5,531 in all (as in
https://github.com/enmwmak/Teaching, FYP/SER/readme.md). ``classes=6`` keeps the two apart and adds 1,849 frustrated:
595 + 1,041 + 1,084 + 1,708 + 1,103 + 1,849 = 7,380. Preprocessed files that papers on conversations share count 7,433;
their users found no labels for the other 53, and the code that made them is not published
(https://github.com/zerohd4869/MM-DFN/issues/14, https://github.com/Yu-Fangxu/EACL/issues/8).

Each session is a fold (leave-one-session-out): no actor is in two.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from dual_bench.catalog import validated
from dual_bench.datasets.source import Layout, Source, counted, some
from dual_bench.features.media import Clip
from dual_bench.limits import CORPUS, read_bytes
from dual_bench.types import Task, UserError, Utterance

LICENCE = "IEMOCAP: research licence of USC SAIL (https://sail.usc.edu/iemocap/); nothing of it may be passed on"
SESSIONS = tuple(f"Session{number}" for number in range(1, 6))
CLASSES = {
    4: {"ang": "angry", "hap": "happy", "exc": "happy", "sad": "sad", "neu": "neutral"},
    6: {"hap": "happy", "sad": "sad", "neu": "neutral", "ang": "angry", "exc": "excited", "fru": "frustrated"},
}
"""What each label of a protocol is called, in the order of the scores."""
PUBLISHED = {
    4: {"angry": 1103, "happy": 1636, "sad": 1084, "neutral": 1708},
    6: {"happy": 595, "sad": 1084, "neutral": 1708, "angry": 1103, "excited": 1041, "frustrated": 1849},
}
"""Utterances of each class."""
_LABEL = re.compile(r"\[(\d+(?:\.\d+)?) - (\d+(?:\.\d+)?)\]\t(\S+)\t(\w+)\t")
_TEXT = re.compile(r"(\S+) \[\d+(?:\.\d+)?-\d+(?:\.\d+)?\]:(.*)")
_NAME = re.compile(r"(Ses\d\d)([FM])_\w+_([FM])\w+")


class IemocapSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: Literal[4, 6] = 4


@dataclass(frozen=True)
class _Line:
    """One utterance, as its dialogue's label file has it."""

    session: str
    dialogue: str
    id: str
    label: str
    start: float
    end: float


def read(path: Path, /, **settings: object) -> Source:
    """The utterances of the protocol's classes with their clips; UserError where a line cannot be understood."""
    chosen = validated(IemocapSettings, settings, "iemocap")
    root = _root(path)
    if root is None:
        raise UserError(
            f"{path} holds no Session1/dialog/EmoEvaluation; expected IEMOCAP_full_release, or what is in it"
        )
    lines = [line for session in SESSIONS for line in _labels(root, session)]
    names = CLASSES[chosen.classes]
    classes = tuple(dict.fromkeys(names.values()))
    kept = [line for line in lines if line.label in names]
    texts = {key: text for session in SESSIONS for key, text in _texts(root / session / "dialog" / "transcriptions")}
    utterances = [_utterance(line, texts.get(line.id, ""), classes.index(names[line.label])) for line in kept]
    sounds = [Clip(_sound(root, line)) for line in kept]
    films = [_film(root, line) for line in kept]
    every = (p for session in SESSIONS for p in (root / session / "sentences" / "wav").glob("*/*.wav"))
    unused = sorted({p for p in every if not p.name.startswith("._")} - {_sound(root, line) for line in lines})
    deviations = [
        *(f"{session} is missing" for session in SESSIONS if not (root / session).is_dir()),
        *_left_out(lines, kept, chosen.classes),
        *_counts(Counter(names[line.label] for line in kept), chosen.classes),
        *_gone("transcription", [line.id for line in kept if line.id not in texts]),
        *_gone("sound file", [clip.path.name for clip in sounds if not clip.path.is_file()]),
        *_gone("film", sorted({clip.path.name for clip in films if not clip.path.is_file()})),
        *(
            [f"{counted(len(unused), 'sound file')} without a label: {some([p.name for p in unused])}"]
            if unused
            else []
        ),
    ]
    return Source(
        "iemocap",
        Task("classification", classes),
        tuple(utterances),
        tuple(line.session for line in kept),
        {"audio": sounds, "vision": films},
        LICENCE,
        (),
        tuple(deviations),
        tuple(unused),
    )


def _root(path: Path) -> Path | None:
    places = (path, path / "IEMOCAP_full_release")
    return next(
        (p for p in places for session in SESSIONS if (p / session / "dialog" / "EmoEvaluation").is_dir()), None
    )


def _lines(folder: Path) -> Iterator[tuple[Path, int, str]]:
    """The lines of a folder's text files, and where they stand. A file that is not UTF-8 is Latin-1: annotators' notes
    hold a few such bytes, which no line that is read does."""
    for file in sorted(folder.glob("Ses*.txt")):
        content = read_bytes(file, CORPUS, str(file))
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        for number, line in enumerate(text.split("\n"), start=1):
            yield file, number, line


def _labels(root: Path, session: str) -> Iterator[_Line]:
    seen: set[str] = set()
    for file, number, line in _lines(root / session / "dialog" / "EmoEvaluation"):
        if not line.startswith("["):
            continue
        found = _LABEL.match(line)
        if not found or not (name := _NAME.fullmatch(found[3])) or name[0].rpartition("_")[0] != file.stem:
            raise UserError(
                f"{file}, line {number}: expected '[start - end]', an utterance of {file.stem} and its label, "
                f"parted by tabs, found '{line[:80]}'"
            )
        start, end = float(found[1]), float(found[2])
        if start >= end:
            raise UserError(f"{file}, line {number}: {found[3]} starts at {start:g} s and ends at {end:g} s")
        if found[3] in seen:
            raise UserError(f"{file}, line {number}: {found[3]} has a label already")
        seen.add(found[3])
        yield _Line(session, file.stem, found[3], found[4], start, end)


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    for _, _, line in _lines(folder):
        if found := _TEXT.fullmatch(line):
            yield found[1], found[2].strip()


def _utterance(line: _Line, text: str, target: int) -> Utterance:
    speaker = f"{line.id[:5]}_{line.id.rpartition('_')[2][0]}"
    return Utterance(line.id, "test", line.dialogue, speaker, text, float(target))


def _sound(root: Path, line: _Line) -> Path:
    return root / line.session / "sentences" / "wav" / line.dialogue / f"{line.id}.wav"


def _film(root: Path, line: _Line) -> Clip:
    """The utterance's stretch of its dialogue, and the half that shows who speaks."""
    speaks, wears_markers = line.id.rpartition("_")[2][0], line.id[5]
    path = root / line.session / "dialog" / "avi" / "DivX" / f"{line.dialogue}.avi"
    return Clip(path, line.start, line.end, "left" if speaks == wears_markers else "right")


def _left_out(lines: list[_Line], kept: list[_Line], classes: int) -> list[str]:
    left = Counter(line.label for line in lines) - Counter(line.label for line in kept)
    if not left:
        return []
    listed = ", ".join(f"{number:,} {label}" for label, number in left.most_common())
    return [f"{counted(left.total(), 'utterance')} with a label outside the {classes} classes left out: {listed}"]


def _counts(found: Counter[str], classes: int) -> list[str]:
    expected = PUBLISHED[classes]
    if found == expected:
        return []
    listed = ", ".join(f"{found[name]:,} {name} ({number:,})" for name, number in expected.items())
    return [f"counts differ from the published ones, in brackets: {listed}"]


def _gone(what: str, names: list[str]) -> list[str]:
    return [f"{counted(len(names), what)} missing: {some(names)}"] if names else []


def _recognises(path: Path) -> bool:
    return _root(path) is not None


LAYOUT = Layout("iemocap", _recognises, read)
