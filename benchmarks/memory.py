"""Memory and time of a whole study by stage, as the corpus grows: what must grow in proportion, and what must not.

    python benchmarks/memory.py --scratch FOLDER --utterances 10000 30000 100000 --out memory.md

Made in FOLDER, and removed afterwards, is a corpus such as ``data extract`` writes: of every utterance a voice of some
100 steps of 768 numbers, a face of some 50 steps of 512, and one of 2,000 sentences of 6 to 18 words. For 100,000
utterances that is 41 GB, and as much disk is needed; ``--share N`` writes the features of N utterances only, which the
others repeat: what lies in memory has the same shape, and takes the same room, but the disk reads less.

Each study runs in a fresh process, as ``dual-bench run`` does it: two models trained for an epoch each, tested on
clean words and noisy ones, probed, and the report. Nine in ten words are lost to the noise, so that what is left is
quickly encoded, and not the text encoder measured. Every 0.2 s all its processes are looked at: *held*
is what nothing but the end of a process gives back, anonymous and shared memory (RssAnon and RssShmem of
``/proc/PID/status``); *mapped* are pages of files, which the kernel takes away when it needs them, counted once for
each process that sees them. What 0.2 s may miss, a limit catches: no process may map more writable memory of its own
(RLIMIT_DATA) than its share of ``--limit``.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from showing import Section, Table, arguments, shown, tell
from timing import Limit, machine

from dual_bench.datasets.extracted import RECORD, TABLE, VERSION, Extracted, Features
from dual_bench.types import DualBenchError, IntArray

CLASSES = ("angry", "glad", "neutral", "sad")
SHAPES = {"audio": (100, 768), "vision": (50, 512)}
"""Steps on average, and numbers a step."""
BINS = 16
"""That DUAL averages voice and face onto."""
SENTENCES = 2_000
DIALOGUE = 10
"""Utterances in one, which lie in one part."""
PARTS = (("train", 0.6), ("validation", 0.2), ("test", 0.2))
JOBS = 2
"""Processes that train; the one that stores is the third."""
GIB = 2**30
_ROWS = 200_000
"""Of noise, from which every sequence is a stretch."""

STUDY = """name = "memory"
dataset = "{corpus}"
models = ["dual", "text-only"]
regimes = ["clean"]
corruptions = ["word-drop", "utterance-drop"]
rates = [0.0, 0.9]
draws = 1
seeds = 1
presets = ""

