"""Seconds of 720p film decoded a second, against a plain loop in the same run.

    python benchmarks/decoding.py DATA --out decoding.md

DATA is a folder that holds ``meld_clips``, real clips of a corpus: H.264, 1280x720, AAC. Asked for is what an
extraction asks for: of every clip a picture ten times a second, grey of 32x32 or the middle in colour of 224x224, and
its sound, mono at 16 kHz.

* ``plain``: every frame to a full-size RGB array, as PyAV's examples do; those that are asked for are picked and scaled
  by swscale; sound by swresample.
* ``plain, ffmpeg's threads``: the same in one process, in which ffmpeg decodes in as many threads as there are cores.
* ``ours``: ``frames`` and ``sound``.

Two processes on two cores, but where one is named; longest clips first. Times are medians of repetitions in which the
contestants take turns. The clock counts what else the machine does, so CPU time is given too, and the load average at
the start, which is 0 on a machine that does nothing else. A last table says that all find the same pictures.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # read when numpy is imported

import av
import numpy as np
from numpy.typing import NDArray
from showing import Section, Table, arguments, tell
from timing import Ratio

from dual_bench.features.media import Clip, Picture, frames, probe, sound

RATE = 10
PICTURES = {"grey 32x32": Picture(32, 32, colour=False), "colour 224x224": Picture(224, 224, colour=True, crop=True)}
CORES = 2

Made = tuple[NDArray[np.uint8], NDArray[np.float32]]


def plain(path: Path, picture: Picture, threaded: bool = False) -> Made:
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO" if threaded else "NONE"
        mixer = av.AudioResampler(format="fltp", layout="mono", rate=16_000)
        times: list[float] = []
        arrays: list[NDArray[Any]] = []
        heard: list[NDArray[Any]] = []
        for frame in container.decode(video=0, audio=0):
            if isinstance(frame, av.VideoFrame):
                times.append(frame.time)
                arrays.append(frame.to_ndarray(format="rgb24", threads=None if threaded else 1))
            else:
                heard += [out.to_ndarray()[0] for out in mixer.resample(frame)]
    asked = np.arange(0, times[-1] + times[1], 1 / RATE)
    picked = [arrays[i] for i in np.maximum(np.searchsorted(times, asked + 6e-4, side="right") - 1, 0)]
    return scaled(picked, picture), np.concatenate(heard)


def scaled(picked: Sequence[NDArray[Any]], picture: Picture) -> NDArray[np.uint8]:
    found = []
    for array in picked:
        height, width = array.shape[:2]
        spare = (width - height) // 2 if picture.crop else 0
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array[:, spare : width - spare]), "rgb24")
        kind = "rgb24" if picture.colour else "gray"
        found.append(frame.reformat(picture.width, picture.height, kind, interpolation="AREA").to_ndarray())
    return np.stack(found)


def plain_with_threads(path: Path, picture: Picture) -> Made:
    return plain(path, picture, threaded=True)


def ours(path: Path, picture: Picture) -> Made:
    return frames(Clip(path), RATE, picture), sound(Clip(path))


@dataclass
class Contestant:
    name: str
    run: Callable[[Path, Picture], Made]
    picture: Picture
    processes: int = CORES
    wall: list[float] = field(default_factory=list)
    """Seconds for all clips, a number for each repetition."""
    cpu: list[float] = field(default_factory=list)


def contestants(picture: Picture) -> list[Contestant]:
    return [
        Contestant("plain", plain, picture),
        Contestant("plain, ffmpeg's threads", plain_with_threads, picture, 1),
        Contestant("ours", ours, picture),
    ]


def timed(work: tuple[Callable[[Path, Picture], Made], Path, Picture]) -> float:
    """CPU seconds of one clip, in a process of the pool."""
    run, path, picture = work
    start = time.process_time()
    run(path, picture)
    return time.process_time() - start


def measure(pools: dict[int, Pool], contestant: Contestant, paths: Sequence[Path]) -> None:
    start = time.perf_counter()
    work = [(contestant.run, path, contestant.picture) for path in paths]
    spent = pools[contestant.processes].map(timed, work, chunksize=1)
    contestant.wall.append(time.perf_counter() - start)
    contestant.cpu.append(sum(spent))


def spread(values: Sequence[float]) -> str:
    """The median, and half of the range that the middle half lies in as a share of it."""
    low, _, high = statistics.quantiles(values, n=4)
    middle = statistics.median(values)
    return f"{middle:.1f} ± {(high - low) / 2 / middle:.0%}"


def speeds(field: Sequence[Contestant], seconds: float) -> tuple[tuple[str, ...], ...]:
    first = field[0]
    return tuple(
        (
            each.name,
            str(each.processes),
            spread([seconds / wall for wall in each.wall]),
            spread([seconds / cpu for cpu in each.cpu]),
            f"{statistics.median(first.wall) / statistics.median(each.wall):.1f}",
            f"{statistics.median(first.cpu) / statistics.median(each.cpu):.1f}",
        )
        for each in field
    )


def agreement(paths: Sequence[Path]) -> list[tuple[str, ...]]:
    """How far our pictures lie from the plain loop's: levels of 255, over all clips."""
    rows = []
    for kind, picture in PICTURES.items():
        pairs = [(ours(path, picture)[0].astype(int), plain(path, picture)[0].astype(int)) for path in paths]
        counts = sum(len(a) for a, _ in pairs), sum(len(b) for _, b in pairs)
        off = np.concatenate([np.abs(a[: len(b)] - b[: len(a)]).ravel() for a, b in pairs])
        rows.append((kind, f"{counts[0]}, {counts[1]}", f"{off.mean():.2f}", f"{np.quantile(off, 0.999):.0f}"))
    return rows


