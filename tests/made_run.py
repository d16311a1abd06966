"""Made runs: small run folders written through the real store, with scores drawn from known skills."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dual_bench.catalog import parse_spec
from dual_bench.probe import conditions as probe_conditions
from dual_bench.schema import SCHEMA_VERSION, CeilingPoint, CorpusInfo, Provenance, RunInfo, SeverityPoint, StudyInfo
from dual_bench.store import RunFolder, prediction_table, text_table
from dual_bench.types import ANY_TEXT, CLEAN, Condition, Utterance

TARGETS = {1: 0.10, 2: 0.20, 3: 0.35, 4: 0.50, 5: 0.70}
WORST = "worst-case"
"""Its text depends on the model."""

NOTE = "Artificial pairing: voices and words were joined by label."


class Skill(NamedTuple):
    """How often a system is right on clean text and with the words gone. Systems of one ``luck`` meet the same fortune:
    of equal skill they answer alike, of unequal skill the better is right wherever the other is."""

    clean: float
    gone: float
    luck: int
    noise: float = 0.0
    """Standard deviation of the skill over seeds, conditions and draws."""


@dataclass(frozen=True)
class Made:
    """What a made run holds; the defaults are a small classification."""

    models: tuple[str, ...] = ("dual", "text-only", "audio-vision")
    """Each may have settings: ``dual:sdm=off`` is a variant of ``dual``."""
    regimes: tuple[str, ...] = ("clean", "mixed")
    corruptions: tuple[str, ...] = ("word-drop", "utterance-drop")
    rates: tuple[float, ...] = (0.5, 1.0)
    severities: tuple[int, ...] = ()
    """In place of rates."""
    weak: tuple[str, ...] = ()
    """Corruptions that get no further than a word error rate of 0.3."""
    draws: int = 2
    seeds: int = 3
    clusters: int = 8
    utterances: int = 48
    transcripts: tuple[str, ...] = ("whisper",)
    classes: tuple[str, ...] = ("anger", "joy", "neutral")
    notes: tuple[str, ...] = (NOTE,)
    name: str = "made"
    cluster_prefix: str = "dialogue"
    utterance_prefix: str = "u"
    text: str = "some words of text"
    licence: str = "CC0"
    first_cell: int = 0
    """Cells are numbered from here, so that those of two runs differ."""
    skills: Mapping[str, Skill] = field(default_factory=dict)
    """Of some models; those of the others follow from their place."""
    study: StudyInfo | None = None
    probed: bool = False
    """Whether the models were asked what they say with modalities taken away or exchanged."""
    radii: Mapping[str, float] = field(default_factory=dict)
    """Models that bound what text can do, and how far it moves a logit in the first seed."""

    @property
    def regression(self) -> bool:
        return not self.classes

    def strength(self, corruption: str) -> float:
        """Word error rate at rate 1."""
        return 0.3 if corruption in self.weak else 1.0

    def scale(self) -> tuple[SeverityPoint, ...]:
        points = []
        for name, severity in itertools.product(self.corruptions, self.severities):
            target = TARGETS[severity]
            rate = min(round(target / self.strength(name), 4), 1.0)
            wer = rate * self.strength(name)
            facts = {"target": target, "rate": rate, "wer": wer, "reached": abs(wer - target) < 0.01}
            points.append(SeverityPoint(corruption=name, severity=severity, **facts))
        return tuple(points)

    def levels(self, corruption: str) -> dict[float, int]:
        """Rate -> severity, the lowest where several share a rate; 0 where rates are given."""
        points = [p for p in reversed(self.scale()) if p.corruption == corruption]
        return dict(sorted({p.rate: p.severity for p in points}.items())) or dict.fromkeys(self.rates, 0)

    def conditions(self) -> list[Condition]:
        """Those that depend on the model last, in one draw."""
        noisy = [
            Condition(name, rate, draw, severity)
            for name in self.corruptions
            for rate, severity in self.levels(name).items()
            for draw in range(1 if name == WORST else self.draws)
        ]
        heard = [Condition(f"transcript:{name}", 1.0) for name in self.transcripts]
        shared = [c for c in noisy if c.corruption != WORST]
        return [CLEAN, *shared, *heard, *(c for c in noisy if c.corruption == WORST)]

    def corpus(self) -> list[Utterance]:
        rng = np.random.default_rng(0)
        targets = (
            rng.uniform(-3, 3, self.utterances)
            if self.regression
            else rng.integers(len(self.classes), size=self.utterances)
        )
        names = [
            (f"{self.utterance_prefix}{i:04}", f"{self.cluster_prefix}{i % self.clusters:02}")
            for i in range(len(targets))
        ]
        return [
            Utterance(name, "test", cluster, "s", self.text, float(t))
            for (name, cluster), t in zip(names, targets, strict=True)
        ]


def lost_share(made: Made, condition: Condition) -> float:
    """How much of the words a condition takes from the made models."""
    if condition.corruption.startswith("transcript:"):
        return 0.3
    return condition.rate * made.strength(condition.corruption)


def behind(condition: Condition) -> bool:
    """Whether the noise is not in the words."""
    return condition.corruption.startswith("token-")


PLACES = ((0.85, 0.6), (0.7, 0.35), (0.65, 0.65), (0.8, 0.5), (0.5, 0.5), (0.45, 0.45))
"""Clean and gone by place: dual leans on text a little, text-only wholly, audio-vision not at all."""


def made_scores(made: Made, model: int, seed: int, regime: str, corpus: Sequence[Utterance]) -> np.ndarray:
    """(conditions, N, K), any text last."""
    skill = made.skills.get(made.models[model]) or Skill(*PLACES[model % 6], luck=model)
    clean, gone = skill.clean, skill.gone
    rng = np.random.default_rng([skill.luck, seed, len(regime)])
    truth = np.array([u.target for u in corpus])
    gone += {"clean": 0.0, "mixed": 0.05, "matched": 0.1}[regime] if gone < clean else 0.0
    luck, wrong = rng.random(len(truth)), rng.integers(1, max(len(made.classes), 2), len(truth))
    harm = {"typo": 0.7, "filler": 0.15, WORST: 1.4, ANY_TEXT.corruption: 1.6}
    conditions = [*made.conditions(), ANY_TEXT]
    harmed = [clean + (gone - clean) * harm.get(c.corruption, 1.0) * lost_share(made, c) ** 1.3 for c in conditions]
    skills = np.array(harmed) + skill.noise * rng.standard_normal(len(conditions))
    if made.regression:
        return np.stack([(truth * s + (1 - s) * 3 * (luck - 0.5))[:, None] for s in skills])
    chosen = [np.where(luck < s, truth, (truth + wrong) % len(made.classes)).astype(int) for s in skills]
    return np.stack([np.eye(len(made.classes))[c] for c in chosen])


COSTS = {"audio": 0.1, "vision": 0.05, "text": 0.2, "additive": 0.02}
"""What it costs the made models, in the share of right answers, to do without; exchanged, half as much again."""


def probe_scores(made: Made, model: int, seed: int, corpus: Sequence[Utterance]) -> np.ndarray:
    """(conditions of the probe, N, K)."""
    rng = np.random.default_rng([model, seed, 99])
    truth = np.array([u.target for u in corpus]).astype(int)
    luck, wrong = rng.random(len(truth)), rng.integers(1, len(made.classes), len(truth))
    found = []
    for condition in probe_conditions(made.draws):
        kind, _, gone = condition.corruption.partition(":")
        cost = sum(COSTS[part] for part in gone.split("+")) if gone else COSTS[kind]
        skill = 0.85 - cost * (1.5 if kind == "permuted" else 1) - 0.01 * condition.draw
        found.append(np.eye(len(made.classes))[np.where(luck < skill, truth, (truth + wrong) % len(made.classes))])
    return np.stack(found)


def measured(made: Made) -> pd.DataFrame:
    """What was measured on the texts, condition after condition."""
    rng = np.random.default_rng(7)
    conditions = made.conditions()
    share = np.repeat([lost_share(made, c) for c in conditions], made.utterances)
    words = np.tile(rng.integers(2, 9, made.utterances), len(conditions))
    errors = rng.binomial(words, share)
    rate = errors / words
    facts = {"wer": rate, "cer": rate * 0.9, "dropped": rate, "cosine": 0.6 * share, "words": words, "errors": errors}
    frame = pd.DataFrame(facts)
    silent = np.repeat([behind(c) for c in conditions], made.utterances)
    frame.loc[silent, ["wer", "cer", "dropped"]] = np.nan
    frame.loc[silent, ["words", "errors"]] = 0
    frame.loc[np.repeat([c.corruption == "typo" for c in conditions], made.utterances), "dropped"] = 0.0
    return frame


def info_of(made: Made, cells: Sequence[str]) -> RunInfo:
    plan = {"name": made.name, "dataset": "made", "models": list(made.models), "regimes": list(made.regimes)}
    plan |= {"corruptions": list(made.corruptions), "rates": list(made.rates), "draws": made.draws, "seeds": made.seeds}
    plan |= {"severities": list(made.severities)}
    plan |= {"training": {"noisy_texts": 8}, "root_seed": 0, "metric": "mae" if made.regression else "accuracy"}
    corpus = CorpusInfo(
        name=made.name, task="regression" if made.regression else "classification", classes=made.classes,
        low=-3 if made.regression else None, high=3 if made.regression else None,
        counts={"train": 100, "validation": 40, "test": made.utterances}, folds=1, clusters=made.clusters,
        fingerprint="f" * 64, licence=made.licence, notes=made.notes, transcripts=made.transcripts,
    )  # fmt: skip
    where = [("clean", 0.0), *((name, rate) for name in made.corruptions for rate in made.levels(name))]
    ceilings = [
        CeilingPoint(modalities=m, corruption=c, rate=r, accuracy=best - cost * r)
        for m, best, cost in (
            ("audio+vision+text", 0.95, 0.2),
            ("text", 0.95, 0.6),
            ("audio+vision", 0.95, 0.0),
            ("none", 0.35, 0.0),
        )
        for c, r in where
    ]
    made_by = Provenance(
        dual_bench="0", commit=None, dirty=None, python="3", platform="p", packages={"numpy": "2"}, device="cpu",
        threads=1, jobs=1, command=f"dual-bench run made --name {made.name}", started="2024-01-01T00:00:00+00:00",
    )  # fmt: skip
    floors = {"mae": 1.5, "pearson-r": None} if made.regression else {"accuracy": 0.36, "uar": 1 / 3}
    return RunInfo(
        schema_version=SCHEMA_VERSION, status="complete", name=made.name, digest=f"{made.first_cell or 13:d<64x}",
        plan=plan, corpus=corpus,
        cells=tuple(cells), floors=floors, ceilings=() if made.regression else tuple(ceilings),
        severities=made.scale(),
        encoders={"text": "letters"}, provenance=made_by, study=made.study,
    )  # fmt: skip


def unmovable(made: Made, worst: np.ndarray, seed: int) -> list[bool | None]:
    """Of which utterances no text changes the class: most of the first one, few of others."""
    rng = np.random.default_rng([7, seed])
    first = worst.argmax(axis=1) == 0
    return [None if made.regression else bool(s) for s in rng.random(len(worst)) < np.where(first, 0.8, 0.3)]


def trained(made: Made) -> list[tuple[str, str, float, list[int]]]:
    """(regime, corruption, rate, numbers of the conditions) of each model that is trained in one seed."""
    conditions = made.conditions()
    found: dict[tuple[str, str, float], list[int]] = {}
    for regime in made.regimes:
        for number, c in enumerate(conditions):
            on = (regime, c.corruption, c.rate) if regime == "matched" else (regime, "", 0.0)
            found.setdefault(on, []).append(number)
    return [(*on, numbers) for on, numbers in found.items()]


def write(folder: Path, made: Made) -> RunFolder:
    """Write the whole run folder of ``made``."""
    run, corpus, conditions, facts = RunFolder(folder), made.corpus(), made.conditions(), measured(made)
    shared = [c for c in conditions if c.corruption != WORST]
    count = len(shared) * made.utterances
    run.write_texts(text_table(shared, [u.id for u in corpus], [made.text] * count, facts.iloc[:count]))
    read = [None if c.corruption != WORST else f"words of {u.id}" for c in conditions for u in corpus]
    grid = list(itertools.product(range(len(made.models)), trained(made), range(made.seeds)))
    for i, (model, (regime, corruption, rate, numbers), seed) in enumerate(grid):
        spec, scores = made.models[model], made_scores(made, model, seed, regime, corpus)
        name = parse_spec(spec)[0]
        who = {"model": name, "variant": spec[len(name) + 1 :], "regime": regime, "seed": seed, "fold": "official"}
        rows = (np.array(numbers)[:, None] * made.utterances + np.arange(made.utterances)).ravel()
        asked, texts = [conditions[n] for n in numbers], [read[row] for row in rows]
        told, sure = facts.iloc[rows], [None] * len(rows)
        if spec in made.radii:  # the last of the scores, of which no text is known
            numbers, asked, texts = [*numbers, -1], [*asked, ANY_TEXT], [*texts, *[None] * made.utterances]
            told = told.reset_index(drop=True).reindex(range(len(texts)))
            sure += unmovable(made, scores[-1], seed)
        stored = scores[numbers]
        if made.probed:
            more = len(probe_conditions(made.draws)) * made.utterances
            asked = [*asked, *probe_conditions(made.draws)]
            stored = np.concatenate([stored, probe_scores(made, model, seed, corpus)])
            told = told.reset_index(drop=True).reindex(range(len(told) + more))
            texts, sure = [*texts, *[None] * more], [*sure, *[None] * more]
        table = prediction_table({"cell": digest(made.first_cell + i), **who}, asked, corpus, stored, told, texts, sure)
        history = tuple({"task": 1 / (e + 1), "validation": 1.2 / (e + 1) + 0.02 * e * (seed + 1)} for e in range(12))
        run.write_cell(
            table, digest=digest(made.first_cell + i), **who, corruption=corruption, rate=rate, parameters=1000 + model,
            best_epoch=5 + seed, history=history, seconds_fit=1.0, seconds_predict=0.1, device="cpu", threads=1,
            code="dual-bench 0", radius=made.radii[spec] * (1 + seed / 10) if spec in made.radii else None,
        )  # fmt: skip
    run.write_info(info_of(made, [digest(made.first_cell + i) for i in range(len(grid))]))
    return run


def digest(cell: int) -> str:
    return f"{cell:04x}" * 16
