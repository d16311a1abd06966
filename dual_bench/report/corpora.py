"""Systems compared over several corpora by their ranks on clean text (``stats.ranks``), from foreign predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from dual_bench import seeding
from dual_bench.catalog import METRICS
from dual_bench.metrics import Metric
from dual_bench.report import canvas, page, ranking
from dual_bench.report.canvas import Album, Picture
from dual_bench.report.evidence import LEVEL, RESAMPLES
from dual_bench.report.numbers import cell, fixed, listing, noun, p_value, percent, plural
from dual_bench.report.rows import clean_cube
from dual_bench.report.sentences import Passage
from dual_bench.report.table import Table, columns, heading, reasons
from dual_bench.report.unfinished import unfinished
from dual_bench.stats.contrasts import ALPHA
from dual_bench.stats.curves import Estimate, key, of_metric, point
from dual_bench.stats.frame import Cube
from dual_bench.stats.ranks import Friedman, Nemenyi, Pairwise, friedman, nemenyi, pairwise_wilcoxon
from dual_bench.stats.resampling import resample
from dual_bench.store import Run
from dual_bench.types import FloatArray, UserError

FEW = 10
"""With fewer blocks Friedman's F rejects noticeably too often (``stats.ranks.friedman``)."""


@dataclass(frozen=True)
class Block:
    """One corpus with one training seed, trained in one regime: the metric of each system (k,) on clean text."""

    regime: str
    corpus: str
    seed: int
    scores: FloatArray


@dataclass(frozen=True)
class Ranked:
    """The systems trained in one regime, by corpora (each the mean over its seeds), on which every statement rests; and
    for orientation ``by_seed``, by corpora and seeds."""

    tests: Friedman
    critical: Nemenyi
    pairs: Pairwise
    by_seed: Friedman
    pairs_by_seed: Pairwise

    @property
    def differ(self) -> bool:
        """Whether Friedman's test shows that not all systems are alike; without it no pair is told apart."""
        return _p(self.tests)[0] < ALPHA


@dataclass(frozen=True)
class Ranking:
    """``estimates`` are by (regime, system, corpus), from each corpus by itself."""

    runs: tuple[Run, ...]
    metric: Metric
    systems: tuple[str, ...]
    regimes: tuple[str, ...]
    cubes: Mapping[str, Cube]
    estimates: Mapping[tuple[str, str, str], Estimate]
    blocks: tuple[Block, ...]
    ranked: Mapping[str, Ranked]


def gather(runs: Sequence[Run]) -> Ranking:
    """Score every corpus by itself, and rank the systems; UserError where corpora differ in systems or regimes."""
    metric: Metric = METRICS.load(runs[0].info.plan["metric"])
    _check_alike(runs)
    cubes, estimates, blocks = {}, {}, []
    for run in runs:
        name, found = run.info.corpus.name, clean_cube(run, metric)
        cubes[name] = found
        rng = seeding.generator("bootstrap", int(run.info.plan["root_seed"]))
        weights = resample(rng, len(found.seeds), found.draws, len(found.clusters), RESAMPLES)
        for where in found.sums:
            estimates[where.regime, where.system, name] = of_metric(metric, point(found, where, weights), LEVEL)
    systems, regimes = _common(runs, cubes)
    for regime in regimes:
        for name, found in cubes.items():
            # (k, S): the metric over all utterances, mean over draws
            each = np.stack([_by_seed(found, system, regime) for system in systems])
            blocks += [Block(regime, name, seed, each[:, s]) for s, seed in enumerate(found.seeds)]
    ranked = {regime: _rank([b for b in blocks if b.regime == regime], metric) for regime in regimes}
    return Ranking(tuple(runs), metric, systems, regimes, cubes, estimates, tuple(blocks), ranked)


