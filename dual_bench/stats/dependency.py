"""How much a trained model leans on each modality, from what it says when modalities are taken away or exchanged.

v(S) is the metric with the modalities S present, its sign turned where lower is better, so that more is better. What is
not in S is, by one *reading*, ``absent`` (no valid step: models see zeros), by the other ``permuted`` (that of another
utterance, so that it looks like something but says nothing). The two differ where a model has never met a missing
modality; neither is the right one.

* Shapley value of modality m, exactly, over the 8 subsets of three: the mean, over all orders in which modalities
  come in, of what m adds (Shapley 1953, Contributions to the Theory of Games 2:307),
  phi_m = sum over S without m of |S|! (2 - |S|)! / 3! (v(S + m) - v(S)). They sum to v(all) - v(none), and the
  ``share`` of m is phi_m over that. (On a metric rather than a prediction; ``permuted`` corresponds to what Lundberg &
  Lee 2017, NeurIPS, sample from a background.)
* Perceptual score of m (Gat, Schwartz & Schwing 2021, NeurIPS): v(all) - v(all, m permuted). Departure: not divided by
  anything, so in the unit of the metric.
* Conditional utilisation of m (Wu et al. 2022, ICML): (v(all) - v(all but m)) / v(all), m absent. Departure: theirs has
  a head for each branch of a network; here the one head goes without m. For metrics where higher is better.
* EMAP gap (Hessel & Lee 2020, EMNLP): v(all) - v(additive), where the scores of the additive projection know text and
  voice-and-face each but not how they go together. 0: the model uses no interaction that matters to the metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import factorial, fsum
from typing import Literal, get_args

from dual_bench.schema import CeilingPoint
from dual_bench.stats.curves import Estimate, estimate_of, key, point, share_of
from dual_bench.stats.frame import Cube
from dual_bench.stats.resampling import Point, Weights, combined, shifted
from dual_bench.types import ABSENT_PREFIX, ADDITIVE, MODALITIES, PERMUTED_PREFIX, SUBSETS, Modality

Reading = Literal["absent", "permuted"]
Measure = Literal["shapley", "share", "excess", "perceptual score", "conditional utilisation", "emap gap", "total"]
Subset = frozenset[Modality]

_PREFIX = {"absent": ABSENT_PREFIX, "permuted": PERMUTED_PREFIX}
EVERYTHING: Subset = frozenset(MODALITIES)
GAME: tuple[Subset, ...] = (frozenset(), *map(frozenset, SUBSETS))
"""All 8 sets of modalities whose value a game asks for."""


def shapley_weights(modality: Modality) -> dict[Subset, float]:
    """The weight of each v(S) in the Shapley value of ``modality``.

    >>> weights = shapley_weights("text")
    >>> round(weights[EVERYTHING], 3), round(weights[frozenset({"audio"})], 3)
    (0.333, -0.167)
    """
    n = len(MODALITIES)
    found = {}
    for subset in GAME:
        others = len(subset - {modality})
        weight = factorial(others) * factorial(n - 1 - others) / factorial(n)
        found[subset] = weight if modality in subset else -weight
    return found


def shapley(values: Mapping[Subset, float]) -> dict[Modality, float]:
    """The Shapley value of each modality in a game whose value is known for all 8 subsets."""
    return {m: fsum(weight * values[s] for s, weight in shapley_weights(m).items()) for m in MODALITIES}


def ceiling_game(ceilings: Sequence[CeilingPoint]) -> dict[Subset, float]:
    """v(S) of the perfect perceiver on clean text: its exact accuracy with the modalities S. Empty where unknown."""
    known = {p.modalities: p.accuracy for p in ceilings if p.corruption == "clean"}
    named = {s: "+".join(m for m in MODALITIES if m in s) or "none" for s in GAME}
    return {s: known[name] for s, name in named.items()} if set(named.values()) <= set(known) else {}


@dataclass(frozen=True)
class Dependence:
    """One measure of one system. ``modality`` is empty where it is about none of them; ``reading`` likewise."""

    system: str
    regime: str
    measure: Measure
    modality: Modality | Literal[""]
    reading: Reading | Literal[""]
    estimate: Estimate


def dependency(
    probes: Cube, weights: Weights, ceilings: Sequence[CeilingPoint] = (), level: float = 0.95
) -> tuple[Dependence, ...]:
    """Every measure of every system that was probed. ``probes`` holds clean, ``absent:…``, ``permuted:…`` and
    ``additive``; what a frame lacks is left out.

    ``excess`` is the Shapley value of a model, absent reading, minus that of the perfect perceiver, where ``ceilings``
    are known and the metric is accuracy: how much more it leans on a modality than the corpus asks for.
    """
    there = {(k.system, k.regime) for k in probes.sums}
    oracle = shapley(game) if probes.metric.name == "accuracy" and (game := ceiling_game(ceilings)) else {}
    return tuple(
        found
        for system, regime in sorted(there)
        for found in _of_system(probes, weights, system, regime, oracle, level)
    )


def _of_system(
    probes: Cube, weights: Weights, system: str, regime: str, oracle: Mapping[Modality, float], level: float
) -> Iterator[Dependence]:
    sign = 1.0 if probes.metric.higher_is_better else -1.0
    who = (system, regime)

    def at(corruption: str) -> Point | None:
        where = key(system, regime, corruption, 0.0 if corruption == "clean" else 1.0)
        return combined([(sign, point(probes, where, weights))]) if where in probes.sums else None

    whole = at("clean")
    if whole is None:
        return
    for reading in get_args(Reading):
        values = {s: v for s in GAME if (v := whole if s == EVERYTHING else at(_named(reading, s))) is not None}
        if len(values) == len(GAME):
            total = whole - values[frozenset()]
            yield Dependence(*who, "total", "", reading, estimate_of(total, level))
            for m in MODALITIES:
                phi = combined((weight, values[s]) for s, weight in shapley_weights(m).items())
                share = share_of(phi, total, level, "all modalities together are no better than none")
                yield Dependence(*who, "shapley", m, reading, estimate_of(phi, level))
                yield Dependence(*who, "share", m, reading, share)
                if reading == "absent" and oracle:
                    yield Dependence(*who, "excess", m, reading, estimate_of(shifted(phi, -oracle[m]), level))
        for m in MODALITIES:
            if (without := values.get(EVERYTHING - {m})) is None:
                continue
            loss = whole - without
            if reading == "permuted":
                yield Dependence(*who, "perceptual score", m, reading, estimate_of(loss, level))
            elif sign > 0:
                used = share_of(loss, whole, level, f"clean {probes.metric.title} is not above 0")
                yield Dependence(*who, "conditional utilisation", m, reading, used)
    if (additive := at(ADDITIVE)) is not None:
        yield Dependence(*who, "emap gap", "", "", estimate_of(whole - additive, level))


def _named(reading: Reading, present: Subset) -> str:
    """The condition in which only some modalities are present."""
    return f"{_PREFIX[reading]}{'+'.join(m for m in MODALITIES if m not in present)}"
