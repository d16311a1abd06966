"""How fast this machine is: a few steps of training, answers and encodings of each kind a plan asks for, timed.

What is trained here is thrown away. Models are timed on random features as wide and as long as those of the corpus, and
on words that were really encoded; encoders on items of the corpus itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from pydantic import BaseModel
from torch import nn

from dual_bench import probe, training
from dual_bench.certificate import certify
from dual_bench.features.encoder import Encoder, TextEncoder, encode_in_batches, text_encoder
from dual_bench.features.text import embed
from dual_bench.inputs import Inputs, Resident
from dual_bench.job import THREADS, Job, trained
from dual_bench.models.spec import ModelSpec
from dual_bench.seeding import generator
from dual_bench.training import Examples, Queries
from dual_bench.types import Condition, IntArray, Ragged, Signal, Task, Widths
from dual_bench.worst import Attack, attack

_STEPS, _READ, _TESTED, _ATTACKED = 3, 256, 32, 4
"""Steps of training in a measurement, utterances that are validated, tested and attacked in one."""
_TURNS, _ENOUGH = 3, 0.2
"""How often one is made, the first to warm up, and after how many seconds no more often."""
_RUNS, _RUN = 4, 24
"""Stretches of texts of like length that are encoded, and texts in each."""
_ITEMS = 8
"""Voices or faces that are encoded."""


@dataclass(frozen=True)
class Pace:
    """Seconds that a model takes, all the seeds of its pack together: to be built, for a step of training with a whole
    batch, for each utterance that validation reads, each distinct pair of utterance and text that is answered, each
    test utterance of the probe, and each one that is certified and attacked. ``bins``: those that it averages voice and
    face onto, 0 where it does not."""

    build: float
    step: float
    validate: float
    answer: float
    probe: float
    attack: float
    bins: int


@dataclass(frozen=True)
class Trial:
    """A model to time: ``seeds`` of it stacked, on sequences of ``lengths`` (audio, vision), each (m,), and encoded
    texts, of which a test utterance has so many, ``answers``. ``attacked`` are utterances of the corpus."""

    spec: ModelSpec
    settings: BaseModel
    seeds: int
    task: Task
    training: training.TrainingSettings
    widths: Widths
    lengths: tuple[IntArray, IntArray]
    text: Ragged
    answers: int
    draws: int
    attacked: Attack
    encoder: str
    device: str


def pace(trial: Trial) -> Pace:
    """Time a model."""
    rows = np.arange(max(_STEPS * trial.training.batch_size, _READ, _TESTED))
    rng = generator("pace")
    texts = rng.integers(len(trial.text), size=len(rows))
    targets = (rows % max(trial.task.outputs, 2)).astype(np.float64)
    with training.exact_repeats(trial.device, THREADS):
        module = training.build(trial.spec, trial.settings, trial.widths, trial.task, "pace")
        bins = int(getattr(module, "time_bins", 0))
        widths = (trial.widths.audio, trial.widths.vision)
        heard, seen = (_random(n[rows % len(n)], d, bins) for n, d in zip(trial.lengths, widths, strict=True))
        few, many = (Examples(rows[:n], texts[None, :n], targets[:n]) for n in (1, _READ))
        learnt = slice(_STEPS * trial.training.batch_size)
        job = Job(
            trial.spec,
            trial.settings,
            tuple(("pace", seed) for seed in range(trial.seeds)),
            trial.task,
            trial.training.model_copy(update={"epochs": 1}),
            Inputs(heard, seen, trial.text),
            Examples(rows[learnt], texts[None, learnt], targets[learnt]),
            few,
            0.0,
            trial.device,
        )
        _, short, *_ = _fitted(job)
        built, long, modules, resident = _fitted(replace(job, validation=many))
        asked = np.repeat(rows[:_TESTED], trial.answers)
        queries = Queries(asked, rng.integers(len(trial.text), size=len(asked)))
        answered = _timed(lambda: training.predict_all(modules, resident, trial.task, queries), trial.device)
        wanted = probe.drawn(rows[:_TESTED], texts[:_TESTED], trial.draws, 0, "pace")
        probed = _timed(lambda: [probe.probe(one, resident, trial.task, wanted) for one in modules], trial.device)
        certified = _timed(lambda: [certify(one, resident, rows[:_TESTED]) for one in modules], trial.device)
        attacked = 0.0
        if trial.attacked.conditions:
            encoder = text_encoder(trial.encoder, trial.device)
            encoder(["a"])  # loads its weights

            def hurt() -> object:
                return [attack(one, resident, trial.task, trial.attacked, encoder) for one in modules]

            attacked = _timed(hurt, trial.device) / len(trial.attacked.rows)
    return Pace(
        build=built,
        step=short / _STEPS,
        validate=max(0.0, long - short) / (_READ - 1),
        answer=answered / len(asked),
        probe=probed / _TESTED,
        attack=attacked + certified / _TESTED,
        bins=bins,
    )


def mean(paces: Sequence[Pace]) -> Pace:
    """Of several processes that timed the same.

    >>> mean([Pace(1, 1, 1, 1, 1, 1, bins=16), Pace(3, 1, 1, 1, 1, 2, bins=16)])
    Pace(build=2.0, step=1.0, validate=1.0, answer=1.0, probe=1.0, attack=1.5, bins=16)
    """
    seconds = [(p.build, p.step, p.validate, p.answer, p.probe, p.attack) for p in paces]
    build, step, validate, answer, probed, attacked = np.mean(seconds, axis=0).tolist()
    return Pace(build, step, validate, answer, probed, attacked, paces[0].bins)


def attacked_of(conditions: Sequence[Condition], texts: Sequence[str], targets: Sequence[float]) -> Attack:
    """A few utterances to attack."""
    n = min(_ATTACKED, len(texts))
    return Attack(
        tuple(conditions),
        np.arange(n),
        tuple(f"u{i}" for i in range(n)),
        tuple(texts[:n]),
        np.array(targets[:n], np.float64),
        0,
    )


def _random(lengths: IntArray, width: int, bins: int) -> Ragged:
    """Sequences of noise, averaged onto ``bins`` where a model does so. They are stretches of one: what is timed does
    not depend on the numbers."""
    lengths = np.where(lengths > 1, bins, lengths) if bins else lengths
    longest = int(lengths.max())
    values = generator("pace", "features").standard_normal((2 * longest, width), np.float32)
    starts = np.arange(len(lengths)) % (longest + 1)
    return Ragged(values, starts, lengths)


def _fitted(job: Job) -> tuple[float, float, list[nn.Module], Resident]:
    """Seconds of building the models of a job, and of training them; the models, and what they read."""
    built: list[float] = []
    fitted: list[float] = []
    made: list[tuple[list[nn.Module], Resident]] = []

    def train() -> None:
        began = time.perf_counter()
        modules, resident, fits = trained(job)
        fitted.append(sum(one.seconds for one in fits))
        built.append(time.perf_counter() - began - fitted[-1])
        made[:] = [(modules, resident)]

    _timed(train, job.device)
    return median(built[1:] or built), median(fitted[1:] or fitted), *made[0]


def _timed(work: Callable[[], object], device: str) -> float:
    """The median of a few turns, of the first alone where that takes long."""
    seconds: list[float] = []
    while not seconds or (len(seconds) < _TURNS and sum(seconds) < _ENOUGH):
        began = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:] or seconds)


# ------------------------------------------------------------------------------------------- encoders


@dataclass(frozen=True)
class Encoding:
    """Seconds that an encoder takes to load and for an item, and steps of an item in the mean; ``found`` are items that
    were encoded."""

    load: float
    item: float
    steps: float
    found: Ragged


def text_pace(texts: Sequence[str], encoder: TextEncoder) -> Encoding:
    """Time the encoder on some of the distinct ``texts``; of like length together, as ``encode_texts`` has them."""
    began = time.perf_counter()
    encoder(["a"])
    load = time.perf_counter() - began
    ordered = sorted(texts, key=len)
    middles = [len(ordered) * (2 * run + 1) // (2 * _RUNS) for run in range(_RUNS)]
    runs = [ordered[max(0, middle - _RUN // 2) :][:_RUN] for middle in middles]
    began = time.perf_counter()
    encoded = [np.asarray(tokens) for run in runs for tokens in embed(run, encoder)]
    seconds = time.perf_counter() - began
    return Encoding(load, seconds / len(encoded), float(np.mean([len(t) for t in encoded])), Ragged.pack(encoded))


def signal_pace(signal: Signal, encoder: Encoder) -> Encoding:
    """Time the encoder on some items of a voice or a face."""
    chosen = np.unique(np.linspace(0, len(signal.items) - 1, _ITEMS).astype(int)).tolist()
    items = [(i, np.asarray(signal.items[i])) for i in chosen]
    began = time.perf_counter()
    list(encode_in_batches(encoder, items[:1], signal.rate))  # loads its weights, if it has some
    between = time.perf_counter()
    found = [np.asarray(rows, np.float32) for _, rows in encode_in_batches(encoder, items, signal.rate)]
    item = (time.perf_counter() - between) / len(items)
    load = max(0.0, between - began - item)
    return Encoding(load, item, float(np.mean([len(rows) for rows in found])), Ragged.pack(found))


# ------------------------------------------------------------------------------------------- memory


def held() -> int:
    """Bytes that this process has held at most: its peak without the pages of files, which the kernel can take back and
    processes share. With them where the system does not tell them apart."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = (line.partition(":") for line in status.read_text("utf-8").splitlines())
        found = {name: value.split() for name, _, value in lines}
        if "VmHWM" in found and "RssFile" in found:
            return 1024 * (int(found["VmHWM"][0]) - int(found["RssFile"][0]))
    import resource  # not everywhere

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def started() -> int:
    """The same, when all is loaded that the first training of a process needs."""
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # loads hundreds of modules
    return held()
