"""One trained model: all that training and prediction see, in one parcel for a process, and what comes back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import nn

from dual_bench import training
from dual_bench.certificate import Certificate, certify
from dual_bench.features.encoder import DEFAULTS, TextEncoder, text_encoder
from dual_bench.inputs import Inputs, Resident
from dual_bench.models.spec import ModelSpec, modalities_of, parameter_count
from dual_bench.probe import Probe, probe
from dual_bench.training import Examples, Queries
from dual_bench.types import DualBenchError, Task
from dual_bench.worst import Attack, Found, attack

THREADS = 1
"""Of each process, so that no number depends on how many processes there are."""


_NOTHING = Queries(np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True)
class Job:
    """All that training and prediction see, in one parcel for a process.

    There is a model for each of ``streams``, and they are trained stacked where there are several. A stream names the
    first weights, the batches and the dropout. It knows the seed and the fold, not the model and not the regime: all
    models read the same batches in the same order, and models of one shape start from the same weights.

    Test labels are not among it, but in ``attack``: the worst case is sought with the truth, on frozen weights. Where
    a plan has a model that does not come with dual-bench they are not even there: its attacks come later, where nothing
    is trained (``attacked``).
    """

    spec: ModelSpec
    settings: BaseModel
    streams: tuple[tuple[str | int, ...], ...]
    task: Task
    training: training.TrainingSettings
    inputs: Inputs
    train: Examples
    validation: Examples
    absent: float
    """Probability that an utterance trains without a modality."""
    device: str
    queries: Queries = _NOTHING
    attack: Attack | None = None
    encoder: str = DEFAULTS["text"]
    """Of the words that the attack tries."""
    probe: Probe | None = None
    weights: bool = False
    """Whether the weights are wanted back."""


@dataclass(frozen=True)
class Outcome:
    """What comes back: scores (queries, K), what the attack found, what text can do, what is ``probed`` (conditions of
    the probe, n, K), and how they came about."""

    scores: NDArray[np.float32]
    worst: Found | None
    certificate: Certificate | None
    probed: NDArray[np.float32] | None
    fit: training.Fit
    parameters: int
    seconds_predict: float
    weights: dict[str, NDArray[np.generic]] | None = None
    """Of the trained module, by name, where they are wanted."""


@cache
def _encoder(spec: str, device: str) -> TextEncoder:
    """One for all jobs of a process; its weights take seconds to load."""
    return text_encoder(spec, device)


def trained(job: Job) -> tuple[list[nn.Module], Resident, list[training.Fit]]:
    """Build the models and train them; asks nothing of the test part."""
    widths = job.inputs.widths
    modules = [training.build(job.spec, job.settings, widths, job.task, *one).to(job.device) for one in job.streams]
    resident = _resident(job, modules[0])
    parts = (resident, job.train, job.validation, job.task, training.settings_for(job.settings, job.training))
    if len(modules) == 1:
        return modules, resident, [training.fit(modules[0], *parts, *job.streams[0], absent=job.absent)]
    return modules, resident, training.fit_stacked(modules, *parts, job.streams, job.absent)


def work(job: Job) -> list[Outcome]:
    """Train the models and ask them everything; an outcome for each stream."""
    with training.exact_repeats(job.device, THREADS):
        modules, resident, fits = trained(job)
        began = time.perf_counter()
        scores = training.predict_all(modules, resident, job.task, job.queries)
        share = (time.perf_counter() - began) / len(modules)
        each = zip(modules, fits, scores, strict=True)
        return [_asked(job, module, resident, fit, found, share) for module, fit, found in each]


def answers(job: Job, weights: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    """What a model of these ``weights`` says to the queries, (queries, K); nothing is trained.

    RuntimeError where they are not those of such a model.
    """
    with training.exact_repeats(job.device, THREADS):
        module = _frozen(job, weights)
        return training.predict(module, _resident(job, module), job.task, job.queries)


def attacked(job: Job, outcomes: Sequence[Outcome], wanted: Attack) -> list[Outcome]:
    """The ``outcomes`` of a job without attack, one for each stream, with what one finds on the weights they hold.

    DualBenchError where a model of these weights does not answer as the one that was trained: another would be
    attacked.
    """
    found = []
    with training.exact_repeats(job.device, THREADS):
        modules = [_frozen(job, outcome.weights or {}) for outcome in outcomes]
        resident = _resident(job, modules[0])
        answered = training.predict_all(modules, resident, job.task, job.queries)
        for module, outcome, again in zip(modules, outcomes, answered, strict=True):
            if not np.allclose(again, outcome.scores, rtol=0, atol=1e-5, equal_nan=True):
                raise DualBenchError(
                    f"model '{job.spec.name}' answers otherwise once it is made again from its weights: expected the "
                    f"same scores, found some that are {np.nanmax(np.abs(again - outcome.scores)):.2g} apart; keep all "
                    "that it learns in parameters and buffers, or leave out corruptions that depend on the model"
                )
            began = time.perf_counter()
            worst = attack(module, resident, job.task, wanted, _encoder(job.encoder, job.device))
            seconds = outcome.seconds_predict + time.perf_counter() - began
            found.append(replace(outcome, worst=worst, seconds_predict=seconds))
    return found


def _frozen(job: Job, weights: Mapping[str, NDArray[np.generic]]) -> nn.Module:
    """A trained model again, from its weights."""
    module = training.build(job.spec, job.settings, job.inputs.widths, job.task, *job.streams[0])
    module.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return module.to(job.device)


def _resident(job: Job, module: nn.Module) -> Resident:
    """What such a module reads, where it computes."""
    return Resident(job.inputs, job.train.rows, modalities_of(module), job.device)


def _asked(
    job: Job, module: nn.Module, resident: Resident, fit: training.Fit, scores: NDArray[np.float32], seconds: float
) -> Outcome:
    """What a trained model is asked besides its ``scores``, which took ``seconds``."""
    began = time.perf_counter()
    encoder = _encoder(job.encoder, job.device)
    worst = None if job.attack is None else attack(module, resident, job.task, job.attack, encoder)
    certificate = certify(module, resident, np.unique(job.queries.rows))
    probed = None if job.probe is None else probe(module, resident, job.task, job.probe)
    seconds += time.perf_counter() - began
    state = {name: value.cpu().numpy() for name, value in module.state_dict().items()} if job.weights else None
    return Outcome(scores, worst, certificate, probed, fit, parameter_count(module), seconds, state)