[training]
epochs = 1
"""


# ------------------------------------------------------------------------------------------ the corpus


def write_corpus(folder: Path, count: int, share: int) -> int:
    """A corpus of ``count`` utterances with the features of ``share``; how many bytes their features take in all, if
    each had its own."""
    rng = np.random.default_rng(count)
    labels = rng.integers(len(CLASSES), size=count)
    labels[share:] = labels[np.arange(share, count) % share]
    split = np.repeat([name for name, _ in PARTS], np.diff([0, *(round(count * end) for end in _ends())]))
    sentences = np.array(_sentences(rng))
    spoken = rng.integers(SENTENCES // len(CLASSES), size=count) * len(CLASSES)
    columns: dict[str, object] = {
        "id": [f"utterance {i:06d}" for i in range(count)],
        "split": split,
        "fold": "",
        "cluster": [f"dialogue {i // DIALOGUE:05d}" for i in range(count)],
        "speaker": [f"speaker {i // DIALOGUE % 500:03d}" for i in range(count)],
        "target": labels.astype(float),
        "text": sentences[spoken + np.where(rng.random(count) < 0.5, labels, rng.integers(len(CLASSES), size=count))],
    }
    made, whole = {}, 0
    for modality, (steps, width) in SHAPES.items():
        lengths = rng.integers(steps // 2, steps + steps // 2 + 1, size=share)
        starts = np.cumsum(lengths) - lengths
        (folder / modality).mkdir(parents=True)
        _write_features(folder / modality / "rows.f32", labels[:share], lengths, width, rng)
        which = np.arange(count) % share
        columns |= {f"{modality}_start": starts[which], f"{modality}_steps": lengths[which]}
        made[modality] = Features(folder=modality, encoder="synthetic", width=width, rate=None)
        whole += int(lengths[which].sum()) * width * 4
    pd.DataFrame(columns).to_parquet(folder / TABLE)
    record = Extracted(
        version=VERSION,
        name=f"synthetic-{count}",
        layout="synthetic",
        kind="classification",
        classes=CLASSES,
        low=None,
        high=None,
        licence="none",
        notes=(),
        deviations=(),
        audio=made["audio"],
        vision=made["vision"],
        sound=False,
        table_sha256=sha256((folder / TABLE).read_bytes()).hexdigest(),
        made_by="benchmarks/memory.py",
    )
    (folder / RECORD).write_text(record.model_dump_json())
    return whole


def _ends() -> list[float]:
    return list(np.cumsum([part for _, part in PARTS]))


def _sentences(rng: np.random.Generator) -> list[str]:
    """The sentences; number i tells class i modulo their number, in one of its words."""
    words = [f"{a}{b}{c}" for a in "bdfklmnprst" for b in "aeiou" for c in "mnrst"]
    found = [list(rng.choice(words, size=rng.integers(6, 19))) for _ in range(SENTENCES)]
    for i, sentence in enumerate(found):
        sentence[int(rng.integers(len(sentence)))] = CLASSES[i % len(CLASSES)]
    return [" ".join(sentence) for sentence in found]


def _write_features(path: Path, labels: IntArray, lengths: IntArray, width: int, rng: np.random.Generator) -> None:
    """Stretches of noise, moved towards the place of each class."""
    noise = rng.standard_normal((_ROWS // 10, width), dtype=np.float32)
    places = rng.standard_normal((len(CLASSES), width), dtype=np.float32) / 4
    with path.open("wb") as file:
        for label, length in zip(labels, lengths, strict=True):
            start = int(rng.integers(len(noise) - length))
            file.write((noise[start : start + length] + places[label]).tobytes())


# ----------------------------------------------------------------------------------------- the process


def study(folder: Path, limit: int) -> None:
    """What the fresh process does: the study in ``folder``, with the stages and when they began in ``stages``."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    from dual_bench import runner
    from dual_bench.plan import read_plan
    from dual_bench.report.render import render

    with (folder / "stages").open("a", buffering=1) as stages:
        last = ""

        def report(stage: str, done: int, total: int, detail: str) -> None:
            nonlocal last
            if stage != last:
                stages.write(f"{stage}\n")
                last = stage

        plan = read_plan(str(folder / "study.toml"), {})
        runner.run(plan, folder, folder / "cache", folder, folder / "run", "cpu", JOBS, report)
        report("report", 0, 0, "")
        render(folder / "run")


@dataclass
class Stage:
    name: str
    seconds: float = 0.0
    held: int = 0
    """Most bytes at a time."""
    mapped: int = 0


@dataclass
class Measured:
    utterances: int
    whole: int
    """Bytes of all features."""
    share: int
    stages: list[Stage] = field(default_factory=list)

    @property
    def held(self) -> int:
        return max(stage.held for stage in self.stages)


def measure(count: int, share: int, limit: int, scratch: Path, progress: Callable[[str], None]) -> Measured:
    """Make a corpus, run the study on it, and look at it all the while; DualBenchError where the study fails."""
    with tempfile.TemporaryDirectory(dir=scratch, prefix="memory-") as name:
        folder = Path(name)
        found = Measured(count, write_corpus(folder / "corpus", count, share), share)
        (folder / "study.toml").write_text(STUDY.format(corpus=folder / "corpus"))
        command = [sys.executable, __file__, "--study", str(folder), "--limit", str(limit / (JOBS + 1) / GIB)]
        (folder / "stages").touch()
        with _running(command) as process:
            began = then = time.perf_counter()
            while process.poll() is None:
                time.sleep(0.2)
                names = ["start", *(folder / "stages").read_text().split()]
                now = time.perf_counter()
                if not found.stages or found.stages[-1].name != names[-1]:
                    progress(f"{count:,} utterances, {now - began:.0f} s: {names[-1]}, after {found.stages[-1:]}")
                    found.stages.append(Stage(names[-1]))
                stage = found.stages[-1]
                held, mapped = memory(process.pid)
                stage.seconds += now - then
                stage.held, stage.mapped = max(stage.held, held), max(stage.mapped, mapped)
                then = now
        if process.returncode:
            raise DualBenchError(f"the study of {count} utterances ended with {process.returncode}")
        return found


