"""The headlines: what was asked, what can be concluded and what cannot, and then what each regime shows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dual_bench.metrics import Metric
from dual_bench.report import ablation_sentences as ablation
from dual_bench.report import dependency
from dual_bench.report.evidence import LEVEL, MATCHED, Evidence
from dual_bench.report.noise import UNREACHED, Place
from dual_bench.report.numbers import fixed, gap, level, listing, noun, number, p_value, plural
from dual_bench.stats.contrasts import ALPHA, Contrast, holm
from dual_bench.stats.contrasts import p_value as p_value_of
from dual_bench.stats.curves import Estimate, key
from dual_bench.stats.intervals import Interval, caution, interval_of_test


@dataclass(frozen=True)
class Passage:
    """A few sentences under a heading."""

    heading: str
    sentences: tuple[str, ...]


def headlines(evidence: Evidence) -> tuple[Passage, ...]:
    """What was asked, what can be concluded and what cannot; then each regime, and what the words are worth."""
    stories = []
    if evidence.study:
        expected = ablation.expectation(evidence)
        shown, hidden = ablation.concluded(evidence), ablation.undecided(evidence)
    else:
        expected, shown, hidden = iter(()), decided(evidence), open_questions(evidence)
        stories = [Passage(f"Trained {regime}", tuple(regime_story(evidence, regime))) for regime in evidence.regimes]
    passages = [
        Passage("What was asked", (*question(evidence), *expected)),
        Passage("What can be concluded", (*shown, *ablation.promises(evidence)) or ("Nothing is shown.",)),
        Passage("What cannot be concluded", (*hidden, scope(evidence))),
        *stories,
        Passage("What the words are worth", tuple(dependency.sentences(evidence))),
    ]
    return tuple(passage for passage in passages if passage.sentences)


def question(evidence: Evidence) -> Iterator[str]:
    """The question, and what the answer rests on."""
    cube, corpus = evidence.cube, evidence.run.info.corpus
    info = evidence.run.info
    if info.source and not evidence.cube.corruptions() and not evidence.dependence:
        asked = f"How do {listing(evidence.systems)} compare on {corpus.name}?"
    else:
        asked = info.plan.get("question", "")
    yield asked or (
        f"How much do {listing(evidence.systems)} lean on the words of {corpus.name}, "
        "and what is left when the words are noisy, wrong or gone?"
    )
    direction = "" if evidence.metric.higher_is_better else ", lower is better"
    yield (
        f"Measured by {noun(evidence.metric)} ({evidence.metric.definition}{direction}) on "
        f"{plural(cube.utterances, 'test utterance')} in {plural(len(cube.clusters), 'cluster')}, "
        f"with {plural(len(cube.seeds), 'training seed')} and {plural(cube.draws, 'noise draw')}."
    )
    if reason := evidence.no_interval():
        yield f"No estimate has an interval ({reason}): the numbers describe this run and decide nothing."
    elif warning := caution(len(cube.seeds), len(cube.clusters)):
        yield f"Caution: {warning}."


def regime_story(evidence: Evidence, regime: str) -> Iterator[str]:
    """What the systems trained in one regime do on clean text, and when the text goes."""
    clean, *_ = evidence.places
    if regime == MATCHED:
        yield (
            "Here every condition is read by a model that was trained on just that noise, and clean text by the model "
            "trained on clean text."
        )
    if evidence.no_interval():
        yield from described(evidence, regime)
        return
    yield clean_ranking(evidence, regime, clean)
    reference = evidence.reference
    if reference in evidence.trained(regime):
        if sentence := ceiling_share(evidence, reference, regime, clean):
            yield sentence
        if evidence.heaviest:
            yield losing(evidence, reference, regime, evidence.heaviest)
            yield from beside(evidence, regime, evidence.heaviest)
        yield from extremes(evidence, reference, regime)


def extremes(evidence: Evidence, system: str, regime: str) -> Iterator[str]:
    """Which corruption costs the system most and least at the last severity, or rate."""
    grid, ranked = evidence.grid, evidence.ranking(system, regime)
    if grid is None or len(ranked) < 2:
        return
    missed = {name for name, _ in ranked if not grid.spots[name, grid.last].reached}
    most, least = (
        f"{evidence.noise.label(name)}{UNREACHED if name in missed else ''}, {change(loss, evidence.metric)}"
        for name, loss in (ranked[0], ranked[-1])
    )
    marked = missed & {ranked[0][0], ranked[-1][0]}
    yield (
        f"Of {len(ranked)} corruptions at {grid.heading(grid.last)} the one with the largest measured loss of {system} "
        f"is {most}; that with the smallest is {least}, by intervals that are not corrected."
        f"{f' ({UNREACHED}: does not reach the target word error rate.)' if marked else ''}"
    )


def described(evidence: Evidence, regime: str) -> Iterator[str]:
    """Bare numbers, for a run that can support no claim."""
    metric = evidence.metric
    for place in evidence.places:
        values = [f"{s} {number(evidence.at(s, regime, place).value, metric)}" for s in evidence.trained(regime)]
        unit = " (%)" if metric.is_share else ""
        yield f"Measured {noun(metric)}{unit} on {place.label}, without intervals: {', '.join(values)}."


def clean_ranking(evidence: Evidence, regime: str, clean: Place) -> str:
    """Who has the best estimate on clean text, and who follows."""
    metric = evidence.metric
    scored = [(evidence.at(system, regime, clean), system) for system in evidence.trained(regime)]
    sign = -1 if metric.higher_is_better else 1
    scored.sort(key=lambda pair: np.inf if np.isnan(pair[0].value) else sign * pair[0].value)
    first, *rest = [f"{system}, {level(estimate, metric)}" for estimate, system in scored]
    extreme = "highest" if metric.higher_is_better else "lowest"
    follows = f"; next is {rest[0]}" if rest else ""
    return f"On clean text the {extreme} estimate of {noun(metric)} is that of {first}{follows}."


def ceiling_share(evidence: Evidence, system: str, regime: str, clean: Place) -> str:
    """How far the system comes from the floor to the exact ceiling, or nothing where that is not known."""
    ceiling = next(
        (accuracy for corruption in evidence.corruptions for _, accuracy in evidence.ceiling(corruption)), None
    )
    floor = next(
        (accuracy for corruption in evidence.corruptions for _, accuracy in evidence.ceiling(corruption, "none")),
        np.nan,
    )
    if ceiling is None or not ceiling > floor:
        return ""
    estimate = evidence.at(system, regime, clean)
    ends = (estimate.value, estimate.interval.low, estimate.interval.high)
    value, low, high = ((end - floor) / (ceiling - floor) for end in ends)
    between = "no interval" if np.isnan(low) else f"{fixed(100 * low, 1)} to {fixed(100 * high, 1)}"
    metric = evidence.metric
    return (
        f"{system} comes {fixed(100 * value, 1)} % ({between}) of the way from what the best constant answer can "
        f"expect ({number(floor, metric)} %) to what a perfect perceiver can ({number(ceiling, metric)} %), both exact."
    )


def losing(evidence: Evidence, system: str, regime: str, place: Place) -> str:
    """What one system loses between clean text and the heaviest noise."""
    loss, metric = evidence.loss(system, regime, place), evidence.metric
    shown, _ = _shown_to_change(evidence, place)
    return (
        f"With {place.label}, the {noun(metric)} of {system} is {level(evidence.at(system, regime, place), metric)}: "
        f"{change(loss, metric, (regime, system) in shown)}."
    )


def change(loss: Estimate, metric: Metric, shown: bool = True) -> str:
    """A loss in words; one whose interval holds 0, or that is not ``shown`` after correction, is not called a loss."""
    text = gap(loss.value, loss.interval, metric)
    if np.isnan(loss.interval.low):
        return f"a measured loss of {text}, which shows nothing by itself"
    if loss.value == loss.interval.low == loss.interval.high == 0:
        return "no change at all"
    if not shown:
        return f"a measured loss of {text}, which after correction cannot be told from none"
    if loss.interval.low > 0:
        return f"a loss of {text}"
    if loss.interval.high < 0:
        gain = Interval(-loss.interval.high, -loss.interval.low, loss.interval.level)
        return f"a gain of {gap(-loss.value, gain, metric)}"
    return f"a loss of {text}, which cannot be told from none"


def beside(evidence: Evidence, regime: str, place: Place) -> Iterator[str]:
    """The reference against the system that never hears a word, where there is one."""
    contrast = evidence.contrast("audio-vision", regime, place)
    if contrast:
        yield f"There {versus(contrast, evidence.metric)}"


def versus(contrast: Contrast, metric: Metric) -> str:
    """One comparison in a sentence, with what it can and cannot say."""
    difference = gap(contrast.estimate, contrast.interval, metric)
    text = f"the difference {contrast.left} minus {contrast.right} is {difference}"
    if contrast.verdict == "undefined":
        return f"{text}; it was not tested."
    adjusted = f"adjusted p {'' if contrast.p_adjusted < 0.001 else '= '}{p_value(contrast.p_adjusted)}"
    if contrast.verdict == "undecided":
        unit = " points" if metric.is_share else ""
        seen = f"{number(contrast.detectable, metric)}{unit}"
        return f"{text}: undecided ({adjusted}); the design could have seen a difference of {seen}, before correction."
    return f"{text}: {contrast.left} is {contrast.verdict} ({adjusted})."


# ------------------------------------------------------------------------------- what can be concluded

NAMED = 8
"""Systems, or comparisons, that a sentence has room for."""


def decided(evidence: Evidence) -> Iterator[str]:
    """Which comparisons with the reference are decided, and which systems are shown to lose."""
    if reason := evidence.no_interval():
        yield f"Nothing can be concluded: there is no interval ({reason})."
        return
    contrasts, reference = evidence.contrasts, str(evidence.reference)
    count = {v: sum(c.verdict == v for c in contrasts) for v in ("better", "worse")}
    if contrasts:
        yield (
            f"Of {plural(len(contrasts), 'paired comparison')} with {reference}, {sum(count.values())} are decided "
            f"after Holm's correction: {reference} is better in {count['better']}, worse in {count['worse']}."
        )
    for place in evidence.poles:
        alike: dict[str, list[str]] = {}  # what is decided -> the regimes in which it is
        for regime in evidence.regimes:
            found = [c for c in _with_reference(evidence, regime, place) if c.verdict in count]
            if found:
                alike.setdefault(verdicts(found, reference), []).append(regime)
        yield from (f"Trained {listing(regimes)}, {place.label}: {told}." for told, regimes in alike.items())
    yield from _elsewhere(evidence)
    if heaviest := evidence.heaviest:
        shown, tests = _shown_to_change(evidence, heaviest)
        for regime in evidence.regimes:
            yield from _losses(evidence, regime, heaviest, shown, tests)


def _elsewhere(evidence: Evidence) -> Iterator[str]:
    """What is decided under other quantities: every comparison that the reference loses, and how many it wins."""
    told = [c for place in evidence.poles for r in evidence.regimes for c in _with_reference(evidence, r, place)]
    rest = [c for c in evidence.contrasts if c not in told]
    lost = [c for c in rest if c.verdict == "worse"]
    won = plural(sum(c.verdict == "better" for c in rest), "comparison")
    if lost:
        said = listing([f"{c.right} (trained {c.regime}, {evidence.noise.quantity(c.quantity)})" for c in lost])
        yield f"Under other quantities {evidence.reference} is worse than {said}, and better in {won}."
    elif any(c.verdict == "better" for c in rest):
        yield f"Under other quantities {evidence.reference} is better in {won} and worse in none."


def _shown_to_change(evidence: Evidence, place: Place) -> tuple[set[tuple[str, str]], int]:
    """(regime, system) of all whose metric differs from that on clean text by a paired t test, after Holm's correction
    over all of them, and how many tests that were."""
    rows = list(evidence.rows())
    p = []
    for regime, system in rows:
        clean, noisy = (evidence.point(key(system, regime, q.corruption, q.rate)) for q in (evidence.places[0], place))
        change = clean - noisy
        # means over one draw and over several of what never changes differ in their last digit
        none = abs(change.estimate) < 1e-12 or bool(interval_of_test(change, LEVEL).reason)
        p.append(np.nan if none else p_value_of(change.estimate, change.spread))
    adjusted = holm(p)
    return {row for row, each in zip(rows, adjusted, strict=True) if each < ALPHA}, int(np.sum(~np.isnan(adjusted)))


def _with_reference(evidence: Evidence, regime: str, place: Place) -> list[Contrast]:
    others = [system for system in evidence.trained(regime) if system != evidence.reference]
    return [c for system in others if (c := evidence.contrast(system, regime, place))]


def verdicts(contrasts: Sequence[Contrast], reference: str) -> str:
    """``dual is better than a and b; worse than c``."""
    words = {"better": "better than", "worse": "worse than"}
    groups = {v: [c.right for c in contrasts if c.verdict == v] for v in words}
    return f"{reference} is " + "; ".join(f"{words[v]} {listing(names)}" for v, names in groups.items() if names)


def _losses(
    evidence: Evidence, regime: str, place: Place, shown: Collection[tuple[str, str]], tests: int
) -> Iterator[str]:
    """Who is shown to lose or gain between clean text and ``place``."""
    found = {s: evidence.loss(s, regime, place) for s in evidence.trained(regime) if (regime, s) in shown}
    for how, sign in (("worse", 1), ("better", -1)):
        told = []
        for system, loss in found.items():
            low, high = sorted((sign * loss.interval.low, sign * loss.interval.high))
            if sign * loss.value > 0:
                ends = Interval(low, high, loss.interval.level)
                told.append((sign * loss.value, f"{system} by {gap(sign * loss.value, ends, evidence.metric)}"))
        if len(told) > NAMED:  # the reference, and the ends of the range
            ranked = sorted(told[1:], key=lambda pair: pair[0])
            told, count = [told[0], ranked[0], ranked[-1]], len(told)
            listed = f"{count} systems, among them {'; '.join(text for _, text in told)}"
        else:
            listed = "; ".join(text for _, text in told)
        if told:
            what = f"{noun(evidence.metric)} is {how} than on clean text"
            family = f"Holm over {plural(tests, 'change')}"
            yield f"With {place.label}, trained {regime}, {what}: {listed} ({family})."


# ---------------------------------------------------------------------------- what cannot be concluded


def open_questions(evidence: Evidence) -> Iterator[str]:
    """Which comparisons are undecided or untested and what would decide them, and where no loss is shown."""
    contrasts, reference = evidence.contrasts, evidence.reference
    untested = [c for c in contrasts if c.verdict == "undefined"]
    if untested:
        which = "None" if len(untested) == len(contrasts) else f"{len(untested)}"
        can = "can" if which == "None" else "cannot"
        reasons = "; ".join(dict.fromkeys(c.interval.reason for c in untested if c.interval.reason))
        yield f"{which} of the {plural(len(contrasts), 'comparison')} with {reference} {can} be tested: {reasons}."
    undecided = [c for c in contrasts if c.verdict == "undecided"]
    if undecided:
        yield (
            f"{len(undecided)} of the {plural(len(contrasts), 'comparison')} with {reference} "
            f"{'is' if len(undecided) == 1 else 'are'} undecided. Undecided does not mean equal."
        )
    labels = {f"{p.corruption} {p.rate}" if p.rate else p.corruption: p.label for p in evidence.poles}
    undecided.sort(key=lambda c: c.quantity not in labels)  # what the page is about comes first
    for c in undecided[:NAMED]:
        where = labels.get(c.quantity) or evidence.noise.quantity(c.quantity)
        yield (
            f"Trained {c.regime}, {where}: {c.left} minus {c.right} is {gap(c.estimate, c.interval, evidence.metric)}, "
            f"adjusted p {'' if c.p_adjusted < 0.001 else '= '}{p_value(c.p_adjusted)}; {would_decide(c)}."
        )
    if len(undecided) > NAMED:
        yield f"The other {len(undecided) - NAMED} are in the table of comparisons, with what would decide them."
    if (place := evidence.heaviest) and not evidence.no_interval():
        shown, _ = _shown_to_change(evidence, place)
        for regime in evidence.regimes:
            found = {system: evidence.loss(system, regime, place) for system in evidence.trained(regime)}
            told = [
                f"{system} {gap(loss.value, loss.interval, evidence.metric)}"
                for system, loss in found.items()
                if (regime, system) not in shown and loss.interval.low < loss.interval.high
            ]
            if told:
                more = f"; and {len(told) - NAMED} more" if len(told) > NAMED else ""
                yield (
                    f"With {place.label}, trained {regime}, a loss cannot be told from none after correction: "
                    f"{'; '.join(told[:NAMED])}{more}."
                )


def would_decide(contrast: Contrast) -> str:
    """How many seeds or clusters would decide, if the estimate stayed as it is."""
    counts = {"seed": contrast.seeds_needed, "cluster": contrast.clusters_needed}
    needed = [f"some {plural(count, what)}" for what, count in counts.items() if count is not None]
    if not needed:
        return "at this estimate neither more seeds nor more clusters alone would decide it"
    return f"if the estimate stayed, {' or else '.join(needed)} would decide it"


def scope(evidence: Evidence) -> str:
    """What the run is about, and what its intervals do not cover."""
    about = f"All of this is about the corpus {evidence.run.info.corpus.name}"
    if evidence.no_interval():
        return f"{about}, and about these training runs."
    lone = evidence.cube.draws < 2
    return (
        f"{about}. The intervals cover other training seeds{'' if lone else ', other noise draws'} and other test "
        f"clusters; they do not cover {'other noise draws, ' if lone else ''}another training sample, another corpus, "
        "or another choice of settings."
    )
