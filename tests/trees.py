"""Small corpora arranged as their owners arrange the real ones: invented sentences, tones and grey pictures.

Pitch, brightness and words tell the class, each with some noise; media are real files unless ``touched`` makes them.
"""

from __future__ import annotations

import csv
import pickle
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import media
import numpy as np

RATE = 16_000
FPS = 10
SIZE = (48, 64)
"""Height and width of a picture."""
WORDS = (
    ("the table is as it was", "the train leaves at noon", "that is the second door"),
    ("what a lovely bright day", "we won and we danced", "how glad this makes me"),
    ("everything is grey and lost", "nobody came to the farewell", "the letter made me weep"),
    ("give it back at once", "this is an outrage", "never shout at me again"),
)
"""Invented sentences of four classes: neutral, glad, sad, angry."""


@dataclass(frozen=True)
class Scene:
    """A stretch of a film: its pitch in Hz, and the brightness (0 to 255) of either half of the picture."""

    tone: float
    left: int
    right: int
    seconds: float = 0.6


Film = Callable[[Path, Sequence[Scene]], object]
"""Writes scenes one after the other to a media file."""


def sound(scenes: Sequence[Scene]) -> np.ndarray:
    """Samples (n,) int16."""
    parts = [np.sin(2 * np.pi * s.tone * np.arange(round(s.seconds * RATE)) / RATE) for s in scenes]
    return (8000 * np.concatenate(parts)).astype(np.int16)