def measure_all(data: Path, repetitions: int) -> Section:
    paths = sorted((data / "meld_clips").glob("*.mp4"), key=lambda path: -path.stat().st_size)
    seconds = sum(probe(path).seconds for path in paths)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    load = os.getloadavg()[0]
    fields = {kind: contestants(picture) for kind, picture in PICTURES.items()}
    everyone = [contestant for field in fields.values() for contestant in field]
    spawn = get_context("spawn")
    with spawn.Pool(CORES) as two, spawn.Pool(1) as one:
        pools = {CORES: two, 1: one}
        for contestant in everyone:
            measure(pools, contestant, paths[-CORES:] * CORES)  # whatever is done once and for all
            contestant.wall.clear()
            contestant.cpu.clear()
        for _ in range(repetitions):
            for contestant in everyone:
                measure(pools, contestant, paths)
    tables = (
        *(
            Table(
                f"Sound and pictures, {kind}: seconds of film a second, median ± half the interquartile range",
                ("", "processes", "by the clock", "by CPU time", "clock, to plain", "CPU, to plain"),
                speeds(field, seconds),
            )
            for kind, field in fields.items()
        ),
        Table(
            "Levels of 255 between our pictures and the plain loop's",
            ("", "pictures, ours and plain", "mean", "99.9% lie within"),
            tuple(agreement(paths)),
        ),
    )
    about = f"PyAV {av.__version__}, Python {platform.python_version()}, {CORES} cores; {len(paths)} clips of "
    about += f"{seconds:.1f} s in all, {repetitions} repetitions; load average {load:.1f} at the start."
    ratios = tuple(
        Ratio(f"decoding, {kind}", "ours", "every frame to RGB", tuple(field[-1].wall), tuple(field[0].wall))
        for kind, field in fields.items()
    )
    return Section("Decoding: speed against a plain loop", about, ratios, tables=tables)


def main() -> None:
    parser = arguments(__doc__, repetitions=9)
    parser.add_argument("data", type=Path, help="the folder of meld_clips")
    asked = parser.parse_args()
    tell(measure_all(asked.data, asked.repetitions), asked)


if __name__ == "__main__":
    main()