def _check_alike(runs: Sequence[Run]) -> None:
    first = runs[0].info
    for info in (run.info for run in runs[1:]):
        if info.corpus.task != first.corpus.task:
            raise UserError(
                f"expected one task in all corpora, found {first.corpus.task} in {first.corpus.name} and "
                f"{info.corpus.task} in {info.corpus.name}; report on them one by one"
            )
        if info.plan["metric"] != first.plan["metric"]:
            raise UserError(
                f"expected one metric in all corpora, found {first.plan['metric']} in {first.corpus.name} and "
                f"{info.plan['metric']} in {info.corpus.name}; run one of them again with the --metric of the other"
            )
        for what, field in (("systems", "models"), ("regimes", "regimes")) if info.source else ():
            one, other = set(first.plan[field]), set(info.plan[field])
            if one != other:
                here, there = (listing(sorted(side)) or "none" for side in (one - other, other - one))
                raise UserError(
                    f"expected the same {what} in all corpora; only {first.corpus.name} has {here}, only "
                    f"{info.corpus.name} has {there}; leave them out, or add their rows"
                )


def _common(runs: Sequence[Run], cubes: Mapping[str, Cube]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The systems, and regimes, that are ranked: of runs those that all corpora have; predictions made elsewhere must
    have the same in all."""
    first = next(iter(cubes.values()))
    for run in runs:
        found, plan = cubes[run.info.corpus.name], run.info.plan
        if run.info.source and len(found.sums) != len(plan["models"]) * len(plan["regimes"]):
            raise UserError(
                f"expected every system in every regime, but {run.info.corpus.name} lacks some of them; leave out the "
                "regime, or add its rows"
            )
    regimes = tuple(r for r in first.regimes() if all(r in found.regimes() for found in cubes.values()))
    systems = tuple(
        s
        for s in first.systems()
        if all(key(s, r, "clean", 0.0) in found.sums for found in cubes.values() for r in regimes)
    )
    if len(systems) < 2 or not regimes:
        raise UserError(
            f"expected two systems that all of {listing(list(cubes))} have in the same regime, found "
            f"{listing(systems) or 'none'}; report on them one by one"
        )
    return systems, regimes


def _by_seed(found: Cube, system: str, regime: str) -> FloatArray:
    sums = found.sums[key(system, regime, "clean", 0.0)].sum(axis=2)
    return np.asarray(found.metric.value(sums).mean(axis=1))


def _rank(blocks: Sequence[Block], metric: Metric) -> Ranked:
    scores = np.stack([block.scores for block in blocks])
    names = dict.fromkeys(block.corpus for block in blocks)
    means = np.stack([np.mean([b.scores for b in blocks if b.corpus == name], axis=0) for name in names])
    tests, by_seed = (friedman(blocks, metric.higher_is_better) for blocks in (means, scores))
    return Ranked(tests, nemenyi(tests, ALPHA), pairwise_wilcoxon(means), by_seed, pairwise_wilcoxon(scores))


# ------------------------------------------------------------------------------------------------ tables


def tables(found: Ranking) -> tuple[Table, ...]:
    """Mean ranks, tests, pairs, scores, and every block."""
    return (_ranks(found), _tests(found), _pairs(found), _scores(found), _blocks(found))


def _ranks(found: Ranking) -> Table:
    rows, shown = [], []
    for regime, ranked in found.ranked.items():
        by_rank = np.argsort(ranked.tests.mean_ranks, kind="stable")
        for i in by_rank:
            line = {"trained": regime, "system": found.systems[i]}
            numbers = {"corpora": float(ranked.tests.mean_ranks[i]), "seeds": float(ranked.by_seed.mean_ranks[i])}
            rows.append(line | {f"mean_rank_{name}": value for name, value in numbers.items()})
            titles = ("mean rank over corpora", "over corpora × seeds")
            shown.append(line | {title: fixed(v, 2) for title, v in zip(titles, numbers.values(), strict=True)})
    notes = ("Rank 1 is best; equal scores share the mean of their ranks. Corpora: of the means over seeds.",)
    return Table("ranks", "Mean ranks", pd.DataFrame(rows), pd.DataFrame(shown), notes)


def _tests(found: Ranking) -> Table:
    rows, shown, why = [], [], []
    for regime, ranked in found.ranked.items():
        for unit, tests in (("corpus, mean over seeds", ranked.tests), ("corpus and seed", ranked.by_seed)):
            line = {"trained": regime, "block": unit}
            critical = nemenyi(tests, ALPHA)
            numbers = {"chi2": tests.chi2, "p_chi2": tests.p_chi2, "f": tests.f, "p": tests.p}
            size = {"blocks": tests.blocks, "systems": len(found.systems)}
            rows.append(
                {**line, **size, **numbers, "critical_difference": critical.critical_difference, "reason": tests.reason}
            )
            shown.append(
                line
                | {"blocks": str(tests.blocks), "systems": str(len(found.systems))}
                | {"Friedman χ²": fixed(tests.chi2, 2), "p of χ²": p_value(tests.p_chi2)}
                | {"Iman–Davenport F": "∞" if np.isposinf(tests.f) else fixed(tests.f, 2), "p of F": p_value(tests.p)}
                | {"critical difference": fixed(critical.critical_difference, 2)}
            )
            why += [f"Trained {regime}, {unit}: {tests.reason}."] if tests.reason else []
    return Table("friedman", "Do the systems differ at all?", pd.DataFrame(rows), pd.DataFrame(shown), tuple(why))


def _pairs(found: Ranking) -> Table:
    rows, shown = [], []
    for regime, ranked in found.ranked.items():
        for i, j in combinations(range(len(found.systems)), 2):
            gap = float(ranked.tests.mean_ranks[i] - ranked.tests.mean_ranks[j])
            line = {"trained": regime, "left": found.systems[i], "right": found.systems[j]}
            numbers = {
                "nemenyi_p": float(ranked.critical.p[i, j]),
                "wilcoxon_p": float(ranked.pairs.p[i, j]),
                "wilcoxon_p_adjusted": float(ranked.pairs.p_adjusted[i, j]),
                "wilcoxon_by_seed_p": float(ranked.pairs_by_seed.p[i, j]),
                "wilcoxon_by_seed_p_adjusted": float(ranked.pairs_by_seed.p_adjusted[i, j]),
            }
            rows.append({**line, "rank_difference": gap, **numbers})
            titles = ("p (Nemenyi)", "p (Wilcoxon)", "p (Wilcoxon, Holm)", "p (corpora × seeds)", "p (same, Holm)")
            cells = {title: p_value(p) for title, p in zip(titles, numbers.values(), strict=True)}
            sides = {"trained": regime, "comparison": f"{found.systems[i]} − {found.systems[j]}"}
            shown.append(sides | {"difference of mean ranks": fixed(gap, 2)} | cells)
    notes = (
        "A negative difference of mean ranks: the left system is better. Nemenyi's p holds the error of the family by "
        "itself, and depends on all systems in the ranking; Wilcoxon's rests on the two of a pair, and Holm corrects "
        "it for the number of pairs. With five corpora Wilcoxon's p is never below 0.0625. Corpora × seeds: Wilcoxon's "
        "test on every seed of every corpus, for orientation, as seeds of one corpus are not independent.",
    )
    return Table("pairs", "Pairs of systems", pd.DataFrame(rows), pd.DataFrame(shown), notes)


def _scores(found: Ranking) -> Table:
    rows, shown = [], []
    for regime in found.regimes:
        for system in found.systems:
            line = {"trained": regime, "system": system}
            cells = {}
            for name, one in found.cubes.items():
                estimate = found.estimates[regime, system, name]
                size = {"seeds": len(one.seeds), "clusters": len(one.clusters), "utterances": one.utterances}
                where = {"corpus": name, "metric": found.metric.name}
                rows.append({**line, **where, **columns(estimate), "level": LEVEL, **size})
                cells[f"on {name}"] = cell(estimate, found.metric)
            shown.append(line | cells)
    notes = (
        f"{heading(found.metric)}, on clean text, with {percent(LEVEL)} intervals from each corpus by itself.",
        *reasons(found.estimates.values()),
    )
    return Table("scores", "Scores on each corpus", pd.DataFrame(rows), pd.DataFrame(shown), notes)


def _blocks(found: Ranking) -> Table:
    rows = [
        {"trained": b.regime, "corpus": b.corpus, "seed": b.seed, "system": s, "metric": found.metric.name, "value": v}
        for b in found.blocks
        for s, v in zip(found.systems, b.scores.tolist(), strict=True)
    ]
    return Table("blocks", "Blocks", pd.DataFrame(rows), None)


def summary(found: Ranking) -> pd.DataFrame:
    """The mean ranks for the screen."""
    shown = _ranks(found).shown
    assert shown is not None
    return shown


# ------------------------------------------------------------------------------------- figures and words


def pictures(found: Ranking, album: Album) -> tuple[Picture, ...]:
    """A critical-difference diagram for each regime whose ranks can be tested."""
    drawn = []
    with canvas.style():
        for regime, ranked in found.ranked.items():
            if ranked.tests.reason:
                continue
            diagram = ranking.Diagram(
                found.systems, ranked.tests.mean_ranks, ranked.critical.critical_difference, ranked.differ
            )
            title = f"Critical-difference diagram, trained {regime}"
            caption = (
                f"Mean rank by {noun(found.metric)} on clean text over {ranked.tests.blocks} corpora, each the mean "
                "over its seeds, the best on the left (Demšar 2006). A thick bar joins systems whose mean ranks differ "
                f"by less than the critical difference of Nemenyi's test at {ALPHA:g}, drawn above the axis, or all "
                "where Friedman's test shows no difference: they are not shown to differ, which does not mean that "
                "they are equal."
            )
            name = f"ranks-{canvas.file_name(regime)}"
            drawn.append(album.save(diagram.draw(), name, title, caption, diagram.finding()))
    return tuple(drawn)


def context(found: Ranking, made: Sequence[Table], drawn: Sequence[Picture]) -> dict[str, Any]:
    """What the page says."""
    names = list(found.cubes)
    methods = (
        *_origin(found.runs),
        "Scores: means over training seeds and draws of the metric over all test utterances; intervals from "
        f"{RESAMPLES:,} bootstrap resamples of seeds, draws and clusters of one corpus, as wide as a t interval of a "
        "standard error from an analysis of variance.",
        "Ranks: on each corpus the systems are ranked by their mean over seeds, and the ranks averaged over corpora "
        "(Demšar 2006, Journal of Machine Learning Research 7:1). Friedman's test, with ties after Conover (1999), and "
        "its F by Iman and Davenport (1980) ask whether the systems differ at all; Nemenyi's test (1963) at "
        f"{ALPHA:g}, which pairs do. Wilcoxon's signed-rank test of each pair, zeros after Pratt (1959), is corrected "
        "by Holm's method over all pairs of one regime.",
    )
    return page.context(
        made,
        drawn,
        name="corpora",
        title=f"{plural(len(found.systems), 'system')} on {plural(len(names), 'corpus').replace('corpuss', 'corpora')}",
        problems=(*_cautions(found), *_notes(found)),
        headlines=(
            Passage("What was asked", (_question(found),)),
            *(Passage(f"Trained {regime}", tuple(_story(found, regime))) for regime in found.regimes),
        ),
        methods=methods,
        notes=tuple(dict.fromkeys(note for run in found.runs for note in run.info.corpus.notes)),
        provenance=(
            page.rendered_by([run.info for run in found.runs])
            if found.runs[0].info.source
            else [line for run in found.runs for info in page.infos(run) for line in page.provenance(info)]
        ),
        command="\n".join(dict.fromkeys(i.provenance.command for run in found.runs for i in page.infos(run))),
    )


def _origin(runs: Sequence[Run]) -> Iterator[str]:
    """Where the predictions come from."""
    files = dict.fromkeys(f"{r.info.source.file}, sha256 {r.info.source.sha256}" for r in runs if r.info.source)
    if files:
        yield (
            f"The predictions were made elsewhere; file {'; file '.join(files)}. How the systems were trained is not "
            "in the files. Only clean text counts here; each corpus by itself shows what noise does."
        )
        return
    for run in runs:
        plan, corpus = run.info.plan, run.info.corpus
        yield (
            f"Corpus {corpus.name}: {plural(int(plan['seeds']), 'training seed')}, "
            f"{plural(corpus.counts['test'], 'test utterance')}, run {run.info.digest[:12]}."
        )
    yield (
        "How the systems were trained stands in the report of each run. Only clean text counts here; each corpus by "
        "itself shows what noise does."
    )


def _question(found: Ranking) -> str:
    metric = found.metric
    direction = "" if metric.higher_is_better else ", lower is better"
    return (
        f"Would the order of {listing(found.systems)} come back on other corpora? Measured by {noun(metric)} "
        f"({metric.definition}{direction}) on the clean test text of {listing(list(found.cubes))}."
    )


def _cautions(found: Ranking) -> Iterator[str]:
    """What a block is, and what the tests over blocks may not be taken for."""
    seeds = {name: len(one.seeds) for name, one in found.cubes.items()}
    if max(seeds.values()) > 1:
        told = listing([f"{name} {count}" for name, count in seeds.items()])
        yield (
            f"What is said of other corpora rests on {len(seeds)} corpora, each the mean over its seeds ({told}). "
            "Blocks of corpus and seed share test utterances: p over them is far too small as a statement about other "
            "corpora, and is shown for orientation."
        )
    if len(seeds) < FEW:
        yield (
            f"With as few as {len(seeds)} corpora the F of Iman and Davenport rejects too often (4 systems alike, at "
            "0.05: 7.7 % of simulations with 3 blocks, 6.6 % with 5, 5.3 % with 10), and only large differences show."
        )


def _notes(found: Ranking) -> Iterator[str]:
    for run in found.runs:
        yield from (f"{run.info.corpus.name}: {sentence}" for sentence in (*run.faults, *unfinished(run)))
    for name, one in found.cubes.items():
        yield from (f"{name}: {sentence}." for sentence in one.skipped)
        apart = [s for s in one.systems() if s not in found.systems]
        if apart:
            yield f"{name}: {listing(apart)} not ranked, as not all corpora have the same in all regimes."
    notes = dict.fromkeys(note for run in found.runs if run.info.source for note in run.info.source.notes)
    yield from (note for note in notes if not note.startswith("Metrics of confidence"))


def _story(found: Ranking, regime: str) -> Iterator[str]:
    """Who ranks first and last, and which differences the ranks show."""
    ranked = found.ranked[regime]
    tests, critical = ranked.tests, ranked.critical
    if tests.reason:
        yield f"Nothing can be tested: {tests.reason}."
        return
    first, *_, last = np.argsort(tests.mean_ranks, kind="stable")
    yield (
        f"Over {tests.blocks} corpora the best mean rank is that of {found.systems[first]} "
        f"({fixed(tests.mean_ranks[first], 2)}), the worst that of {found.systems[last]} "
        f"({fixed(tests.mean_ranks[last], 2)}) of {len(found.systems)} systems."
    )
    yield f"Over corpora {_verdict(tests)}."
    order = np.argsort(tests.mean_ranks, kind="stable")
    worse = {
        found.systems[i]: [
            found.systems[j] for j in order if tests.mean_ranks[j] - tests.mean_ranks[i] >= critical.critical_difference
        ]
        for i in order
    }
    better = [f"{one} is better than {listing(others)}" for one, others in worse.items() if others]
    size = f"the critical difference of mean ranks is {fixed(critical.critical_difference, 2)}"
    if not ranked.differ:
        yield f"So no pair is told apart ({size})."
        return
    told = "; ".join(better) or "no pair is told apart"
    yield f"By Nemenyi's test {told} ({size}). A pair that is not told apart need not be equal."


def _p(tests: Friedman) -> tuple[float, str]:
    """p of the test that is believed, and its name: blocks that agree wholly make F infinite, however few they are."""
    if np.isposinf(tests.f):
        return tests.p_chi2, "chi-squared, as the blocks agree wholly and F is infinite"
    return tests.p, f"Iman and Davenport's F {fixed(tests.f, 2)}"


def _verdict(tests: Friedman) -> str:
    if tests.reason:
        return f"nothing can be tested: {tests.reason}"
    p, what = _p(tests)
    known = "the systems are shown to differ" if p < ALPHA else "the systems are not shown to differ"
    return f"{known} (Friedman's test, {what}; p {'' if p < 0.001 else '= '}{p_value(p)}; {tests.blocks} corpora)"