def film(path: Path, scenes: Sequence[Scene]) -> None:
    """MPEG-4 pictures at 10 a second and sound at 16 kHz, in the container that the suffix names."""
    height, width = SIZE
    halves = [[s.left, s.right] for s in scenes for _ in range(round(s.seconds * FPS))]
    pictures = np.array(halves, np.uint8)[:, None].repeat(height, axis=1).repeat(width // 2, axis=2)
    codec = "aac" if path.suffix == ".mp4" else "pcm_s16le"
    heard = sound(scenes)[None] / np.float32(2**15)
    media.write(path, pictures, heard, fps=FPS, codec="mpeg4", rate=RATE, sound_codec=codec)


def touched(path: Path, scenes: Sequence[Scene]) -> None:
    """An empty file, where only names matter."""
    path.touch()


def wav(path: Path, scenes: Sequence[Scene]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(sound(scenes).tobytes())


@dataclass(frozen=True)
class Said:
    """An invented utterance of class 0..3."""

    label: int
    text: str
    scene: Scene


def said(count: int, seed: int = 0, *, other: int = 0) -> list[Said]:
    """``count`` utterances of the four classes in turn; ``other`` is the brightness of who listens, at the right."""
    rng = np.random.default_rng([seed, count])
    made = []
    for i in range(count):
        label = i % len(WORDS)
        tone = 200 + 150 * label + 30 * float(rng.normal())
        light = int(np.clip(40 + 50 * label + 15 * rng.normal(), 0, 255))
        made.append(Said(label, f"{rng.choice(WORDS[label])} {i}", Scene(tone, light, other)))
    return made


def table(path: Path, rows: Sequence[dict[str, str]], encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


# -------------------------------------------------------------------------------------------------- MELD

MELD_CLIPS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
MELD_LABELS = (("neutral", "neutral"), ("joy", "positive"), ("sadness", "negative"), ("anger", "negative"))


def meld(folder: Path, utterances: int = 24, turns: int = 4, film: Film = film) -> Path:
    """A MELD.Raw: in each split ``utterances`` lines in dialogues of ``turns``."""
    for seed, (split, name) in enumerate(MELD_CLIPS.items()):
        clips = folder / name
        clips.mkdir(parents=True)
        rows = []
        for i, one in enumerate(said(utterances, seed, other=128)):
            emotion, sentiment = MELD_LABELS[one.label]
            rows.append(
                {"Sr No.": str(i + 1), "Utterance": one.text, "Speaker": ("Ann", "Bob", "Cleo")[i % 3],
                 "Emotion": emotion, "Sentiment": sentiment, "Dialogue_ID": str(i // turns),
                 "Utterance_ID": str(i % turns), "Season": "1", "Episode": "1", "StartTime": "00:00:00,000",
                 "EndTime": "00:00:00,600"}
            )  # fmt: skip
            film(clips / f"dia{i // turns}_utt{i % turns}.mp4", [one.scene])
        table(folder / f"{split}_sent_emo.csv", rows)
    return folder


# ----------------------------------------------------------------------------------------------- IEMOCAP

IEMOCAP_LABELS = ("neu", "hap", "sad", "ang")


def iemocap(
    folder: Path, dialogues: int = 4, turns: int = 4, film: Film = film, codes: Sequence[str] = IEMOCAP_LABELS
) -> Path:
    """An IEMOCAP_full_release: five sessions of ``dialogues``, in which woman and man speak in turn, a second each."""
    for session in range(1, 6):
        root = folder / f"Session{session}"
        films, labels, texts = (root / "dialog" / d for d in ("avi/DivX", "EmoEvaluation", "transcriptions"))
        for made in (films, labels, texts):
            made.mkdir(parents=True)
        for number in range(dialogues):
            marked = "FM"[number % 2]
            name = f"Ses{session:02d}{marked}_impro{number + 1:02d}"
            voices = root / "sentences" / "wav" / name
            voices.mkdir(parents=True)
            lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
            words, scenes = [], []
            for turn, one in enumerate(said(turns, 10 * session + number)):
                speaker = "FM"[turn % 2]
                key = f"{name}_{speaker}{turn:03d}"
                light, listens = one.scene.left, 255 - one.scene.left
                shown = (light, listens) if speaker == marked else (listens, light)
                scenes.append(Scene(one.scene.tone, *shown, seconds=1.0))
                code = codes[one.label % len(codes)]
                lines += [f"[{turn}.0000 - {turn + 1}.0000]\t{key}\t{code}\t[2.5000, 2.5000, 2.5000]",
                          "C-E2:\tNeutral;\t()", "A-E3:\tval 3; act 2; dom  2;\t(caf\xe9)", ""]  # fmt: skip
                words.append(f"{key} [{turn:03d}.0000-{turn + 1:03d}.0000]: {one.text}")
                (wav if film is not touched else touched)(voices / f"{key}.wav", scenes[-1:])
            (labels / f"{name}.txt").write_text("\n".join(lines), encoding="latin-1")
            (texts / f"{name}.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
            film(films / f"{name}.avi", scenes)
    return folder


# -------------------------------------------------------------------------------------------------- MMSA


def mmsa_content(utterances: int = 24, *, aligned: bool = False, steps: int = 8, clips: int = 3) -> dict[str, Any]:
    """What a .pkl of MMSA holds, ``utterances`` a split in videos of ``clips``: audio (n, steps, 5) and vision
    (n, steps, 6) with zeros behind their lengths."""
    content: dict[str, Any] = {}
    for seed, split in enumerate(("train", "valid", "test")):
        rng = np.random.default_rng(seed)
        lines = said(utterances, seed)
        lengths = rng.integers(2, steps + 1, utterances)
        values = np.array([(0.0, 2.2, -1.6, -2.8)[one.label] for one in lines], np.float32)
        inside = np.arange(steps) < lengths[:, None]
        made: dict[str, Any] = {"raw_text": [one.text for one in lines]}
        for name, width in (("audio", 5), ("vision", 6)):
            noise = rng.normal(size=(utterances, steps, width)) + 1.5 * values[:, None, None]
            made[name] = (noise * inside[..., None]).astype(np.float32)
        made["id"] = [f"{split}{i // clips}$_${i % clips}" for i in range(utterances)]
        made["text_bert"] = np.stack([np.zeros_like(inside), inside, np.zeros_like(inside)], axis=1).astype(np.float32)
        made["annotations"] = [("Neutral", "Positive", "Negative", "Negative")[one.label] for one in lines]
        made["classification_labels"] = np.sign(values) + 1
        made["regression_labels"] = values
        if not aligned:
            made["audio_lengths"] = lengths.tolist()
            made["vision_lengths"] = lengths.tolist()
        content[split] = made
    return content


def mmsa(path: Path, utterances: int = 24, *, aligned: bool = False) -> Path:
    path.write_bytes(pickle.dumps(mmsa_content(utterances, aligned=aligned)))
    return path


# ------------------------------------------------------------------------------------------- one's own folder

LABELS = ("calm", "glad", "sad", "cross")


def folder(path: Path, utterances: int = 24, clips: int = 3, film: Film = film) -> Path:
    """A CSV ``own.csv`` beside ``media/``: ``utterances`` a split in clusters of ``clips``, one mp4 each."""
    media = path / "media"
    media.mkdir(parents=True)
    rows = []
    for seed, split in enumerate(("train", "validation", "test")):
        for i, one in enumerate(said(utterances, seed, other=128)):
            cluster, name = f"{split}{i // clips}", f"{split}{i}.mp4"
            rows.append(
                {"id": f"{split}-{i}", "split": split, "cluster": cluster, "speaker": cluster, "text": one.text,
                 "label": LABELS[one.label], "file": f"media/{name}"}
            )  # fmt: skip
            film(media / name, [one.scene])
    table(path / "own.csv", rows)
    return path
