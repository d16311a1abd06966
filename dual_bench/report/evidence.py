"""Everything a report says, computed once from stored rows; sentences, tables and figures only read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from dual_bench import seeding
from dual_bench.catalog import METRICS, format_settings, parse_spec
from dual_bench.confidence import ECE, ece_noise
from dual_bench.metrics import Metric
from dual_bench.report import grid
from dual_bench.report.certified import Certified, gather_certified
from dual_bench.report.noise import Noise, Place, gather_noise, told_noise
from dual_bench.schema import CellInfo, StudyInfo
from dual_bench.stats.contrasts import Contrast, Pair, compare, every_pair
from dual_bench.stats.curves import Estimate, estimate_of, key, of_metric, of_sums, overall, point, rates
from dual_bench.stats.dependency import Dependence, dependency
from dual_bench.stats.effects import Effect, effects
from dual_bench.stats.frame import Cube, Key, cube, system_name
from dual_bench.stats.intervals import no_interval
from dual_bench.stats.resampling import Point, Weights, combined, resample
from dual_bench.store import Run
from dual_bench.types import TRANSCRIPT_PREFIX, UserError

RESAMPLES = 2_000
LEVEL = 0.95
EVERYTHING = "audio+vision+text"
MATCHED = "matched"
"""The regime in which each corruption at each rate is met by a model that was trained on just that."""


ANSWER_COLUMNS = ("system", "regime", "seed", "corruption", "rate", "utterance", "truth", "answer", "text")
"""``answer`` is the index of the class, or the value; ``text`` what was read, where it depends on the model."""


@dataclass(frozen=True)
class Evidence:
    """A run, summed and resampled. ``cube`` holds the primary metric under every condition; ``ends`` holds every
    metric, but only under the conditions of ``places``; ``noise`` is what the corruptions did, and ``heaviest`` where
    they left least."""

    run: Run
    metric: Metric
    cube: Cube
    ends: Mapping[str, Cube]
    weights: Weights
    reference: str | None
    contrasts: tuple[Contrast, ...]
    noise: Noise
    heaviest: Place | None
    few: pd.DataFrame = field(default_factory=pd.DataFrame)
    """The prediction rows (``schema.PREDICTION_COLUMNS`` and scores) under the conditions of ``places``."""
    answers: pd.DataFrame = field(default_factory=pd.DataFrame)
    """What each trained model answered, in the first draw, to clean text and to two rates of each corruption: columns
    ``ANSWER_COLUMNS``."""
    effects: tuple[Effect, ...] = ()
    """What the comparisons of an ablation show; ``contrasts`` are those of a run without a study."""
    certified: Mapping[tuple[str, str], Certified] = field(default_factory=dict)
    """(system, regime) -> what holds whatever the text, of models that bound it."""

    @property
    def study(self) -> StudyInfo | None:
        """What an ablation asked."""
        return self.run.info.study

    def title(self, system: str) -> str:
        """What people read for a system: the name that an ablation gave it, or its own."""
        return self.study.titles.get(system, system) if self.study else system

    @property
    def systems(self) -> tuple[str, ...]:
        """In the order of the plan, the reference first."""
        found = self.cube.systems()
        wanted = [find_system(spec, found) for spec in self.run.info.plan["models"]]
        return tuple(dict.fromkeys(s for s in (self.reference, *wanted, *found) if s is not None))

    @property
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

    @property
    def corruptions(self) -> tuple[str, ...]:
        """Those with a nominal rate, in the order of the plan."""
        found = [c for c in self.cube.corruptions() if not c.startswith(TRANSCRIPT_PREFIX) and self.cube.rates(c)]
        return tuple(dict.fromkeys(c for c in (*self.run.info.plan["corruptions"], *found) if c in found))

    @cached_property
    def grid(self) -> grid.Grid | None:
        """Corruptions by severity, or by rate."""
        return grid.make(self.corruptions, self.noise, {name: self.cube.rates(name) for name in self.corruptions})

    @property
    def transcripts(self) -> tuple[str, ...]:
        return tuple(c for c in self.cube.corruptions() if c.startswith(TRANSCRIPT_PREFIX))

    @property
    def places(self) -> tuple[Place, ...]:
        """Clean text, the heaviest noise, and what real recognisers heard."""
        heaviest = (self.heaviest,) if self.heaviest else ()
        heard = (Place(c.removeprefix(TRANSCRIPT_PREFIX) + " text", c, 1.0) for c in self.transcripts)
        return (Place("clean text", "clean", 0.0), *heaviest, *heard)

    @property
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
        """The primary metric under any condition; each is computed once."""
        if where not in self._points:
            self._points[where] = point(self.cube, where, self.weights)
        return self._points[where]

    @cached_property
    def _points(self) -> dict[Key, Point]:
        return {}

    def loss(self, system: str, regime: str, place: Place) -> Estimate:
        """How much worse the primary metric is there than on clean text, paired: positive is a loss."""
        where = key(system, regime, place.corruption, place.rate)
        return self._once("loss", where, lambda: self._loss(where))

    def _loss(self, where: Key) -> Estimate:
        sign = 1 if self.metric.higher_is_better else -1
        clean = self.point(key(where.system, where.regime, "clean", 0.0))
        return estimate_of(combined([(sign, clean), (-sign, self.point(where))]), LEVEL)

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
        run = self.run
        if run.probes.empty:
            return ()
        clean = run.predictions[run.predictions["corruption"] == "clean"]
        who = ["model", "variant", "regime"]  # another toolkit may have probed some systems only
        probed = pd.MultiIndex.from_frame(run.probes[who].astype(str).drop_duplicates())
        clean = clean[pd.MultiIndex.from_frame(clean[who].astype(str)).isin(probed)]
        rows = pd.concat([clean, run.probes], ignore_index=True)
        try:
            probes = cube(rows[rows["seed"].isin(self.cube.seeds)], self.metric)
        except UserError:  # of another toolkit: not every utterance, or no seed that clean text has too
            return ()
        rng = seeding.generator("bootstrap of probes", int(run.info.plan["root_seed"]))
        weights = resample(rng, len(probes.seeds), probes.draws, len(probes.clusters), RESAMPLES)
        return dependency(probes, weights, run.info.ceilings, LEVEL)

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
        info, missing = self.run.info, len(self.run.missing)
        said = []
        if missing:
            said.append(
                f"{missing} of {len(info.cells)} cells {'is' if missing == 1 else 'are'} missing or damaged "
                f"({', '.join(digest[:12] for digest in self.run.missing[:8])}{', …' if missing > 8 else ''}). "
                f"{' '.join(self._gaps())} Running the same command again computes what is missing."
            )
        if info.status != "complete":
            said.append(f"The run is {info.status}{f': {info.problem}' if info.problem else ''}.")
        codes = sorted({cell.code for cell in self.run.cells})
        if len(codes) > 1:
            said.append(f"The cells were made by different code: {'; '.join(codes)}.")
        said += [f"{sentence[:1].upper()}{sentence[1:]}." for sentence in self.cube.skipped]
        said += info.source.notes if info.source else ()
        if not self.run.probes.empty and not self.dependence:
            said.append(
                "The rows in which modalities are absent or exchanged are not used: no training seed has them, and "
                "clean text, of every utterance."
            )
        if self.reference is None:
            said.append(f"The reference, {info.plan['models'][0]}, has no finished cell: nothing is compared with it.")
        return tuple(said)

    def _gaps(self) -> Iterator[str]:
        """Which systems are short of cells."""
        info = self.run.info
        specs, regimes = list(dict.fromkeys(info.plan["models"])), info.plan["regimes"]
        each = int(info.plan["seeds"]) * info.corpus.folds
        # matched has a cell for each condition that it trains on, and the plan has the same for every model
        matched = len(info.cells) // len(specs) - each * sum(regime != MATCHED for regime in regimes)
        trained = {system_name(c.model, c.variant) for c in self.run.cells}
        for spec in specs:
            # a system that another spec names to the letter is not this one's
            system = find_system(spec, trained - {canonical(other) for other in specs if other != spec})
            for regime in regimes:
                done = len(self.cells(system, regime)) if system else 0
                expected = matched if regime == MATCHED else each
                if done < expected:
                    yield f"{system or spec}, trained {regime}: {done} of {expected} done."


def gather(run: Run) -> Evidence:
    """Sum the rows of ``run``, resample them, and compare every system with the reference."""
    plan = run.info.plan
    primary: Metric = METRICS.load(plan["metric"])
    known: list[Metric] = [METRICS.load(name) for name in METRICS.entries]
    full = cube(run.predictions, primary)
    rng = seeding.generator("bootstrap", int(plan["root_seed"]))
    weights = resample(rng, len(full.seeds), full.draws, len(full.clusters), RESAMPLES)
    noise = (
        told_noise(run.predictions)
        if run.info.source
        else gather_noise(run.texts, run.predictions, run.info.severities)
    )
    heaviest = noise.heaviest()
    corruption = run.predictions["corruption"].astype(str)
    keep = corruption.str.startswith(TRANSCRIPT_PREFIX) | (corruption == "clean")
    if heaviest:
        keep |= (corruption == heaviest.corruption) & (run.predictions["rate"] == heaviest.rate)
    few = run.predictions[keep]
    judged = [m for m in known if m.about == "prediction" or run.info.source is None or run.info.source.probabilities]
    others = [m for m in judged if m.task == run.info.corpus.task and m.name != primary.name]
    ends = {primary.name: full} | {m.name: cube(few, m) for m in others}
    certified = gather_certified(run.certified, run.cells, full, weights, LEVEL)
    if study := run.info.study:
        found = effects(full, study, weights, LEVEL, noise.rates)
        base = study.baseline if study.baseline in full.systems() else None
        return Evidence(
            run, primary, full, ends, weights, base, (), noise, heaviest, few, answered(run), found, certified
        )
    reference = _reference(plan["models"], full.systems())
    contrasts = compare(full, reference, weights, LEVEL, noise.rates) if reference else []
    return Evidence(
        run, primary, full, ends, weights, reference, tuple(contrasts), noise, heaviest, few, answered(run),
        certified=certified,
    )  # fmt: skip


def answered(run: Run) -> pd.DataFrame:
    """``Evidence.answers``."""
    rows = run.predictions
    where = rows[["corruption", "rate", "draw"]].drop_duplicates()
    wanted = []
    for _, found in where.groupby("corruption", observed=True):
        rates = sorted(found["rate"].unique())
        chosen = {rates[(len(rates) - 1) // 2], rates[-1]}
        wanted.append(found[found["rate"].isin(chosen) & (found["draw"] == found["draw"].min())])
    rows = rows.merge(pd.concat(wanted), on=["corruption", "rate", "draw"])
    scores = rows.filter(like="score_").to_numpy(float)
    system = [system_name(m, v) for m, v in zip(rows["model"], rows["variant"], strict=True)]
    answer = scores.argmax(axis=1) if scores.shape[1] > 1 else scores[:, 0]
    return rows.assign(system=system, answer=answer)[list(ANSWER_COLUMNS)]


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


def canonical(spec: str) -> str:
    """The spec with its settings in the order of a system's name."""
    name, settings = parse_spec(spec)
    return system_name(name, format_settings(settings))


def find_system(spec: str, systems: Sequence[str] | set[str]) -> str | None:
    """The system that a spec of the plan became: a variant names only settings that differ from the model's own.

    >>> find_system("dual:sdm=off,width=64", ["dual", "dual:sdm=off"])
    'dual:sdm=off'
    """
    if spec in systems:
        return spec
    name, settings = parse_spec(spec)
    wanted = set(format_settings(settings).split(","))
    fitting = []
    for system in sorted(systems):
        model, own = parse_spec(system)
        if model == name and (not own or set(format_settings(own).split(",")) <= wanted):
            fitting.append(system)
    return max(fitting, key=len, default=None)


def _reference(specs: Sequence[str], systems: Sequence[str]) -> str | None:
    return "dual" if "dual" in systems and "dual" in specs else find_system(specs[0], systems)
