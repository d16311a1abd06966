"""Training five seeds of DUAL: ours against a DataLoader loop for each seed in turn (``peers.train``), in one run.

    python benchmarks/training.py --out training.md

Two studies: DUAL at width 64 on features as large as those of the field (``made``), and the default DUAL on the
embedded corpus. Ours trains as `dual-bench run` does: what a cell needs goes to a process of one thread, as many of
them as there are cores, which were started before. Theirs trains in this process, with torch's default threads. Both
train for the same number of epochs, with a validation after each. Features and words are encoded before, for both, and
standardised (theirs) or averaged onto bins, with their scales known (ours).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch
from showing import Section, Table, arguments, tell
from timing import Ratio, in_turns, matmul_rate, seconds_of
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from dual_bench import training
from dual_bench.features.cache import default_folder
from dual_bench.job import Job, work
from dual_bench.plan import read_plan
from dual_bench.prepare import Encoded, ask, encode_all, training_job
from dual_bench.processes import cores, executor_of
from dual_bench.training import Examples, Queries
from dual_bench.types import IntArray

SEEDS = 5
COUNTED = 4
"""Every fourth utterance is enough to count operations, and to see where the time goes."""


@dataclass(frozen=True)
class Case:
    """Something to train, and the ratio that is asked for."""

    title: str
    dataset: str
    model: str
    epochs: int
    asked: float


CASES = (
    Case(
        "DUAL at width 64, audio 50 x 768, vision 30 x 512, text 30 x 384",
        "made:load:train=642,validation=115,test=64",
        "dual:width=64",
        2,
        2.0,
    ),
    Case("the default DUAL on the embedded corpus", "synthetic", "dual", 2, 2.5),
)
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "as by default": {},
    "batches by length": {"bucketing": True},
    "packs of 3 and 2 seeds": {"pack": 3},
    "batches by length, packs": {"bucketing": True, "pack": 3},
}
"""Ways of ours to train, as settings of the plan's table ``training``; each is a row of its own."""


def ready(dataset: str, models: Sequence[str], cache: Path, training: Mapping[str, Any], **fields: Any) -> Encoded:
    """A study with everything encoded: by default of five seeds that train and are tested on clean text."""
    given = {"metric": "", "regimes": ["clean"], "rates": [0.0], "draws": 1, "seeds": SEEDS, "dependency": False}
    plan = read_plan("default", {"dataset": dataset, "models": models, **given, **fields, "training": training})
    return encode_all(ask(plan, None, Path(), cache, "cpu"), cache)


def jobs_of(study: Encoded) -> list[Job]:
    """What each model of a study, or each pack of them, needs in training; asked about a single test utterance."""
    fold = study.corpus.folds[0]
    one = Queries(fold.test[:1], study.words.test[0, fold.test[:1]])
    found = []
    for cell in {cell.training: cell for cell in study.wanted}.values():
        streams = [(study.plan.root_seed, seed, fold.name) for seed in cell.packed]
        found.append(replace(training_job(study, cell, streams), queries=one))
    return found


def as_they_came(study: Encoded, job: Job) -> Job:
    """The same with every step of voice and face, as the plain way reads them."""
    return replace(job, inputs=study.inputs[0])


def in_processes(pool: Executor | None, jobs: Sequence[Job]) -> None:
    """Train as a run does."""
    if pool is None:
        for job in jobs:
            work(job)
        return
    for done in wait([pool.submit(work, job) for job in jobs]).done:
        done.result()


def as_utterances(job: Job, rows: IntArray, texts: IntArray, targets: Any) -> peers.Utterances:
    """The utterances of a job as the plain way holds them."""
    inputs = job.inputs
    words = [[torch.from_numpy(np.array(inputs.text[i])) for i in version] for version in texts]
    audio, vision = (peers.standardised(part, job.train.rows) for part in (inputs.audio, inputs.vision))
    targets = torch.from_numpy(np.asarray(targets, np.float32))
    return peers.Utterances([audio[i] for i in rows], [vision[i] for i in rows], words, targets)


def parts_of(job: Job) -> list[peers.Utterances]:
    """What the plain way trains on, and what it validates with."""
    return [as_utterances(job, part.rows, part.texts, part.targets) for part in (job.train, job.validation)]


