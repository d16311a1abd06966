"""The methods of a run in words, from its plan and its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dual_bench.catalog import parse_spec
from dual_bench.confidence import ECE
from dual_bench.report import matrix, tuning
from dual_bench.report.answers import places
from dual_bench.report.evidence import LEVEL, MATCHED, Evidence
from dual_bench.report.noise import UNREACHED, in_families, known, shares
from dual_bench.report.numbers import fixed, listing, number, percent, plural
from dual_bench.report.unfinished import find_system
from dual_bench.stats.contrasts import ALPHA


def methods(evidence: Evidence) -> tuple[str, ...]:
    """What was done, from the plan and the rows."""
    if evidence.run.info.source:
        return (*_foreign(evidence), _statistics(evidence))
    return (_data(evidence), _training(evidence), *_noise(evidence), _statistics(evidence), *_study(evidence))


def _foreign(evidence: Evidence) -> Iterator[str]:
    """What is known of predictions that were made elsewhere."""
    source, cube, corpus = evidence.run.info.source, evidence.cube, evidence.run.info.corpus
    assert source is not None
    task = f"{len(corpus.classes)} classes" if corpus.task == "classification" else "a value"
    pooled = f"; the predictions of {corpus.folds} folds of one seed are pooled" if corpus.folds > 1 else ""
    yield (
        f"The predictions were made elsewhere; file {source.file}, sha256 {source.sha256}. They are of {task}, by "
        f"{plural(len(cube.systems()), 'system')} with {plural(len(cube.seeds), 'training seed')} and "
        f"{plural(cube.draws, 'noise draw')}, on {plural(cube.utterances, 'test utterance')} of {corpus.name} in "
        f"{plural(len(cube.clusters), 'cluster')}{pooled}. How the systems were trained, and whether test data chose "
        "anything, is not in the file. Equal seeds, and equal draws, of two systems count as pairs."
    )
    names = [evidence.noise.label(name) for name in evidence.corruptions]
    heard = [place.label for place in evidence.places if place.corruption in evidence.transcripts]
    if names or heard:
        rates = f" {_rates(evidence)}" if names else ""
        yield f"Conditions besides clean text, by the names in the file: {listing([*names, *heard])}{rates}."
    if evidence.heaviest:
        yield _heaviest(evidence)


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
    plan, done = evidence.run.info.plan, len(evidence.cube.seeds)
    encoders = "; ".join(f"{modality}: {name}" for modality, name in evidence.run.info.encoders.items())
    trained = {regime: evidence.trained(regime) for regime in evidence.regimes}
    alike = len(set(trained.values())) == 1
    regimes = [
        _regime(evidence, regime) + ("" if alike else f", of which there are {_models(evidence, trained[regime])}")
        for regime in evidence.regimes
    ]
    planned = "" if done == int(plan["seeds"]) else f" (planned: {int(plan['seeds'])})"
    missing = [spec for spec in plan["models"] if find_system(spec, evidence.systems) is None]
    missing += [f"the regime {regime}" for regime in plan["regimes"] if regime not in trained]
    absent = f" Planned, but without a finished model: {listing(missing)}." if missing else ""
    return (
        f"Models: {_models(evidence, evidence.systems)}. "
        f"{'Each is' if alike else 'They are'} trained with {plural(done, 'seed')}{planned} in the "
        f"{'regime' if len(regimes) == 1 else 'regimes'} {'; '.join(regimes)}.{absent} The epoch is chosen on the "
        "validation part, whose words suffer what those of the training part suffer. A model that reads no words is "
        f"the same in the regimes clean, mixed and matched.{_together(evidence)}{tuning.sentence(evidence)} Frozen "
        f"encoders: {encoders or 'none'}.{_words_encoded(plan)}"
    )


def _together(evidence: Evidence) -> str:
    """What shares a batch, and what shares a training, where that is not as usual."""
    chosen, measured = evidence.run.info.plan["training"], evidence.run.info.provenance.packing
    pack = int(chosen.get("pack", 1))
    found = " A batch holds utterances of like length." if chosen.get("bucketing") else ""
    if pack > 1:
        found += (
            f" Models that can be are trained stacked, {pack} seeds at a time; on the CPU this changes rounding alone."
        )
    return found + (f" On this machine {measured}." if measured else "")


def _words_encoded(plan: Mapping[str, Any]) -> str:
    """By what, and in which precision, where that is not the default."""
    how = parse_spec(plan.get("encoders", {}).get("text", ""))[1]
    backend, precision = how.get("backend", "torch"), how.get("precision", "fp32")
    if (backend, precision) == ("torch", "fp32"):
        return ""
    by = "OpenVINO on the CPU" if backend == "openvino" else backend
    rounded = "with matrix products in bf16" if precision == "bf16" else f"in {precision}"
    return f" The words were encoded by {by}, {rounded}."


def _models(evidence: Evidence, systems: Sequence[str]) -> str:
    """The names that people read, each with the model and its settings where these are another."""
    titles = {system: evidence.title(system) for system in systems}
    names = [title if title == system else f"{title} ({system})" for system, title in titles.items()]
    return ("; " if any("," in name for name in names) else ", ").join(names)


def _regime(evidence: Evidence, regime: str) -> str:
    """What models of one regime read in training."""
    plan = evidence.run.info.plan
    count = plan["training"]["noisy_texts"]
    told = {
        "clean": "models see only the true words in training",
        "mixed": (
            f"in each epoch a training utterance is read in one of {count} noisy texts made for it, each by one of the "
            "plan's corruptions, drawn evenly, at a rate drawn evenly between 0 and the largest at which that "
            f"corruption is tested{_untrained(evidence)}"
        ),
        "modality-dropout": (
            "models see the true words in training, and each utterance of a batch goes without each modality with "
            f"probability {plan['training'].get('modality_dropout', 0):g}, never without all that the model reads"
        ),
        MATCHED: (
            "for each corruption at each rate a model of its own, trained on just that, in other draws than those of "
            f"the test, {count} for each utterance; clean text is read by the model trained on clean text, and the "
            "text of a recogniser by one trained on the text of the same recogniser"
        ),
    }
    return f"{regime} ({told[regime]})" if regime in told else regime


def _untrained(evidence: Evidence) -> str:
    names = [name for name in evidence.corruptions if name in evidence.noise.chosen]
    return f"; {listing(names)} is left out of training, as it exists for trained models only" if names else ""


def _noise(evidence: Evidence) -> Iterator[str]:
    """How the test text was corrupted, and what the nominal rates mean."""
    plan, noise, names = evidence.run.info.plan, evidence.noise, evidence.corruptions
    heard = [p.label for p in evidence.places if p.corruption in evidence.transcripts]
    real = f" Real transcripts: {', '.join(heard)}." if heard else ""
    if not names:
        yield f"The test text is not corrupted.{real}"
        return
    called = listing([noise.label(name) for name in names])
    draws = f"with {plural(int(plan['draws']), 'draw')} of the noise at each rate"
    lone = [name for name in names if name in noise.chosen]
    draws += f" ({listing(lone)}: one)" if lone and int(plan["draws"]) > 1 else ""
    yield (
        f"The test text is corrupted by {called} {_rates(evidence)}, {draws}. {_readers(evidence)} Rate 0 is the clean "
        f"text itself.{real}"
    )
    if told := shares(in_families(names), evidence.run.info):
        yield told
    if noise.severities:
        yield _severities(evidence)
    if evidence.heaviest:
        yield _heaviest(evidence)


def _rates(evidence: Evidence) -> str:
    """At which rates, where they are the same for all."""
    if evidence.noise.severities:
        severities = sorted({p.severity for points in evidence.noise.severities.values() for p in points})
        return f"at {'severity' if len(severities) == 1 else 'severities'} {listing([f'{s}' for s in severities])}"
    rates = sorted({rate for name in evidence.corruptions for rate in evidence.cube.rates(name)})
    return f"at nominal rates {', '.join(percent(rate) for rate in rates)}"


def _readers(evidence: Evidence) -> str:
    """Who reads which words, and whether heavier noise contains lighter noise."""
    noise, names = evidence.noise, evidence.corruptions
    found = {name: known(name, evidence.run.info) for name in names}
    chosen = [name for name in names if name in noise.chosen]
    said = "All models read the same noisy words"
    if chosen:
        said = (
            f"The words of {listing(chosen)} are chosen for each trained model, knowing the label, so that they hurt "
            "it most; a comparison under it is one of worst cases, not of equal texts"
        )
        said += "; under all others all models read the same noisy words" if len(chosen) < len(names) else ""
    telling = [name for name in names if (one := found[name]) and one.tells_label]
    if telling:
        said += f". The words of {listing(telling)} are chosen by the true label"
        if set(evidence.regimes) & {"mixed", MATCHED}:
            said += "; a model trained on them can read it back, so that its scores there are no robustness"
    behind = [name for name in names if name in noise.behind]
    if behind:
        verb = "acts" if len(behind) == 1 else "act"
        said += f". {listing(behind)} {verb} behind the words, on what the text encoder makes of them"
    nested = [name for name in names if (one := found[name]) and one.nested]
    if not nested:
        return f"{said}."
    where = "" if len(nested) == len(names) else f" in {listing(nested)}"
    return f"{said}. Within a draw, heavier noise contains lighter noise{where}."


def _severities(evidence: Evidence) -> str:
    """How the rate of each severity was found."""
    targets = {p.severity: p.target for points in evidence.noise.severities.values() for p in points}
    aims = ", ".join(f"{severity}: {percent(targets[severity])}" for severity in sorted(targets))
    grid = evidence.grid
    unreached = (
        f" {UNREACHED} marks a target that a corruption cannot make: it then stands at the rate that comes nearest, "
        "several severities may share that rate, and the same number stands for each of them."
        if grid and grid.unreached()
        else ""
    )
    chosen = [name for name in evidence.noise.severities if name in evidence.noise.chosen]
    given = f" ({listing(chosen)}: the target itself, as it drops that share of the words)" if chosen else ""
    folds = "" if evidence.run.info.corpus.folds == 1 else " of all folds together"
    return (
        f"A severity is a word error rate ({aims}), of words compared as they are written, capitals and punctuation "
        "included. For each corruption the nominal rate that makes it was searched on the training "
        f"text{folds}{given}, with draws that are never tested; what it makes of the test text is in the table of the "
        "noise. The mean over severities is the plain mean of the metric over the severities of one corruption, "
        f"clean text not among them.{unreached}"
    )


def _heaviest(evidence: Evidence) -> str:
    """Which condition the headlines and tables call the heaviest."""
    place, noise = evidence.heaviest, evidence.noise
    assert place is not None
    row = noise.frame[(noise.frame["corruption"] == place.corruption) & (noise.frame["rate"] == place.rate)].iloc[0]
    facts = [
        f"{what} {fixed(float(row[name]) * (1 if name == 'cosine' else 100), 2 if name == 'cosine' else 1)}{unit}"
        for name, what, unit in (
            ("dropped", "words dropped", " %"), ("wer", "word error rate", " %"), ("cosine", "cosine distance", ""),
        )
        if np.isfinite(row[name])
    ]  # fmt: skip
    what = noise.label(place.corruption)
    if not facts:
        return (
            f"The noise that headlines, scores and retention compare with clean text is {what} at "
            f"{noise.where(place.corruption, place.rate)}: of the largest rates of all corruptions that which comes "
            "first in the catalogue or else by name, as nothing was measured on the words."
        )
    return (
        f"The noise that headlines, scores and retention compare with clean text is {what} at "
        f"{noise.where(place.corruption, place.rate)} ({', '.join(facts)}): of the "
        "largest rates of all corruptions that which drops most words; where none drops words, that with the largest "
        "word error rate, and where there is none, with the largest distance of the embeddings."
    )


def _statistics(evidence: Evidence) -> str:
    if reason := evidence.no_interval():
        return f"Estimates are means over training seeds and noise draws. Intervals and tests: none ({reason})."
    lone = evidence.cube.draws < 2
    return (
        "Estimates are means over training seeds and noise draws of the metric over all test utterances. Intervals "
        f"({percent(LEVEL)}) come from {len(evidence.weights.seeds):,} bootstrap resamples, which draw training seeds, "
        "noise draws and clusters of test utterances, each with replacement and the same for all systems and "
        "conditions, so that differences are paired; their width is that of the t distribution about a standard error "
        "from an analysis of variance over seeds, draws and clusters. They cover what "
        f"would change with other training seeds{'' if lone else ', other noise draws'} and other test clusters; they "
        f"do not cover {'other noise draws (there is one), ' if lone else ''}another training sample, another corpus, "
        "or another choice of settings. Every interval is by itself, not corrected for their number; those of curves "
        "are pointwise. Comparisons are two-sided t tests, with their intervals, on that standard error of the paired "
        "difference, corrected by "
        f"Holm's method{_family(evidence)}; a verdict needs an adjusted p below {ALPHA:g}. The detectable difference "
        "is what the design would see with power 0.8 before correction. How often such intervals hold the truth, and "
        "such tests reject a true null, was simulated: reports/reference/coverage.md in the repository of dual-bench."
        f"{''.join(f' {said}' for said in _others(evidence))}"
    )


def _others(evidence: Evidence) -> Iterator[str]:
    """How the numbers of further tables come about, of those that the report has."""
    if matrix.compared(evidence):
        yield (
            "All pairs of systems are tested likewise, on clean text and under the heaviest noise, corrected by Holm's "
            "method over the pairs of one regime under one condition; the comparisons with the reference are a family "
            "of their own and may decide otherwise. Bold in tables asks both."
        )
    if evidence.heaviest and not evidence.study:
        yield (
            "That a system is better or worse under the heaviest noise than on clean text is a paired t test, "
            "corrected by Holm's method over all systems and regimes."
        )
    alone = [r for r in evidence.regimes if evidence.reference and evidence.reference not in evidence.trained(r)]
    if alone and not evidence.study:
        yield f"Trained {listing(alone)} there is no {evidence.reference}, and nothing is compared with it."
    if evidence.heaviest:
        yield "Intervals of retention, a ratio, are Fieller's."
    if evidence.dependence:
        yield (
            "What a modality is worth is its exact Shapley value over all sets of modalities, the others absent, or "
            "exchanged for those of another utterance; its intervals are not corrected for their number."
        )
    if any(d.measure == "emap gap" for d in evidence.dependence):
        yield (
            "The EMAP gap is what is lost where the scores of a model are replaced by their projection on sums of a "
            "part of the words and a part of voice and face."
        )
    if ECE.name in evidence.ends:
        yield f"Calibration: {ECE.definition}."
    if set(evidence.regimes) - {MATCHED} and not evidence.answers.empty and len(places(evidence)) > 1:
        yield (
            "The sentences are picked by rule: of each corruption under the middle and the largest rate, in the first "
            "noise draw, evenly from conditions and regimes, the utterances at which most systems change their answer "
            "first, then by id."
        )


def _family(evidence: Evidence) -> str:
    named = [*(c.family for c in evidence.contrasts), *(e.family for e in evidence.effects)]
    families = dict.fromkeys(filter(None, named))
    return f" ({'; '.join(families)})" if families else ""


def _study(evidence: Evidence) -> Iterator[str]:
    """How an ablation comes to its verdicts."""
    study = evidence.study
    if study is None:
        return
    metric = evidence.metric
    unit = " points" if metric.is_share else ""
    factorial = any(c.kind != "variant" for c in study.comparisons)
    what = (
        "All cells of the factorial are trained; a main effect is the mean of the cells with a part off minus that of "
        "the cells with it on, an interaction half of the difference between the effect of one part with the other off "
        "and with it on."
        if factorial
        else f"The baseline is {study.baseline}."
    )
    yield (
        f"The study file ({study.where}, sha256 {study.digest}) names comparisons, expectations, the quantities they "
        f"are about and the margin of {number(study.margin, metric)}{unit}. {what} Variants share corpus, folds, "
        "seeds and noise draws; with one seed all read the same batches in the same order, and those of one shape "
        "start from the same weights. Equivalence is tested by two one-sided t tests against a difference as large "
        "as the margin. A hypothesis is equivalent where that adjusted p is below "
        f"{ALPHA:g}; else supported or contradicted where the adjusted p of the difference is, by its direction; else "
        "undecided. Comparisons under other quantities are a family of their own, for orientation."
    )
