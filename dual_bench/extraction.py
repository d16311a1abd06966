"""Raw media to a folder of features, once: ``dual-bench data extract``.

Sound and pictures are decoded by worker processes, features are made here, on the device that the encoders are on. What
is finished is known by its content, the bytes of the media file and every setting, so an extraction that was stopped
goes on, and one with another encoder decodes no sound again. A clip that fails keeps its utterance and loses its voice
or face: n is the same under every condition.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, isnan
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from dual_bench.datasets.assemble import check_utterances, folds_of
from dual_bench.datasets.extracted import (
    MEDIA,
    PROBLEMS,
    RECORD,
    TABLE,
    VERSION,
    Extracted,
    Features,
    Wavs,
    read_record,
    read_table,
)
from dual_bench.datasets.source import Source
from dual_bench.durable import sha256_of
from dual_bench.features.cache import content_key
from dual_bench.features.decode import CRASHED, pictures, write_sound
from dual_bench.features.encoder import Encoder, PictureEncoder, encode_in_batches
from dual_bench.features.media import Clip
from dual_bench.features.mixing import SAMPLE_RATE
from dual_bench.features.rows import FeatureStore
from dual_bench.plan import installed
from dual_bench.processes import cores, spread
from dual_bench.spreadsheet import neutral
from dual_bench.store import check_unlinked, replacing, write_text
from dual_bench.types import Modality, Ragged, Report, Signal, UserError, telling

_VERSION = "v1"
"""Of what decoding gives; raised where the same file would give something else."""


@dataclass(frozen=True)
class Problem:
    """Why a clip gives no sound or no pictures."""

    utterance: str
    modality: Modality
    file: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What an extraction came to: the ``problems``, and how many clips were ``decoded`` or features copied now."""

    folder: Path
    utterances: int
    problems: tuple[Problem, ...]
    decoded: int


@dataclass(frozen=True)
class _Part:
    """One modality: what made it, the sequence of each utterance, and why some have none."""

    made: Features
    rows: Ragged
    reasons: Mapping[int, str]
    decoded: int


