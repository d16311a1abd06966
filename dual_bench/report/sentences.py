"""The headlines: what was asked, what each regime shows, and what the comparisons decide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dual_bench.metrics import Metric
from dual_bench.report import dependency
from dual_bench.report.ablation_sentences import expectation, paragraph, promises
from dual_bench.report.evidence import MATCHED, Evidence
from dual_bench.report.noise import UNREACHED, Place
from dual_bench.report.numbers import fixed, gap, level, listing, noun, number, p_value, plural
from dual_bench.stats.contrasts import Contrast
from dual_bench.stats.curves import Estimate
from dual_bench.stats.intervals import Interval, caution


@dataclass(frozen=True)
class Passage:
    """A few sentences under a heading."""

    heading: str
    sentences: tuple[str, ...]


def headlines(evidence: Evidence) -> tuple[Passage, ...]:
    """What was asked, what each regime shows, and what the comparisons decide."""
    if evidence.study:
        passages = [
            Passage("What was asked", (*question(evidence), *expectation(evidence))),
            Passage("What was found", (" ".join(paragraph(evidence)),)),
            Passage("What is promised whatever the text", tuple(promises(evidence))),
            Passage("What the words are worth", tuple(dependency.sentences(evidence))),
        ]
        return tuple(passage for passage in passages if passage.sentences)
    passages = [Passage("What was asked", tuple(question(evidence)))]
    passages += [Passage(f"Trained {regime}", tuple(regime_story(evidence, regime))) for regime in evidence.regimes]
    if evidence.contrasts:
        passages.append(Passage("What the comparisons decide", tuple(decisions(evidence))))
    if evidence.dependence:
        passages.append(Passage("What the words are worth", tuple(dependency.sentences(evidence))))
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
        f"is {most}; that with the smallest is {least}."
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
    return (
        f"With {place.label}, the {noun(metric)} of {system} is {level(evidence.at(system, regime, place), metric)}: "
        f"{change(loss, metric)}."
    )


def change(loss: Estimate, metric: Metric) -> str:
    """A loss in words; one whose interval holds 0 is not called a loss."""
    text = gap(loss.value, loss.interval, metric)
    if np.isnan(loss.interval.low):
        return f"a measured loss of {text}, which shows nothing by itself"
    if loss.value == loss.interval.low == loss.interval.high == 0:
        return "no change at all"
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


def decisions(evidence: Evidence) -> Iterator[str]:
    """Which comparisons with the reference are decided, which are not."""
    contrasts, reference = evidence.contrasts, evidence.reference
    tested = [c for c in contrasts if c.verdict != "undefined"]
    if not tested:
        reason = contrasts[0].interval.reason
        yield f"None of the {len(contrasts)} comparisons with {reference} can be tested: {reason}."
        return
    count = {v: sum(c.verdict == v for c in contrasts) for v in ("better", "worse", "undecided", "undefined")}
    untested = f"; {count['undefined']} cannot be tested" if count["undefined"] else ""
    yield (
        f"Of {plural(len(contrasts), 'paired comparison')} with {reference}, {count['better'] + count['worse']} are "
        f"decided after Holm's correction ({reference} better in {count['better']}, worse in {count['worse']}) and "
        f"{count['undecided']} undecided{untested}. Undecided does not mean equal."
    )
    for place in evidence.poles:
        for regime in evidence.regimes:
            found = [
                c for s in evidence.trained(regime) if s != reference and (c := evidence.contrast(s, regime, place))
            ]
            if found:
                yield f"Trained {regime}, {place.label}: {verdicts(found, str(reference))}."


def verdicts(contrasts: Sequence[Contrast], reference: str) -> str:
    """``dual is better than a and b, worse than c; undecided against d``."""
    words = {
        "better": "better than",
        "worse": "worse than",
        "undecided": "undecided against",
        "undefined": "untested against",
    }
    groups = {v: [c.right for c in contrasts if c.verdict == v] for v in words}
    return f"{reference} is " + "; ".join(f"{words[v]} {listing(names)}" for v, names in groups.items() if names)