def one_by_one(jobs: Sequence[Job], parts: Sequence[peers.Utterances], workers: int = 0) -> None:
    """Train the plain way: one seed after another on the same ``parts``."""
    for number, job in enumerate(jobs):
        module = training.build(job.spec, job.settings, job.inputs.widths, job.task, *job.streams[0])
        own = training.settings_for(job.settings, job.training)
        peers.train(module, parts[0], parts[1], job.task, own, number, workers)


def contest(case: Case, cache: Path, repetitions: int) -> tuple[list[Ratio], list[tuple[str, ...]], list[Job]]:
    """The ratios of one case, a row of details for each contestant, and the first job of each of ours."""
    settings = {"epochs": case.epochs, "patience": case.epochs}
    studies = {name: ready(case.dataset, [case.model], cache, {**settings, **more}) for name, more in OPTIONS.items()}
    jobs = {name: jobs_of(study) for name, study in studies.items()}
    study, ours = next(iter(studies.values())), next(iter(jobs.values()))
    plain = [as_they_came(study, job) for job in ours]
    parts = parts_of(plain[0])
    with executor_of(cores(), SEEDS) as pool:
        contestants: dict[str, Callable[[], object]] = {
            name: lambda chosen=chosen: in_processes(pool, chosen) for name, chosen in jobs.items()
        }
        contestants["DataLoader"] = lambda: one_by_one(plain, parts)
        short = [replace(job, training=job.training.model_copy(update={"epochs": 1})) for job in ours[: cores()]]
        in_processes(pool, short)  # whatever is done once and for all
        one_by_one([replace(plain[0], training=short[0].training)], parts)
        found = in_turns(contestants, repetitions)
        theirs = found.pop("DataLoader")
        with_workers = SEEDS * seconds_of(lambda: one_by_one(plain[:1], parts, workers=2))
    ratios = [
        Ratio(
            f"training 5 seeds: {case.title}", f"ours, {name}", "DataLoader, seed by seed", seconds, theirs, case.asked
        )
        for name, seconds in found.items()
    ]
    looks = SEEDS * case.epochs * len(plain[0].train.rows)
    rows = [
        (case.title, name, f"{looks / np.median(seconds):,.0f}")
        for name, seconds in (*found.items(), ("DataLoader", theirs))
    ]
    rows.append((case.title, "DataLoader, 2 workers (one seed, once)", f"{looks / with_workers:,.0f}"))
    return ratios, rows, [each[0] for each in jobs.values()]


def part_of(job: Job, every: int) -> Job:
    """An epoch of it on every so manieth utterance."""
    train, validation = (
        Examples(part.rows[::every], part.texts[:, ::every], part.targets[::every])
        for part in (job.train, job.validation)
    )
    shorter = job.training.model_copy(update={"epochs": 1})
    return replace(job, train=train, validation=validation, training=shorter)


def flops(job: Job) -> float:
    """Of one epoch of training with its validation, by torch's own counter; counted on every ``COUNTED``th utterance
    and scaled up, because the counter calls Python for every step of a recurrence."""
    one = part_of(job, COUNTED)
    with warnings.catch_warnings(), FlopCounterMode(display=False) as counter:
        warnings.simplefilter("ignore")  # torch warns about the switch of another kind of processor
        with torch.backends.mkldnn.flags(enabled=False):  # its recurrence is one operation that nobody can count in
            work(one)
    return float(counter.get_total_flops()) * COUNTED


GROUPS: Mapping[str, frozenset[str]] = {
    "matrix products": frozenset({"mm", "addmm", "bmm", "baddbmm", "addbmm"}),
    "recurrence": frozenset({"mkldnn_rnn_layer", "mkldnn_rnn_layer_backward", "lstm"}),
    "dropout": frozenset({"bernoulli", "dropout", "native_dropout", "native_dropout_backward"}),
    "copies": frozenset(
        {"copy", "index", "index_select", "index_put", "_index_put_impl", "gather", "scatter", "cat", "stack", "clone",
         "contiguous", "_to_copy", "where", "fill", "zero", "masked_fill", "arange"}
    ),
    "optimiser": frozenset({"_fused_adamw", "linalg_vector_norm", "_foreach_norm", "_foreach_mul", "nan_to_num"}),
    "views and new tensors": frozenset(
        {"view", "_unsafe_view", "reshape", "as_strided", "t", "transpose", "permute", "expand", "select", "slice",
         "split", "split_with_sizes", "chunk", "narrow", "unsqueeze", "squeeze", "empty", "empty_strided", "empty_like",
         "resize", "detach", "alias", "flatten", "unflatten", "diagonal"}
    ),
}  # fmt: skip
"""Operations of torch, without the underscore at the end of those that act in place."""


