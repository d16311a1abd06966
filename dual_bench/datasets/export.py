"""A corpus with waveforms and frames, rendered to media and tables in the layout of MELD.

What is rendered can be read like any recording: it shows whether the way from media files to a report changes anything.
Nothing is lost on the way: H.264 without quantisation, Apple lossless sound at 16 bits. Dialogues are the clusters of a
split, numbered as they come. MELD's sentiments, seasons, episodes and times are not known, and left empty.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dual_bench.datasets.meld import CLIPS, EXPORT, SPLITS, Export
from dual_bench.processes import cores, spread
from dual_bench.types import Corpus, Modality, UserError


def check_free(folder: Path) -> None:
    """UserError where ``folder`` holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds something already; name a new folder")


def export_meld(corpus: Corpus, folder: Path, jobs: int, report: Callable[[int, int], None]) -> int:
    """Write ``corpus`` to ``folder``, whole or not at all, and say how many clips there are.

    UserError where the corpus has no waveforms or frames, predicts values, or ``folder`` holds something.
    """
    for modality in ("audio", "vision"):
        signal = corpus.signals.get(modality)
        if signal is not None and signal.kind == "features":
            raise UserError(
                f"'{corpus.name}' has features of {modality}, which cannot be seen or heard; name a raw one"
            )
    if not corpus.signals or corpus.task.kind != "classification" or len(corpus.folds) > 1:
        raise UserError(
            f"the layout of MELD is for recordings with classes and official splits, which '{corpus.name}' is not"
        )
    check_free(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        tasks = _write_tables(corpus, partial)
        for done, _ in enumerate(spread(render, tasks, jobs or cores())):
            report(done + 1, len(tasks))
        about = Export(
            corpus=f"{corpus.name} (rendered)",
            licence=corpus.licence,
            notes=corpus.notes,
            classes=corpus.task.classes,
        )
        (partial / EXPORT).write_text(about.model_dump_json(indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return len(tasks)


_Task = tuple[Path, NDArray[np.generic], float, NDArray[np.generic], float]


def _write_tables(corpus: Corpus, folder: Path) -> list[_Task]:
    """The three tables, and what is to be rendered: file, frames and their rate, waveform and its rate."""
    (fold,) = corpus.folds
    nothing: NDArray[np.generic] = np.empty(0, np.uint8)
    tasks: list[_Task] = []
    for name, split in SPLITS.items():
        clips = CLIPS[name]
        (folder / clips).mkdir(parents=True)
        dialogues: dict[str, int] = {}
        said: dict[str, int] = {}
        rows = []
        for number, i in enumerate(getattr(fold, split), start=1):
            utterance = corpus.utterances[i]
            dialogue = dialogues.setdefault(utterance.cluster, len(dialogues))
            turn = said[utterance.cluster] = said.get(utterance.cluster, -1) + 1
            rows.append(
                {
                    "Sr No.": number,
                    "Utterance": utterance.text,
                    "Speaker": utterance.speaker,
                    "Emotion": corpus.task.classes[int(utterance.target)],
                    "Sentiment": "",
                    "Dialogue_ID": dialogue,
                    "Utterance_ID": turn,
                    "Season": "",
                    "Episode": "",
                    "StartTime": "",
                    "EndTime": "",
                }
            )
            path = folder / clips / f"dia{dialogue}_utt{turn}.mp4"
            parts = [(s.items[i], s.rate) if (s := corpus.signals.get(m)) else (nothing, 1.0) for m in _SHOWN]
            if any(len(items) for items, _ in parts):
                tasks.append((path, *parts[0], *parts[1]))
        pd.DataFrame(rows).to_csv(folder / f"{name}_sent_emo.csv", index=False, encoding="utf-8")
    return tasks


_SHOWN: tuple[Modality, Modality] = ("vision", "audio")


def render(
    path: Path, frames: NDArray[np.generic], frame_rate: float, samples: NDArray[np.generic], sample_rate: float
) -> None:
    """Write an mp4 of grey ``frames`` (n, height, width) uint8 and a mono waveform ``samples`` (m,) in [-1, 1], without
    any loss beyond 16 bits a sample; what is empty has no track."""
    import av

    with av.open(str(path), "w") as file:
        rate = Fraction(frame_rate).limit_denominator(1001)
        picture = (
            file.add_stream("libx264", rate=rate, options={"qp": "0", "preset": "ultrafast"}) if len(frames) else None
        )
        sound = file.add_stream("alac", rate=round(sample_rate)) if len(samples) else None
        if picture is not None:
            picture.height, picture.width = frames.shape[1:]
            picture.codec_context.thread_count = 1
            picture.pix_fmt = "yuvj444p"  # any size, even an odd one; all levels from 0 to 255
        if sound is not None:
            sound.layout, sound.format = "mono", "s16p"
        if picture is not None:
            for number, frame in enumerate(frames):
                grey = av.VideoFrame.from_ndarray(frame.astype(np.uint8), format="gray")
                grey.color_range = av.video.reformatter.ColorRange.JPEG
                shown = grey.reformat(format="yuvj444p")
                shown.pts, shown.time_base = number, 1 / rate
                file.mux(picture.encode(shown))
            file.mux(picture.encode(None))
        if sound is not None:
            scale = np.iinfo(np.int16).max
            rounded = np.rint(samples.astype(np.float64) * scale).astype(np.int16)
            heard = av.AudioFrame.from_ndarray(rounded[None], format="s16p", layout="mono")
            heard.sample_rate, heard.pts = round(sample_rate), 0
            file.mux(sound.encode(heard))
            file.mux(sound.encode(None))
