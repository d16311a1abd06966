"""What an ablation asked and what it found, in sentences that a careful author would sign."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dual_bench.report.ablation_tables import in_order, worst_measured
from dual_bench.report.evidence import Evidence
from dual_bench.report.forest import label
from dual_bench.report.numbers import gap, level, listing, noun, number, plural
from dual_bench.stats.contrasts import ALPHA
from dual_bench.stats.effects import Effect

_EXPECTED = {"loss": "a loss", "gain": "a gain", "none": "no difference that matters"}


def expectation(evidence: Evidence) -> Iterator[str]:
    """What was written down before the run."""
    study = evidence.study
    assert study is not None
    quantities = listing([evidence.noise.quantity(name) for name in study.primary])
    told: dict[str, list[str]] = {}
    for comparison in study.comparisons:
        told.setdefault(comparison.expected, []).append(label(comparison, evidence))
    if len(told) == 1:
        expected = f"{_EXPECTED[next(iter(told))]} in every comparison"
    else:
        expected = "; ".join(
            f"{_EXPECTED[what]} of {listing(list(dict.fromkeys(names)))}" for what, names in told.items()
        )
    yield (
        f"Written down in {study.where} (sha256 {study.digest[:12]}): expected is {expected}. The expectation is about "
        f"{noun(evidence.metric)} on {quantities}; a difference below {margin(evidence)} does not matter."
    )
    if study.replaced:
        yield f"Not from that file, but from flags: {'; '.join(f'{k} {v}' for k, v in study.replaced.items())}."
    parts = evidence.run.parts_of
    for run in parts or (evidence.run,):
        if found := run.info.found:
            of, this = (f" of {run.folder.path}", "that") if parts else ("", "this")
            yield (
                f"{found} of {plural(len(run.info.cells), 'trained model')}{of} were there before {this} run, trained "
                "for another."
            )


def margin(evidence: Evidence) -> str:
    """The smallest difference that matters, with its unit."""
    assert evidence.study is not None
    return f"{number(evidence.study.margin, evidence.metric)}{' points' if evidence.metric.is_share else ''}"


def concluded(evidence: Evidence) -> Iterator[str]:
    """What was found, verdict by verdict, as far as it is decided."""
    found = in_order(evidence, True)
    if reason := evidence.no_interval():
        yield f"Nothing can be concluded: there is no interval ({reason})."
        return
    kinds = ("supported", "contradicted", "equivalent", "undecided", "undefined")
    count = {kind: sum(e.verdict == kind for e in found) for kind in kinds}
    said = ", ".join(f"{n} {kind}" for kind, n in count.items() if n or kind != "undefined")
    yield f"Of {plural(len(found), 'hypothesis').replace('hypothesiss', 'hypotheses')}, corrected together: {said}."
    for kind, opening in (("supported", "As expected"), ("contradicted", "Against the expectation")):
        differing = [e for e in found if e.verdict == kind and e.p_equivalence_adjusted >= ALPHA]
        if differing:
            yield f"{opening}, {'; '.join(_difference(evidence, e) for e in differing)}."
    held = [e for e in found if e.verdict == "supported" and e.p_equivalence_adjusted < ALPHA]
    if held:
        yield f"As expected, no difference of {margin(evidence)} or more: {_grouped(evidence, held)}."
    same = [e for e in found if e.verdict == "equivalent"]
    if same:
        yield f"Shown to make no difference of {margin(evidence)} or more: {_grouped(evidence, same)}."


def undecided(evidence: Evidence) -> Iterator[str]:
    """What is undefined or undecided and what would decide it, and what no such run can tell."""
    found = in_order(evidence, True)
    if not evidence.no_interval():
        reasons = dict.fromkeys(e.interval.reason for e in found if e.verdict == "undefined" and e.interval.reason)
        if reasons:
            yield f"Undefined: {'; '.join(reasons)}."
        identical = [e for e in found if e.identical]
        if identical:
            names = list(dict.fromkeys(label(e.comparison, evidence) for e in identical))
            yield (
                f"With {_listed(names)} both sides have the same {noun(evidence.metric)} in every cluster, seed and "
                "draw: this run cannot tell them apart."
            )
        yield from _open(evidence, [e for e in found if e.verdict == "undecided"])
    yield (
        f"The means are over {plural(len(evidence.cube.seeds), 'seed')} of models of this size, trained in this way; "
        "a part that shows nothing here may matter elsewhere."
    )


def _difference(evidence: Evidence, effect: Effect) -> str:
    """``SDM off: accuracy on clean text differs by −4.9 points (−7.0 to −2.7), a loss``."""
    assert evidence.study is not None
    size = gap(effect.estimate, effect.interval, evidence.metric)
    where = f"{noun(evidence.metric)} on {evidence.noise.quantity(effect.quantity)}"
    near = min(abs(effect.interval.low), abs(effect.interval.high))
    small = ", perhaps smaller than the margin" if near < evidence.study.margin else ""
    if effect.comparison.kind == "interaction":
        return f"{label(effect.comparison, evidence)}: in {where} the two do not add up, by {size}{small}"
    what = "a gain" if effect.gain > 0 else "a loss"
    return f"{label(effect.comparison, evidence)}: {where} differs by {size}, {what}{small}"


def _grouped(evidence: Evidence, found: Sequence[Effect]) -> str:
    """``SDM off (clean text, word-drop area); VDM off``, which is about every primary quantity."""
    told: dict[str, list[str]] = {}
    for effect in found:
        told.setdefault(label(effect.comparison, evidence), []).append(evidence.noise.quantity(effect.quantity))
    assert evidence.study is not None
    every = len(evidence.study.primary)
    return "; ".join(name if len(where) == every else f"{name} ({', '.join(where)})" for name, where in told.items())


def _open(evidence: Evidence, found: Sequence[Effect]) -> Iterator[str]:
    """What is undecided, and what would decide it."""
    if not found:
        return
    yield f"Undecided, neither a difference nor its absence being shown after correction: {_grouped(evidence, found)}."
    needed = [e.seeds_needed for e in found if e.seeds_needed is not None]
    if not needed:
        yield f"At these estimates more seeds alone would not decide {'it' if len(found) == 1 else 'them'}."
        return
    span = " to ".join(f"{n:,}" for n in dict.fromkeys((min(needed), max(needed))))
    which = "it" if len(found) == 1 else "all of them" if len(needed) == len(found) else f"{len(needed)} of them"
    rest = "" if len(needed) == len(found) else ", and more seeds alone would not decide the others"
    yield f"If the estimates stayed as they are, some {span} seeds would decide {which}{rest}."


def _listed(names: Sequence[str]) -> str:
    """The names in a row; with semicolons, where one has a comma."""
    return "; ".join(names) if any("," in name for name in names) else listing(names)


def promises(evidence: Evidence) -> Iterator[str]:
    """What models that bound their text promise."""
    metric = evidence.metric
    for (system, regime), bound in evidence.certified.items():
        if not bound.reads_words:
            continue
        worst, where = worst_measured(evidence, system, regime)
        share = (
            f"; of {number(bound.share.value, metric)} % of the test utterances no text can change the class"
            if bound.share and metric.is_share
            else ""
        )
        clean = evidence.at(system, regime, evidence.places[0])
        yield (
            f"{evidence.title(system)}, trained {regime}: {level(clean, metric)} on clean text; the worst that was "
            f"measured is {level(worst, metric)} ({where}); whatever the text, "
            f"{level(bound.metric, metric)} is certified{share}."
        )
