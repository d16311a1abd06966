"""Numbers into English. Rounding happens here and nowhere before: a share in percent with one decimal, else three."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dual_bench.metrics import Metric
from dual_bench.report.evidence import LEVEL, RESAMPLES, Evidence, Place
from dual_bench.stats.contrasts import ALPHA, Contrast
from dual_bench.stats.curves import Estimate
from dual_bench.stats.resampling import Interval, caution

NOTHING = "–"
"""What stands where a number is undefined."""


# ----------------------------------------------------------------------------------------------- numbers


def fixed(value: float, decimals: int) -> str:
    """A rounded number with a true minus sign and no negative zero.

    >>> fixed(-0.04, 1), fixed(-1.25, 2), fixed(float("nan"), 1)
    ('0.0', '−1.25', '–')
    """
    if not np.isfinite(value):
        return NOTHING
    text = f"{value:.{decimals}f}"
    return text.replace("-", "" if float(text) == 0 else "−")


def noun(metric: Metric) -> str:
    """The metric inside a sentence: accuracy, but MAE and Pearson r."""
    return (
        metric.title.lower() if metric.title == metric.title.capitalize() and metric.title.isalpha() else metric.title
    )


def number(value: float, metric: Metric) -> str:
    """A value of the metric, or a difference of two, without its unit."""
    return fixed(100 * value, 1) if metric.is_share else fixed(value, 3)


def span(low: float, high: float, metric: Metric) -> str:
    return f"{number(low, metric)} to {number(high, metric)}"


def bracket(interval: Interval, metric: Metric) -> str:
    """The interval in brackets, or that there is none."""
    return "(no interval)" if np.isnan(interval.low) else f"({span(interval.low, interval.high, metric)})"


def level(estimate: Estimate, metric: Metric) -> str:
    """``85.2 % (83.1 to 87.0)``."""
    return f"{number(estimate.value, metric)}{' %' if metric.is_share else ''} {bracket(estimate.interval, metric)}"


def gap(value: float, interval: Interval, metric: Metric) -> str:
    """A difference: ``12.3 points (10.0 to 14.5)``."""
    return f"{number(value, metric)}{' points' if metric.is_share else ''} {bracket(interval, metric)}"


def cell(estimate: Estimate, metric: Metric) -> str:
    """An estimate in a table: its interval beside it where there is one."""
    text = number(estimate.value, metric)
    return text if np.isnan(estimate.interval.low) else f"{text} {bracket(estimate.interval, metric)}"


def percent(rate: float) -> str:
    """``37.5 %``."""
    return f"{100 * rate:.4g} %"


def p_value(p: float) -> str:
    """
    >>> p_value(0.0004), p_value(0.0312), p_value(1.0)
    ('< 0.001', '0.031', '1.000')
    """
    return "< 0.001" if p < 0.001 else fixed(p, 3)


def listing(names: Sequence[str]) -> str:
    """
    >>> listing(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def plural(count: int, noun: str) -> str:
    """
    >>> plural(1, "seed"), plural(1200, "seed")
    ('1 seed', '1,200 seeds')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# --------------------------------------------------------------------------------------------- headlines


@dataclass(frozen=True)
class Passage:
    """A few sentences under a heading."""

    heading: str
    sentences: tuple[str, ...]


def headlines(evidence: Evidence) -> tuple[Passage, ...]:
    """What was asked, what each regime shows, and what the comparisons decide."""
    passages = [Passage("What was asked", tuple(question(evidence)))]
    passages += [Passage(f"Trained {regime}", tuple(regime_story(evidence, regime))) for regime in evidence.regimes]
    if evidence.contrasts:
        passages.append(Passage("What the comparisons decide", tuple(decisions(evidence))))
    return tuple(passages)


def question(evidence: Evidence) -> Iterator[str]:
    """The question, and what the answer rests on."""
    cube, corpus = evidence.cube, evidence.run.info.corpus
    yield evidence.run.info.plan.get("question") or (
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
    for place in [p for p in evidence.places if p == evidence.places[0] or p == evidence.heaviest]:
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


# ------------------------------------------------------------------------------------- text of a figure


def curve_finding(evidence: Evidence, corruption: str) -> str:
    """What a degradation figure shows: where the reference starts and ends, who loses least and most."""
    parts = []
    for regime in evidence.regimes:
        ends = {}
        for system in evidence.trained(regime):
            points = evidence.curves[system, regime, corruption]
            ends[system] = (points[0][1], points[-1][1], points[-1][0])
        told = next(iter(ends))
        first, last, rate = ends[told]
        sign = 1 if evidence.metric.higher_is_better else -1
        moved = [s for s in ends if not np.isclose(ends[s][0].value, ends[s][1].value, equal_nan=True)] or list(ends)
        order = sorted(moved, key=lambda system: sign * (ends[system][0].value - ends[system][1].value))
        shown = {s: number(sign * (ends[s][0].value - ends[s][1].value), evidence.metric) for s in order}
        parts.append(
            f"Trained {regime}: {told} goes from {level(first, evidence.metric)} on clean text to "
            f"{level(last, evidence.metric)} at {percent(rate)}; of the systems that change at all, {order[0]} has the "
            f"smallest measured loss ({shown[order[0]]}), {order[-1]} the largest ({shown[order[-1]]})."
        )
    return f"{evidence.metric.title} against the rate of {corruption}. {' '.join(parts)}"


def transcript_finding(evidence: Evidence) -> str:
    """What the figure of real recognisers shows."""
    parts = []
    for regime in evidence.regimes:
        told = evidence.trained(regime)[0]
        heard = [f"{p.label}: {level(evidence.at(told, regime, p), evidence.metric)}" for p in evidence.places
                 if p.rate == 0 or p.corruption in evidence.transcripts]  # fmt: skip
        parts.append(f"{told}, trained {regime}: {'; '.join(heard)}.")
    return f"{evidence.metric.title} on what real recognisers heard. {' '.join(parts)}"


def training_finding(evidence: Evidence) -> str:
    """What the training curves show."""
    parts = []
    for regime, system in evidence.rows():
        epochs = [c.best_epoch for c in evidence.cells(system, regime)]
        parts.append(f"{system} trained {regime}, epoch {np.mean(epochs):.1f}")
    return f"Validation loss by epoch, a line for each trained model. Mean chosen epoch: {'; '.join(parts)}."


# ------------------------------------------------------------------------------------------------ methods


def methods(evidence: Evidence) -> tuple[str, ...]:
    """What was done, from the plan and the rows."""
    return (_data(evidence), _training(evidence), _noise(evidence), _statistics(evidence))


def _data(evidence: Evidence) -> str:
    info, cube = evidence.run.info, evidence.cube
    corpus = info.corpus
    task = (
        f"{len(corpus.classes)} classes ({', '.join(corpus.classes)})"
        if corpus.task == "classification"
        else f"a value{'' if corpus.low is None else f' in [{corpus.low:g}, {corpus.high:g}]'}"
    )
    folds = (
        "The corpus is divided once into training, validation and test parts"
        if corpus.folds == 1
        else f"Models are trained in {corpus.folds} folds; the out-of-fold predictions of one seed are pooled"
    )
    counts = ", ".join(f"{n:,} {split}" for split, n in corpus.counts.items())
    return (
        f"Corpus: {corpus.name}, predicting {task}. {folds} (utterances: {counts}; test utterances in "
        f"{plural(len(cube.clusters), 'cluster')}). Test labels join the predictions after training."
    )


def _training(evidence: Evidence) -> str:
    plan = evidence.run.info.plan
    encoders = "; ".join(f"{modality}: {name}" for modality, name in evidence.run.info.encoders.items())
    known = {
        "clean": "clean (models see only the true words in training)",
        "mixed": (
            f"mixed (in each epoch a training utterance is read in one of {plan['training']['noisy_texts']} noisy "
            "texts made for it, each by a corruption of the plan drawn evenly at a rate drawn evenly)"
        ),
    }
    return (
        f"Models: {', '.join(plan['models'])}. Each is trained with {plural(int(plan['seeds']), 'seed')}, in the "
        f"regimes {listing([known.get(r, r) for r in plan['regimes']])}; the epoch is chosen on the validation part. "
        f"A model that reads no words is the same in every regime. Frozen encoders: {encoders or 'none'}."
    )


def _noise(evidence: Evidence) -> str:
    plan = evidence.run.info.plan
    rates = ", ".join(percent(rate) for rate in plan["rates"] if rate > 0)
    heard = [p.label for p in evidence.places if p.corruption in evidence.transcripts]
    real = f" Real transcripts: {', '.join(heard)}." if heard else ""
    if not rates or not plan["corruptions"]:
        return f"The test text is not corrupted.{real}"
    return (
        f"The test text is corrupted by {listing(list(plan['corruptions']))} at nominal rates {rates}, "
        f"with {plural(int(plan['draws']), 'draw')} of the noise at each rate. All models read the same noisy words; "
        f"heavier noise contains lighter noise. Rate 0 is the clean text itself.{real}"
    )


def _statistics(evidence: Evidence) -> str:
    if reason := evidence.no_interval():
        return f"Estimates are means over training seeds and noise draws. Intervals and tests: none ({reason})."
    lone = evidence.cube.draws < 2
    family = evidence.contrasts[0].family if evidence.contrasts else "no comparison"
    return (
        "Estimates are means over training seeds and noise draws of the metric over all test utterances. Intervals "
        f"({percent(LEVEL)}) come from {RESAMPLES:,} bootstrap resamples, which draw training seeds, noise draws and "
        "clusters of test utterances, each with replacement and the same for all systems and conditions, so that "
        "differences are paired; they are widened for the small number of seeds. They cover what would change with "
        f"other training seeds{'' if lone else ', other noise draws'} and other test clusters; they do not cover "
        f"{'other noise draws (there is one), ' if lone else ''}another training sample, another corpus, or another "
        "choice of settings. Intervals of curves are pointwise. Comparisons are two-sided "
        "t tests, with their intervals, on the bootstrap standard error of the paired difference, corrected by "
        f"Holm's method ({family}); a verdict needs an adjusted p below {ALPHA:g}. The detectable difference is what "
        "the design would see with power 0.8 before correction."
    )