def extract(
    source: Source,
    layout: str,
    folder: Path,
    audio: Encoder,
    vision: PictureEncoder,
    made_by: str,
    jobs: int,
    report: Report,
) -> Outcome:
    """Write ``folder``, whole when its ``corpus.json`` is there. UserError where it is not a place to write to.

    ``jobs`` processes decode; 0: one a core.
    """
    jobs = jobs or cores()
    _check(source, audio, vision)
    if folder.exists() and not all(_MINE.fullmatch(path.name) for path in folder.iterdir()):
        raise UserError(f"{folder} holds something else than an extraction; name another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    for place in (folder, *filter(Path.is_dir, folder.iterdir())):
        check_unlinked(place)
    with _claimed(folder):
        _check_same(source, folder)
        digests = _digests(source, report)
        parts: dict[Modality, _Part] = {}
        sounds: _Sounds | None = None
        for modality in MEDIA:
            media = source.media.get(modality)
            if isinstance(media, Signal):
                parts[modality] = _copied(media, modality, layout, folder, report)
            elif media is not None and modality == "audio":
                sounds = _sounds(media, digests, folder, jobs, report)
                parts[modality] = _voices(sounds, audio, folder, report)
            elif media is not None:
                parts[modality] = _faces(media, digests, vision, folder, jobs, report)
        problems = _problems(source, parts)
        (folder / RECORD).unlink(missing_ok=True)  # until the new one is there, the folder is not finished
        _write_table(source, parts, sounds, folder)
        with replacing(folder / PROBLEMS) as temporary:
            table = pd.DataFrame(problems, columns=["utterance", "modality", "file", "reason"])
            table.map(neutral).to_csv(temporary, index=False)
        record = _record(source, layout, parts, sounds is not None, sha256_of(folder / TABLE), made_by)
        write_text(folder / RECORD, record.model_dump_json(indent=1) + "\n")
    return Outcome(folder, len(source.utterances), problems, sum(part.decoded for part in parts.values()))


_MINE = re.compile(rf"lock|sound|(audio|vision)-\w+|\.?({'|'.join(map(re.escape, (RECORD, TABLE, PROBLEMS)))})(\..*)?")
"""What an extraction has in its folder, temporary files included."""


def _check(source: Source, audio: Encoder, vision: PictureEncoder) -> None:
    """UserError where no study could be made of it, or an encoder lacks its weights: before hours are spent."""
    folds_of(source.utterances, source.folds)
    check_utterances(source.task, source.utterances)
    with_clips = {modality for modality, _, _ in source.clips()}
    for modality, encoder in (("audio", audio), ("vision", vision)):
        if modality in with_clips:
            _ = encoder.name, encoder.width


def _check_same(source: Source, folder: Path) -> None:
    """UserError where the folder is that of another corpus."""
    try:
        before = read_record(folder)
    except UserError:  # nothing finished, or of an older kind
        return
    if before.name != source.name:
        raise UserError(
            f"{folder} holds an extraction of '{before.name}', not of '{source.name}'; name another folder with --out"
        )


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Nobody else extracts into ``folder``; UserError where somebody does."""
    lock = FileLock(folder / "lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process is extracting into {folder}; wait for it, or name another folder") from None
    with held:
        yield


def made_by() -> str:
    """What decodes and encodes here, with versions."""
    packages = installed(("dual-bench", "av", "torch", "torchaudio", "timm", "opensmile", "dlib-bin"))
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def _digests(source: Source, report: Report) -> dict[Path, str]:
    """sha256 of every media file that can be read."""
    paths = sorted({clip.path for _, _, clip in source.clips()})

    def digest(path: Path) -> str:
        try:
            if path.is_file():  # a pipe would be waited for
                return sha256_of(path)
        except OSError:
            pass
        return f"unreadable: {path}"  # decoding says why

    found: dict[Path, str] = {}
    with ThreadPoolExecutor(cores()) as pool:
        for count, (path, one) in enumerate(zip(paths, pool.map(digest, paths), strict=True)):
            report("files", count + 1, len(paths), "reading")
            found[path] = one
    return found


def _key(clip: Clip | None, digests: Mapping[Path, str], *what: object) -> str:
    """What names the outcome of decoding a clip; empty where there is none."""
    return content_key(_VERSION, digests[clip.path], repr(what)) if clip else ""


@dataclass(frozen=True)
class _Sounds:
    """The wav file of each utterance, its name empty where there is none, with its sha256; what it was decoded from;
    why some have none; and how many were written now."""

    wavs: Wavs
    keys: tuple[str, ...]
    reasons: Mapping[int, str]
    decoded: int


def _sounds(
    clips: Sequence[Clip | None], digests: Mapping[Path, str], folder: Path, jobs: int, report: Report
) -> _Sounds:
    """Decode what is not there yet, or is not what the last extraction wrote."""
    home = folder / "sound"
    home.mkdir(exist_ok=True)
    keys = tuple(_key(clip, digests, "sound", clip and (clip.start, clip.end)) for clip in clips)
    names = [f"{key[:32]}.wav" if key else "" for key in keys]
    known = _known_sounds(folder)
    sums = {name: sha256_of(home / name) for name in set(names) if name and (home / name).exists()}
    whole = {name for name, sha256 in sums.items() if known.get(name, sha256) == sha256}
    todo = {name: clip for name, clip in zip(names, clips, strict=True) if clip and name not in whole}
    tasks = [(clip, home / name) for name, clip in todo.items()]
    failed: dict[str, str] = {}
    for count, (name, reason) in enumerate(zip(todo, spread(write_sound, tasks, jobs), strict=True)):
        report("sound", count + 1, len(todo), "decoding")
        if reason != "":
            failed[name] = reason or CRASHED
    kept = tuple("" if name in failed else name for name in names)
    sums |= {name: sha256_of(home / name) for name in todo if name not in failed} | {"": ""}
    wavs = Wavs(home, kept, tuple(sums[name] for name in kept))
    reasons = {i: failed[name] for i, name in enumerate(names) if name in failed}
    return _Sounds(wavs, keys, reasons, len(todo) - len(failed))


def _known_sounds(folder: Path) -> dict[str, str]:
    """The sha256 of each wav file that the last extraction finished with."""
    try:
        table = read_table(folder)
    except UserError:
        return {}
    return dict(zip(table["sound"], table["sound_sha256"], strict=True)) if "sound" in table else {}


def _voices(sounds: _Sounds, encoder: Encoder, folder: Path, report: Report) -> _Part:
    """Features of the sounds."""
    wavs = sounds.wavs
    keys = [content_key(encoder.name, key) if name else "" for key, name in zip(sounds.keys, wavs.names, strict=True)]
    store, made = _store("audio", encoder.name, encoder.width, encoder.rate, folder, report)

    def encode(positions: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        items = ((position, wavs[here[position]]) for position in positions)
        for count, (position, rows) in enumerate(encode_in_batches(encoder, items, SAMPLE_RATE)):
            report("audio", count + 1, len(positions), encoder.name)
            yield position, rows

    here = [i for i, key in enumerate(keys) if key]
    store.fill([keys[i] for i in here], encode)
    return _Part(made, _found(store, keys), sounds.reasons, sounds.decoded)


def _faces(
    clips: Sequence[Clip | None],
    digests: Mapping[Path, str],
    encoder: PictureEncoder,
    folder: Path,
    jobs: int,
    report: Report,
) -> _Part:
    """Features of the pictures."""
    asked = (encoder.name, encoder.rate, encoder.picture)
    keys = [_key(clip, digests, *asked, clip and (clip.start, clip.end, clip.half)) for clip in clips]
    store, made = _store("vision", encoder.name, encoder.width, encoder.rate, folder, report)
    failed: dict[str, str] = {}

    def encode(positions: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        tasks = [(clips[here[position]], encoder.rate, encoder.picture) for position in positions]

        def decoded() -> Iterator[tuple[int, NDArray[np.uint8]]]:
            results = spread(pictures, tasks, jobs)
            for count, (position, result) in enumerate(zip(positions, results, strict=True)):
                report("vision", count + 1, len(positions), encoder.name)
                if isinstance(result, np.ndarray):
                    yield position, result
                else:
                    failed[keys[here[position]]] = result or CRASHED

        yield from encode_in_batches(encoder, decoded(), encoder.rate)

    here = [i for i, key in enumerate(keys) if key]
    count = store.fill([keys[i] for i in here], encode)
    kept = ["" if key in failed else key for key in keys]
    return _Part(made, _found(store, kept), {i: failed[key] for i, key in enumerate(keys) if key in failed}, count)


def _copied(signal: Signal, modality: Modality, layout: str, folder: Path, report: Report) -> _Part:
    """Features that the folder of the corpus holds already, in rows of our own."""
    items = [np.asarray(item, np.float32) for item in signal.items]
    name, width = f"as {layout.partition(':')[0]} has them", items[0].shape[1]
    store, made = _store(modality, name, width, signal.rate, folder, report)
    keys = [content_key(item) if len(item) else "" for item in items]
    here = [i for i, key in enumerate(keys) if key]
    count = store.fill([keys[i] for i in here], lambda positions: ((p, items[here[p]]) for p in positions))
    return _Part(made, _found(store, keys), {}, count)


def _store(
    modality: Modality, name: str, width: int, rate: float, folder: Path, report: Report
) -> tuple[FeatureStore, Features]:
    made = Features(
        folder=f"{modality}-{content_key(name, repr(width))[:12]}",
        encoder=name,
        width=width,
        rate=None if isnan(rate) else rate,
    )
    return FeatureStore(folder / made.folder, width, telling(report)), made


def _found(store: FeatureStore, keys: Sequence[str]) -> Ragged:
    """The sequence of each key; no step where it is empty."""
    here = np.array([i for i, key in enumerate(keys) if key], np.int64)
    starts, lengths = np.zeros((2, len(keys)), np.int64)
    if len(here):
        rows = store.find([keys[i] for i in here])
        starts[here], lengths[here] = rows.starts, rows.lengths
    return Ragged(np.empty((0, store.width), np.float32), starts, lengths)


def _problems(source: Source, parts: Mapping[Modality, _Part]) -> tuple[Problem, ...]:
    return tuple(
        Problem(source.utterances[i].id, modality, str(clip.path), parts[modality].reasons[i])
        for modality, i, clip in source.clips()
        if i in parts[modality].reasons
    )


def _write_table(source: Source, parts: Mapping[Modality, _Part], sounds: _Sounds | None, folder: Path) -> None:
    utterances = source.utterances
    columns: dict[str, object] = {
        "id": [u.id for u in utterances],
        "split": [u.split for u in utterances],
        "fold": list(source.folds) if source.folds else [""] * len(utterances),
        "cluster": [u.cluster for u in utterances],
        "speaker": [u.speaker for u in utterances],
        "target": np.array([u.target for u in utterances], np.float64),
        "text": [u.text for u in utterances],
    }
    for name in sorted(set().union(*(u.transcripts for u in utterances))):
        columns[f"text_{name}"] = [u.transcripts[name] for u in utterances]
    for modality, part in parts.items():
        columns |= {f"{modality}_start": part.rows.starts, f"{modality}_steps": part.rows.lengths}
    if sounds is not None:
        columns |= {"sound": list(sounds.wavs.names), "sound_sha256": list(sounds.wavs.sha256)}
    # a path with a colon would be taken for an address
    with replacing(folder / TABLE) as temporary, temporary.open("wb") as file:
        pd.DataFrame(columns).to_parquet(file, index=False)


def _record(
    source: Source, layout: str, parts: Mapping[Modality, _Part], sound: bool, table: str, made_by: str
) -> Extracted:
    task = source.task
    return Extracted(
        version=VERSION,
        name=source.name,
        layout=layout,
        kind=task.kind,
        classes=task.classes,
        low=task.low if isfinite(task.low) else None,
        high=task.high if isfinite(task.high) else None,
        licence=source.licence,
        notes=source.notes,
        deviations=source.deviations,
        audio=parts["audio"].made if "audio" in parts else None,
        vision=parts["vision"].made if "vision" in parts else None,
        sound=sound,
        table_sha256=table,
        made_by=made_by,
    )
