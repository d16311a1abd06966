"""What a run of a plan would take, before anything runs: time, disk and memory, and what a second machine would save.

Every noisy text is made, as a run makes it, to see which are the same and which are encoded already; models and
encoders are timed for a few seconds (``pace``). Nothing is written but to a temporary folder.

What is assumed: that the machine is as busy with other work as it is now; that a second one is as fast, and takes part
in nothing but trainings; that no cell can be taken from other runs; and, where no training is finished yet, after how
many epochs they stop. Not counted are the averaging onto time bins, the distances between texts, and the report.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dual_bench.features.encoder import DEFAULTS
from dual_bench.inputs import bins_folder
from dual_bench.material import VOICE_AND_FACE, Encodings, Material, material_of
from dual_bench.pace import Pace, Trial, attacked_of, held, mean, pace, started
from dual_bench.plan import Cell, depends_on_model, keeping
from dual_bench.prepare import Asked, in_silence, sequences_of, widths_of
from dual_bench.processes import cores, executor_of
from dual_bench.room import Stored, answered, conditions_of, stored
from dual_bench.shards import Shard, Training, finished, trainings
from dual_bench.store import RunFolder
from dual_bench.types import IntArray, Modality, Ragged, Report
from dual_bench.words import Words, words_of

T = TypeVar("T")

BEST_EPOCH = 8
"""In which the validation loss is assumed to be lowest: so it is in the mean over the committed reference study
(``reports/reference/synthetic``)."""


@dataclass(frozen=True)
class Wall:
    """Seconds by the clock: ``alone``, before the first training, and of the trainings on this machine, ``here``, and
    on two like it, ``both``."""

    alone: float
    here: float
    both: float

    @property
    def one(self) -> float:
        """With this machine."""
        return self.alone + self.here

    @property
    def two(self) -> float:
        """With a second one."""
        return self.alone + self.both


@dataclass(frozen=True)
class Estimate:
    """What a run would take from now on: seconds, bytes, and how many of what."""

    cells: int
    trainings: int
    """That these cells come to: some share one, and packs are trained together."""
    cells_done: int
    trainings_left: int
    """In which some cell is still to be computed."""
    encodings: Mapping[Modality, Encodings]
    """Of the texts of the whole plan, and of voices and faces where they do not come as features."""
    noise: float
    """Seconds that making all the noisy texts takes."""
    epochs: int
    """The most that a training may take."""
    expected_epochs: float
    """After which trainings are expected to stop, in the mean."""
    finished: int
    """Trainings in the folder whose mean that is; 0 where it is assumed: ``BEST_EPOCH``, and the patience."""
    processes: int
    """That train side by side."""
    most: Wall
    """Where every training takes all ``epochs``."""
    expected: Wall
    """Where they take ``expected_epochs``."""
    busy: float
    """Seconds that the trainings take one after another, each of ``expected_epochs``."""
    results: int
    """Bytes that the folder of results will grow by."""
    cache: int
    """Bytes that the feature cache will grow by."""
    memory: int
    """Bytes that all processes hold together, without the pages of files that are mapped: these the kernel takes back
    when it needs them. Measured in this process, and in some that trained each model for a few steps."""


def estimate(
    asked: Asked,
    folder: RunFolder,
    cache: Path,
    jobs: int = 0,
    shard: Shard | None = None,
    before: float = 0.0,
    report: Report = in_silence,
) -> Estimate:
    """What ``runner.run`` would take with so many ``jobs`` to finish the plan, or its ``shard``, in ``folder``.

    ``before`` are the seconds that it took to come here: the start of the program and ``prepare.ask``.
    """
    groups = trainings(asked.wanted)
    groups = groups if shard is None else shard.of(groups)
    took = {r.digest: len(r.history) for r in finished(folder, (cell for group in groups for cell in group))}
    with keeping():
        left = [rest for group in groups if (rest := [cell for cell in group if cell.digest not in took])]
        examples, which = _kinds(left)
    # a pack stops when its last seed does
    stopped = [max(known) for group in groups if (known := [took[c.digest] for c in group if c.digest in took])]
    settings = asked.plan.training
    usual = float(np.mean(stopped)) if stopped else float(BEST_EPOCH + settings.patience)
    expected = min(usual, float(settings.epochs))
    began = time.perf_counter()
    words = _words(asked, report)
    noise = time.perf_counter() - began
    material = material_of(asked, words, cache, report)
    processes = jobs or (cores() if asked.device == "cpu" else 1)
    workers = min(processes, len(left))
    timed = _timed(asked, words, material, examples, workers, report)
    written = stored(asked, words, examples, expected)
    workers = workers if workers > 1 else 0  # one training at a time is made by the run itself
    alone = before + noise + sum(e.seconds for e in material.encodings.values()) + written.texts_seconds
    alone += timed.start if workers else 0.0
    costs = [_cost(asked, words, group, timed.of(group[0]), written) for group in examples]

    def total(each: Sequence[float]) -> list[float]:
        """What is known of each kind, of each training."""
        found: list[float] = np.array(each, np.float64)[which].tolist()
        return found

    saving = sum(total([cost.saving for cost in costs]))

    def wall(epochs: float) -> Wall:
        seconds = total([cost.fixed + epochs * cost.epoch for cost in costs])
        here, both = (max(makespan(seconds, n * processes), saving) for n in (1, 2))  # a single process stores
        return Wall(alone, here, both)

    return Estimate(
        cells=sum(map(len, groups)),
        trainings=len(groups),
        cells_done=len(took),
        trainings_left=len(left),
        encodings=material.encodings,
        noise=noise,
        epochs=settings.epochs,
        expected_epochs=expected,
        finished=len(stopped),
        processes=processes,
        most=wall(float(settings.epochs)),
        expected=wall(expected),
        busy=sum(total([cost.fixed + expected * cost.epoch for cost in costs])),
        results=round(sum(total([cost.bytes for cost in costs]))) + written.texts_bytes,
        cache=material.bytes + _bins_bytes(asked, timed, material, cache),
        memory=_memory(asked, timed, workers),
    )


def makespan(seconds: Sequence[float], workers: int) -> float:
    """When the last piece of work is done, if each worker that is free takes the next.

    >>> makespan([3, 1, 1, 2], 2)
    4.0
    """
    free = [0.0] * workers
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def _kinds(left: Sequence[Training]) -> tuple[list[Training], IntArray]:
    """One of each kind of training, and of which kind each is (n,): those of a kind take equally long."""
    number: dict[tuple[object, ...], int] = {}
    examples: list[Training] = []
    which = np.empty(len(left), np.int64)
    for place, group in enumerate(left):
        # all that a training is but its first seed, and what is asked of it
        key = (*group[0].training[1:], *(cell.regimen for cell in group))
        if key not in number:
            number[key] = len(examples)
            examples.append(group)
        which[place] = number[key]
    return examples, which


def _words(asked: Asked, report: Report) -> Words:
    """The texts of the whole plan."""
    shared = [condition for condition in asked.conditions if not depends_on_model(condition)]
    regimens = dict.fromkeys(cell.reads for cell in asked.wanted)

    def progress(done: int, total: int) -> None:
        report("noise", done, total, "noisy texts")

    return words_of(asked.plan, asked.corpus, shared, regimens, progress)


# --------------------------------------------------------------------------------- what trainings take


@dataclass(frozen=True)
class _Timed:
    """The pace of each kind of model with what it reads, seconds that a process takes to start, and bytes that it holds
    then, and after trainings of every kind."""

    paces: Mapping[tuple[str, str, int], tuple[Pace, frozenset[Modality]]]
    start: float
    empty: int
    full: int

    def of(self, cell: Cell) -> Pace:
        return self.paces[_model(cell)][0]


def _model(cell: Cell) -> tuple[str, str, int]:
    """What a training takes depends on."""
    return cell.variant.model, repr(cell.settings), cell.pack[1]


def _timed(
    asked: Asked, words: Words, material: Material, examples: Sequence[Training], workers: int, report: Report
) -> _Timed:
    """Time every kind of model, one after another, each in so many fresh processes at once: side by side they are
    slower than alone."""
    models = {_model(group[0]): group[0] for group in examples}
    if not models:
        return _Timed({}, 0.0, 0, 0)
    test = words.test[:, words.tested]
    answers = round(float(np.mean([len(np.unique(column)) for column in test.T[:1000]])))
    attacked = [condition for condition in asked.conditions if depends_on_model(condition)]
    utterances = [asked.corpus.utterances[i] for i in words.tested]
    paces: dict[tuple[str, str, int], tuple[Pace, frozenset[Modality]]] = {}
    with executor_of(max(2, workers), max(2, workers)) as executor:
        assert executor is not None, "two processes are a pool, of which one may do all"

        def each(work: Callable[..., T], *given: Trial) -> list[T]:
            """What every process makes of it."""
            coming = [executor.submit(work, *given) for _ in range(workers)]
            return [one.result() for one in coming]

        began = time.perf_counter()
        empty = max(each(started))
        start = time.perf_counter() - began
        for place, (key, cell) in enumerate(models.items()):
            report("timing", place, len(models), cell.variant.system)
            reads = cell.variant.reads
            trial = Trial(
                cell.variant.spec,
                cell.settings,
                cell.pack[1],
                asked.corpus.task,
                asked.plan.training,
                widths_of(asked.corpus, asked.using),
                material.lengths,
                material.text,
                answers if "text" in reads else 1,
                asked.plan.draws,
                attacked_of(attacked, [u.text for u in utterances], [u.target for u in utterances]),
                asked.plan.encoders.get("text", DEFAULTS["text"]),
                asked.device,
            )
            paces[key] = mean(each(pace, trial)), reads
        full = max(each(held))
    return _Timed(paces, start, empty, full)


@dataclass(frozen=True)
class _Cost:
    """Seconds of a training: ``fixed``, of them ``saving`` that the process takes which stores, and for an ``epoch``;
    and the bytes that its cells take."""

    fixed: float
    saving: float
    epoch: float
    bytes: float


def _cost(asked: Asked, words: Words, group: Training, found: Pace, written: Stored) -> _Cost:
    """What the cells of one training take that are still to be computed."""
    first, settings = group[0], asked.plan.training
    fold = asked.corpus.folds[first.fold]
    readings = len(words.validation[first.reads][first.fold])
    readings *= settings.noisy_validation_texts if first.reads.regime == "modality-dropout" else 1
    steps = -(-len(fold.train) // settings.batch_size)
    numbers = sorted({number for cell in group for number in cell.conditions})
    shared = [number for number in numbers if number < len(words.test)]
    reads = first.variant.reads
    answers = len(np.unique(answered(words, first, shared, fold.test)))
    tested = found.attack + (found.probe if any(cell.probed for cell in group) else 0.0)
    rows = [conditions_of(asked, cell) * len(fold.test) for cell in group]
    saving = sum(written.seconds[reads].at(count) for count in rows)
    fixed = found.build + answers * found.answer + len(fold.test) * tested + saving
    epoch = steps * found.step + len(fold.validation) * readings * found.validate
    return _Cost(fixed, saving, epoch, sum(written.bytes[reads].at(count) for count in rows))


def _bins_bytes(asked: Asked, timed: _Timed, material: Material, cache: Path) -> int:
    """Of voices and faces averaged onto time bins that are not there yet."""
    widths, size = widths_of(asked.corpus, asked.using), 0
    wanted = {(found.bins, m) for found, reads in timed.paces.values() for m in VOICE_AND_FACE if m in reads}
    for bins, modality in wanted:
        lengths = material.lengths[VOICE_AND_FACE.index(modality)]
        there = bins_folder(bins, sequences_of(asked, modality), cache).exists()
        if bins and not there and (lengths[lengths > 1] != bins).any():
            size += len(asked.corpus) * bins * getattr(widths, modality) * 4
    return size


# --------------------------------------------------------------------------------- memory, and all of it for people


def _memory(asked: Asked, timed: _Timed, workers: int) -> int:
    """Bytes held by this process and by so many ``workers``; without any, what trainings add to this one."""
    if not workers:
        return held() + max(0, timed.full - timed.empty)
    carried = 0
    if any(not found.bins for found, _ in timed.paces.values()):  # the others read what lies in the cache
        signals = [signal for signal in asked.corpus.signals.values() if signal.kind == "features"]
        carried = sum(_bytes_of(signal.items) for signal in signals)
    # of each of what a process is sent and of what waits for one there is a copy here
    return held() + workers * (timed.full + carried) + (workers + 1) * carried


def _bytes_of(items: Sequence[NDArray[np.generic]] | Ragged) -> int:
    """Of features that are in memory."""
    if isinstance(items, Ragged):
        return 0 if items.source else items.values.nbytes
    return sum(4 * item.size for item in items)


def rows(found: Estimate) -> list[tuple[str, str]]:
    """The estimate for a table: what, and how much of it."""
    known = f"the mean of {found.finished} finished here" if found.finished else "assumed, none is finished here"
    told = [
        ("cells", f"{found.cells:,}, of which {found.cells_done:,} are done"),
        ("trainings", f"{found.trainings:,}, of which {found.trainings_left:,} are left"),
    ]
    for modality, one in found.encodings.items():
        what = "texts" if modality == "text" else modality
        told.append(
            (
                f"{what} to encode",
                f"{one.missing:,} of {one.distinct:,} distinct among {one.items:,}: {in_time(one.seconds)}",
            )
        )
    saved = (found.expected.one - found.expected.two, found.most.one - found.most.two)
    return [
        *told,
        ("epochs of a training", f"{found.expected_epochs:.1f} expected ({known}), {found.epochs} at most"),
        ("one process for all trainings", f"{in_time(found.busy)} expected"),
        (f"time with {found.processes} processes", _both(found.expected.one, found.most.one)),
        ("of it before the first training", in_time(found.expected.alone)),
        ("a second machine like this one saves", _both(*saved)),
        ("disk, results", in_bytes(found.results)),
        ("disk, feature cache", in_bytes(found.cache)),
        ("memory of all processes", in_bytes(found.memory)),
    ]


def _both(expected: float, most: float) -> str:
    return f"{in_time(expected)} expected, {in_time(most)} at most"


def in_time(seconds: float) -> str:
    """Seconds in a unit that suits them.

    >>> [in_time(s) for s in (0.04, 7.24, 75, 3600 * 5.26, 86400 * 3)]
    ['0.0 s', '7.2 s', '1.2 min', '5.3 h', '3.0 days']
    """
    for unit, of in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= of * (2 if unit == "days" else 1):
            return f"{seconds / of:,.1f} {unit}"
    return f"{seconds:.1f} s"


def in_bytes(count: float) -> str:
    """Bytes in a unit that suits them.

    >>> [in_bytes(n) for n in (512, 5_000_000, 3 * 2**30)]
    ['0.5 KiB', '4.8 MiB', '3.0 GiB']
    """
    for unit, of in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= of:
            return f"{count / of:,.1f} {unit}"
    return f"{count / 1024:.1f} KiB"