def group_of(operation: str) -> str:
    """Which group an operation of the profiler belongs to.

    >>> [group_of(name) for name in ("aten::addmm", "aten::copy_", "Optimizer.step#AdamW.step", "aten::gelu")]
    ['matrix products', 'copies', 'optimiser', 'norms, activations, attention weights, sums']
    """
    if operation.startswith("Optimizer."):
        return "optimiser"
    if not operation.startswith("aten::"):
        return "autograd's own"
    name = operation.removeprefix("aten::").rstrip("_")
    found = (group for group, names in GROUPS.items() if name in names)
    return next(found, "norms, activations, attention weights, sums")


def spent(job: Job) -> dict[str, float]:
    """Shares of one epoch of every ``COUNTED``th utterance that each group of operations takes, largest first; by
    torch's profiler, which slows small operations, and Python, down."""
    one = part_of(job, COUNTED)
    work(one)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        seconds = seconds_of(lambda: work(one))
    shares: dict[str, float] = {}
    for event in seen.key_averages():
        group = group_of(event.key)
        shares[group] = shares.get(group, 0.0) + event.self_cpu_time_total / 1e6 / seconds
    shares["Python, and the profiler itself"] = 1 - sum(shares.values())
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def measure(repetitions: int) -> Section:
    cache = default_folder()
    found = [contest(case, cache, repetitions) for case in CASES]
    rate = matmul_rate(cores())
    use, profiles = [], []
    for case, (ratios, _, jobs) in zip(CASES, found, strict=True):
        profiles.append(spent(jobs[0]))
        for ratio, job in zip(ratios, jobs, strict=True):
            done = SEEDS / len(job.streams) * case.epochs * flops(job)
            reached = done / ratio.our_median / 1e9
            use.append((case.title, ratio.ours, f"{done / 1e9:,.0f}", f"{reached:.1f}", f"{reached / rate:.0%}"))
    groups = list(dict.fromkeys(group for shares in profiles for group in shares))
    about = (
        f"Five seeds, batches of 64, {cores()} cores. Ours: a process of one thread a core. Against: "
        f"`benchmarks/peers.py` in one process of {torch.get_num_threads()} threads, the same module, AdamW, clipping "
        "and validation. Neither stops early: "
        + ", ".join(f"{case.epochs} epochs of {case.title}" for case in CASES)
        + ". Before the clock starts, for both: features and words are encoded and lie in memory or in mapped files, "
        "and one epoch has been trained. For ours also: processes are started, voice and face are averaged onto the "
        "model's bins, and their means and scales are known. For the alternative also: voice and face are "
        "standardised, and every utterance is a tensor. "
        "`made` has half as many utterances as CMU-MOSI's training and validation parts, with the lengths described in "
        "`benchmarks/made.py`. Floating-point operations are counted by torch's counter over what ours does in an "
        f"epoch on every {COUNTED}th utterance, validation too, and scaled up; this "
        f"machine's matrix product was at {rate:.0f} GFLOP/s in {cores()} threads. The "
        f"profile is that of one process, an epoch on every {COUNTED}th utterance."
    )
    tables = (
        Table(
            "Utterances a second in training", ("what", "how", "utterances/s"), tuple(r for f in found for r in f[1])
        ),
        Table("Share of the matrix product's rate", ("what", "how", "GFLOP", "GFLOP/s", "share"), tuple(use)),
        Table(
            "Where the time of ours goes",
            ("", *(case.title for case in CASES)),
            tuple((group, *(f"{shares.get(group, 0.0):.0%}" for shares in profiles)) for group in groups),
        ),
    )
    return Section("Training", about, tuple(ratio for ratios, *_ in found for ratio in ratios), tables=tables)


def main() -> None:
    asked = arguments(__doc__, repetitions=3).parse_args()
    torch.set_num_threads(cores())  # torch's default, whatever the environment says
    tell(measure(asked.repetitions), asked)


if __name__ == "__main__":
    main()
