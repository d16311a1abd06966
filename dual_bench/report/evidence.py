"""Everything a report says, computed once from stored rows; sentences, tables and figures only read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from dual_bench import seeding
from dual_bench.catalog import METRICS
from dual_bench.confidence import ECE, ece_noise
from dual_bench.metrics import Metric
from dual_bench.report import grid, unfinished
from dual_bench.report.certified import Certified, gather_certified
from dual_bench.report.noise import Noise, Place
from dual_bench.report.rows import Rows, read
from dual_bench.schema import CellInfo, StudyInfo
from dual_bench.stats.contrasts import Contrast, Pair, compare, every_pair
from dual_bench.stats.curves import Estimate, estimate_of, key, of_metric, of_sums, overall, point, rates, retention
from dual_bench.stats.dependency import Dependence, dependency
from dual_bench.stats.effects import Effect, effects
from dual_bench.stats.frame import Cube, Key, cube, system_name
from dual_bench.stats.intervals import no_interval
from dual_bench.stats.resampling import Point, Weights, combined, resample
from dual_bench.store import Run
from dual_bench.types import TRANSCRIPT_PREFIX

RESAMPLES = 2_000
LEVEL = 0.95
EVERYTHING = "audio+vision+text"
MATCHED = unfinished.MATCHED


@dataclass(frozen=True)
class Evidence:
    """A run, summed and resampled; ``ends`` holds every metric, but only under the conditions of ``places``."""

    run: Run
    metric: Metric
    taken: Rows
    ends: Mapping[str, Cube]
    weights: Weights
    reference: str | None
    contrasts: tuple[Contrast, ...]
    effects: tuple[Effect, ...] = ()
    """What the comparisons of an ablation show; ``contrasts`` are those of a run without a study."""
    certified: Mapping[tuple[str, str], Certified] = field(default_factory=dict)
    """(system, regime) -> what holds whatever the text, of models that bound it."""

    @property
    def cube(self) -> Cube:
        """The primary metric under every condition."""
        return self.taken.cube

    @property
    def noise(self) -> Noise:
        """What the corruptions did."""
        return self.taken.noise

    @property
    def heaviest(self) -> Place | None:
        """Where they left least."""
        return self.taken.heaviest

    @property
    def few(self) -> pd.DataFrame:
        """The prediction rows (``schema.PREDICTION_COLUMNS`` and scores) under the conditions of ``places``."""
        return self.taken.few

    @property
    def answers(self) -> pd.DataFrame:
        """What each trained model answered, in the first draw, to clean text and to two rates of each corruption:
        columns ``rows.ANSWER_COLUMNS``."""
        return self.taken.answers

    @property
    def study(self) -> StudyInfo | None:
        """What an ablation asked."""
        return self.run.info.study

    def title(self, system: str) -> str:
        """What people read for a system: the name that an ablation gave it, or its own."""
        return self.study.titles.get(system, system) if self.study else system

    @cached_property
    def systems(self) -> tuple[str, ...]:
        """In the order of the plan, the reference first."""
        found = self.cube.systems()
        wanted = [unfinished.find_system(spec, found) for spec in self.run.info.plan["models"]]
        return tuple(dict.fromkeys(s for s in (self.reference, *wanted, *found) if s is not None))

    @cached_property
    def regimes(self) -> tuple[str, ...]:
        found = self.cube.regimes()
        return tuple(dict.fromkeys(r for r in (*self.run.info.plan["regimes"], *found) if r in found))

    def trained(self, regime: str) -> tuple[str, ...]:
        """The systems that were trained in ``regime``."""
        there = {k.system for k in self.cube.sums if k.regime == regime}
        return tuple(s for s in self.systems if s in there)

    def rows(self) -> Iterator[tuple[str, str]]:
        """(regime, system) in the order in which tables list them."""
        return ((regime, system) for regime in self.regimes for system in self.trained(regime))

    @cached_property
    def corruptions(self) -> tuple[str, ...]:
        """Those with a nominal rate, in the order of the plan."""
        found = [c for c in self.cube.corruptions() if not c.startswith(TRANSCRIPT_PREFIX) and self.cube.rates(c)]
        return tuple(dict.fromkeys(c for c in (*self.run.info.plan["corruptions"], *found) if c in found))

    @cached_property
    def grid(self) -> grid.Grid | None:
        """Corruptions by severity, or by rate."""
        return grid.make(self.corruptions, self.noise, {name: self.cube.rates(name) for name in self.corruptions})

    @cached_property
    def transcripts(self) -> tuple[str, ...]:
        return tuple(c for c in self.cube.corruptions() if c.startswith(TRANSCRIPT_PREFIX))

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Clean text, the heaviest noise, and what real recognisers heard."""
        heaviest = (self.heaviest,) if self.heaviest else ()
        heard = (Place(c.removeprefix(TRANSCRIPT_PREFIX) + " text", c, 1.0) for c in self.transcripts)
        return (Place("clean text", "clean", 0.0), *heaviest, *heard)

    @cached_property
    def poles(self) -> tuple[Place, ...]:
        """Clean text, and the heaviest noise where there is some."""
        return tuple(place for place in self.places if place.rate == 0 or place == self.heaviest)

    @cached_property
    def curves(self) -> dict[tuple[str, str, str], list[tuple[float, Estimate]]]:
        """(system, regime, corruption) -> the degradation curve of the primary metric."""
        return {
            (system, regime, corruption): [
                (rate, self.at(system, regime, self.noise.place(corruption, rate)))
                for rate in rates(self.cube, corruption)
            ]
            for corruption in self.corruptions
            for regime, system in self.rows()
        }

    def at(self, system: str, regime: str, place: Place, metric: Metric | None = None) -> Estimate:
        """A metric of one system under one condition: of ``places``, or any for the primary metric."""
        where = key(system, regime, place.corruption, place.rate)
        if metric is None or metric is self.metric:
            return self._once("at", where, lambda: of_metric(self.metric, self.point(where), LEVEL))
        if metric.about == "confidence":
            found = of_sums(metric, self.ends[metric.name].sums[where], LEVEL)
            return noticeable(found, self.cube.utterances, LEVEL) if metric is ECE else found
        return of_metric(metric, point(self.ends[metric.name], where, self.weights), LEVEL)

    def _once(self, what: str, where: Key, make: Callable[[], Estimate]) -> Estimate:
        """An estimate that many figures and tables ask for."""
        if (what, where) not in self._estimates:
            self._estimates[what, where] = make()
        return self._estimates[what, where]

    @cached_property
    def _estimates(self) -> dict[tuple[str, Key], Estimate]:
        return {}

    def point(self, where: Key) -> Point:
        """The primary metric under any condition."""
        return point(self.cube, where, self.weights)

    def loss(self, system: str, regime: str, place: Place) -> Estimate:
        """How much worse the primary metric is there than on clean text, paired: positive is a loss."""
        where = key(system, regime, place.corruption, place.rate)
        return self._once("loss", where, lambda: self._loss(where))

    def _loss(self, where: Key) -> Estimate:
        sign = 1 if self.metric.higher_is_better else -1
        clean = self.point(key(where.system, where.regime, "clean", 0.0))
        return estimate_of(combined([(sign, clean), (-sign, self.point(where))]), LEVEL)

    def retained(self, system: str, regime: str, place: Place) -> tuple[Estimate, Estimate]:
        """What is left there of the primary metric on clean text: (plain, above the floor)."""
        there, clean = (self.point(key(system, regime, p.corruption, p.rate)) for p in (place, self.places[0]))
        return retention(self.metric, there, clean, self.floor(), LEVEL)

    def sums_up(self, corruption: str) -> str:
        """What ``overall`` is of a corruption: the ``mean`` over its severities, or the ``area`` under its curve."""
        return "mean" if corruption in self.noise.severities else "area"

    def ranking(self, system: str, regime: str) -> list[tuple[str, Estimate]]:
        """(corruption, loss) in the last column of the grid, the largest loss first."""
        grid = self.grid
        rates = {n: spot.rate for (n, column), spot in grid.spots.items() if column == grid.last} if grid else {}
        losses = {n: self.loss(system, regime, Place("", n, rate)) for n, rate in rates.items()}
        return sorted(((n, e) for n, e in losses.items() if np.isfinite(e.value)), key=lambda pair: -pair[1].value)

    def whole(self, system: str, regime: str, corruption: str) -> Point:
        """The primary metric over a whole corruption: the mean over its severities, or the area under its curve."""
        if (system, regime, corruption) not in self._wholes:
            rates = self.noise.rates.get(corruption, ())
            self._wholes[system, regime, corruption] = overall(
                self.cube, system, regime, corruption, self.weights, rates
            )
        return self._wholes[system, regime, corruption]

    @cached_property
    def _wholes(self) -> dict[tuple[str, str, str], Point]:
        return {}

    def overall(self, system: str, regime: str, corruption: str) -> Estimate:
        """The same with its interval."""
        return of_metric(self.metric, self.whole(system, regime, corruption), LEVEL)

    @cached_property
    def dependence(self) -> tuple[Dependence, ...]:
        """What each modality is worth, from the rows in which some were taken away; none where there are no such."""
        probes, info = self.taken.probes, self.run.info
        if probes is None:
            return ()
        rng = seeding.generator("bootstrap of probes", int(info.plan["root_seed"]))
        weights = resample(rng, len(probes.seeds), probes.draws, len(probes.clusters), RESAMPLES)
        return dependency(probes, weights, info.ceilings, LEVEL)

    def floor(self, metric: Metric | None = None) -> float:
        found = self.run.info.floors.get((metric or self.metric).name)
        return np.nan if found is None else found

    def ceiling(self, corruption: str, modalities: str = EVERYTHING) -> list[tuple[float, float]]:
        """(nominal rate, exact accuracy) from clean text on; empty where it is not known, or not what is measured."""
        if self.metric.name != "accuracy":
            return []
        known = [p for p in self.run.info.ceilings if p.modalities == modalities and np.isfinite(p.accuracy)]
        points = {p.rate: p.accuracy for p in known if p.corruption == corruption}
        if not points:
            return []
        return sorted(({p.rate: p.accuracy for p in known if p.corruption == "clean"} | points).items())

    def contrast(self, system: str, regime: str, place: Place) -> Contrast | None:
        """The comparison of ``system`` with the reference under one condition."""
        names = {place.corruption, f"{place.corruption} {place.rate}"}
        pairs = ({self.reference, system}, regime)
        return next((c for c in self.contrasts if ({c.left, c.right}, c.regime) == pairs and c.quantity in names), None)

    def pairwise(self, regime: str, place: Place) -> tuple[Pair, ...]:
        """Every system trained in ``regime`` against each other under one condition; computed once."""
        if (regime, place) not in self._pairwise:
            points = {s: self.point(key(s, regime, place.corruption, place.rate)) for s in self.trained(regime)}
            self._pairwise[regime, place] = every_pair(points, self.metric.higher_is_better, LEVEL)
        return self._pairwise[regime, place]

    @cached_property
    def _pairwise(self) -> dict[tuple[str, Place], tuple[Pair, ...]]:
        return {}

    def no_interval(self) -> str:
        """Why estimates have no interval, or nothing."""
        system = next(iter(self.cube.sums))
        return self.at(system.system, system.regime, self.places[0]).interval.reason

    def cells(self, system: str, regime: str) -> list[CellInfo]:
        """The finished cells of one system."""
        return [c for c in self.run.cells if (system_name(c.model, c.variant), c.regime) == (system, regime)]

    def problems(self) -> tuple[str, ...]:
        """What is missing or left out, in plain words."""
        info = self.run.info
        said = [*self.run.faults, *unfinished.unfinished(self.run)]
        said += [f"{sentence[:1].upper()}{sentence[1:]}." for sentence in self.cube.skipped]
        said += info.source.notes if info.source else ()
        if self.taken.probed and not self.dependence:
            said.append(
                "The rows in which modalities are absent or exchanged are not used: no training seed has them, and "
                "clean text, of every utterance."
            )
        if self.reference is None:
            said.append(f"The reference, {info.plan['models'][0]}, has no finished cell: nothing is compared with it.")
        return tuple(said)