@contextmanager
def _running(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The process, which is not left behind; nor are the processes that it started, which leave with it."""
    # Arrow's own allocator maps 1 GiB before it is asked for anything, and the limit counts what is mapped
    own = {"OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    with subprocess.Popen(command, env={**os.environ, **own}) as process:
        try:
            yield process
        finally:
            process.kill()


def memory(pid: int) -> tuple[int, int]:
    """Bytes (held, mapped) of a process and all that it started."""
    held = mapped = 0
    for one in tree(pid):
        try:
            status = Path(f"/proc/{one}/status").read_text()
        except OSError:  # it has ended
            continue
        fields = dict(line.split(":", 1) for line in status.splitlines())
        anonymous, files, shared = (
            int(fields[f"Rss{what}"].split()[0]) * 1024 if f"Rss{what}" in fields else 0
            for what in ("Anon", "File", "Shmem")
        )
        held, mapped = held + anonymous + shared, mapped + files
    return held, mapped


def tree(pid: int) -> list[int]:
    """The process and its descendants."""
    found = [pid]
    for one in found:
        try:
            found += [int(n) for n in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
        except OSError:
            continue
    return found


# ------------------------------------------------------------------------------------------ the tables


def table_of(found: Sequence[Measured]) -> Table:
    """A line for each stage: seconds, held and mapped at each size."""

    def line(name: str, each: Sequence[Sequence[Stage]]) -> tuple[str, ...]:
        cells = [name]
        for stages in each:
            cells.append(shown(sum(stage.seconds for stage in stages)))
            cells += [f"{max((getattr(s, what) for s in stages), default=0) / GIB:.2f}" for what in ("held", "mapped")]
        return tuple(cells)

    names = dict.fromkeys(stage.name for one in found for stage in one.stages)
    lines = [line(name, [[stage for stage in one.stages if stage.name == name] for one in found]) for name in names]
    lines.append(line("whole study", [one.stages for one in found]))
    lines.append(("all features, if held", *(cell for one in found for cell in ("", f"{one.whole / GIB:.2f}", ""))))
    head = [f"{what}, {one.utterances:,}" for one in found for what in ("s", "GiB held", "GiB mapped")]
    return Table("Seconds and most memory by stage and utterances", ("stage", *head), tuple(lines))


def section(found: Sequence[Measured], limit: float) -> Section:
    asked = tomllib.loads(STUDY)
    epochs = asked["training"]["epochs"]
    about = (
        f"The study: {' and '.join(asked['models'])}, {asked['seeds']} seed, {epochs} epoch of training, regime "
        f"{' and '.join(asked['regimes'])}, {asked['draws']} draw; conditions: clean, and "
        f"{' and '.join(asked['corruptions'])} at rate {max(asked['rates'])}; probed, modalities taken away, and the "
        f"report. {' / '.join(f'{part:.0%} {name}' for name, part in PARTS)}; a voice of about {SHAPES['audio'][0]} "
        f"steps of {SHAPES['audio'][1]} numbers and a face of about {SHAPES['vision'][0]} of {SHAPES['vision'][1]}; "
        f"words are one of {SENTENCES:,} distinct sentences, so few texts are encoded. {JOBS} processes that train "
        f"and one that stores; {machine()}."
    )
    limits = [Limit(f"memory held, {one.utterances:,} utterances", one.held / GIB, limit, "GiB") for one in found]
    for one in found:
        if one.share < one.utterances:
            about += (
                f" The {one.utterances:,} utterances share the rows of features of {one.share:,}: the file is smaller "
                "than that many utterances would have, and more of it stays in the page cache."
            )
    return Section("Memory", about, limits=tuple(limits), tables=(table_of(found),))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--scratch", type=Path, help="the folder for corpora, caches and results")
    parser.add_argument("--utterances", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--share", type=int, help="write the features of so many only, which the others repeat")
    parser.add_argument("--limit", type=float, default=8.0, help="GiB that all processes may hold (default: 8)")
    parser.add_argument("--study", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.study:
        study(asked.study, int(asked.limit * GIB))
        return
    if asked.scratch is None:
        parser.error("name a folder with --scratch")
    most = max(asked.utterances)
    # the features, and what the cache keeps of them: 16 bins of each
    needed = sum((min(most, asked.share or most) * steps + most * BINS) * width * 4 for steps, width in SHAPES.values())
    if (free := shutil.disk_usage(asked.scratch).free) < 1.1 * needed:
        parser.error(
            f"{asked.scratch} has {free / GIB:.0f} GiB left, and {1.1 * needed / GIB:.0f} are needed; --share N"
        )
    limit = int(asked.limit * GIB)
    found = [measure(n, min(n, asked.share or n), limit, asked.scratch, print) for n in asked.utterances]
    tell(section(found, asked.limit), asked)


if __name__ == "__main__":
    main()