def gather(run: Run) -> Evidence:
    """Sum the rows of ``run``, resample them, and compare every system with the reference."""
    plan = run.info.plan
    primary: Metric = METRICS.load(plan["metric"])
    rows = read(run, primary)
    full = rows.cube
    rng = seeding.generator("bootstrap", int(plan["root_seed"]))
    weights = resample(rng, len(full.seeds), full.draws, len(full.clusters), RESAMPLES)
    known: list[Metric] = [METRICS.load(name) for name in METRICS.entries]
    judged = [m for m in known if m.about == "prediction" or run.info.source is None or run.info.source.probabilities]
    others = [m for m in judged if m.task == run.info.corpus.task and m.name != primary.name]
    # cores side by side in this work are more use than cores in each matrix product
    with threadpool_limits(1), ThreadPoolExecutor() as pool:
        cubes = pool.map(partial(cube, rows.few), others)
        list(pool.map(lambda where: point(full, where, weights), full.sums))  # each is asked for below, one by one
        ends = {primary.name: full} | {m.name: found for m, found in zip(others, cubes, strict=True)}
    certified = gather_certified(rows.certified, run.cells, full, weights, LEVEL)
    found: tuple[Effect, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    reference = _reference(plan["models"], full.systems())
    if study := run.info.study:
        found = tuple(effects(full, study, weights, LEVEL, rows.noise.rates))
        reference = study.baseline if study.baseline in full.systems() else None
    elif reference:
        contrasts = tuple(compare(full, reference, weights, LEVEL, rows.noise.rates))
    return Evidence(run, primary, rows, ends, weights, reference, contrasts, found, certified)


def noticeable(found: Estimate, utterances: int, level: float) -> Estimate:
    """An expected calibration error without its interval where it is no larger than what noise makes of none: there the
    bias is larger than the interval, which covers the truth only from about 1.5 times that noise on."""
    noise = ece_noise(utterances)
    if found.value >= 1.5 * noise:
        return found
    return Estimate(found.value, no_interval(level, f"a calibrated model would show an ECE of about {noise:.3f} here"))


def metrics(evidence: Evidence) -> tuple[Metric, ...]:
    """All metrics of the task, the primary one first."""
    return tuple(cube.metric for cube in evidence.ends.values())


def _reference(specs: Sequence[str], systems: Sequence[str]) -> str | None:
    return "dual" if "dual" in systems and "dual" in specs else unfinished.find_system(specs[0], systems)
