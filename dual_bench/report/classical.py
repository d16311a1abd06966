"""The same comparisons by the tests that other papers report, for orientation: the paired comparisons decide."""

from __future__ import annotations

import pandas as pd

from dual_bench import seeding
from dual_bench.report.evidence import Evidence
from dual_bench.report.numbers import fixed, p_value
from dual_bench.report.table import Table
from dual_bench.stats.curves import key
from dual_bench.stats.frame import system_name
from dual_bench.stats.paired import almost_stochastic_order, dependent_correlations, mcnemar
from dual_bench.stats.resampling import permutation_p
from dual_bench.types import FloatArray

PERMUTATIONS = 2_000
_TITLES = {"permutation_p": "p (permutation)", "mcnemar_p": "p (McNemar)", "williams_p": "p (Williams)"}


def table(evidence: Evidence) -> Table | None:
    """The reference against every other system on clean text, in each regime."""
    base = evidence.reference
    rows, shown = [], []
    for regime in evidence.regimes:
        trained = evidence.trained(regime)
        for other in trained if base in trained else ():
            if base is None or other == base:
                continue
            found = _tests(evidence, base, other, regime)
            rows.append({"trained": regime, "left": base, "right": other, **found})
            told = {title: p_value(found[name]) for name, title in _TITLES.items() if name in found}
            bound = found["aso_bound"]
            names = f"{evidence.title(base)} − {evidence.title(other)}"
            shown.append({"trained": regime, "comparison": names, **told, "ASO ε (bound)": fixed(bound, 2)})
    if not rows:
        return None
    first = evidence.cube.seeds[0]
    single = (
        f"McNemar: right or wrong, seed {first} alone. "
        if evidence.metric.task == "classification"
        else f"Williams: Pearson correlations with the truth, seed {first} alone (after Steiger 1980). "
    )
    notes = (
        "For orientation, on clean text, not corrected for their number. Permutation: the sides change places in whole "
        f"clusters, the trained models being held as they are. {single}It takes utterances for independent, which "
        "those of one cluster are not. ASO: the upper bound of almost stochastic order of the seeds' scores (Dror et "
        "al. 2019); small means that the left system dominates: below 0.2 is read as better, below 0.5 errs often.",
    )
    return Table("classical", "By the tests of other papers", pd.DataFrame(rows), pd.DataFrame(shown), notes)


def _tests(evidence: Evidence, left: str, right: str, regime: str) -> dict[str, float]:
    cube, metric = evidence.cube, evidence.metric
    places = [key(system, regime, "clean", 0.0) for system in (left, right)]
    seed = int(evidence.run.info.plan["root_seed"])
    rng = seeding.generator("classical", seed, left, right, regime)
    one_side, other_side = (cube.sums[place] for place in places)
    found = {"permutation_p": permutation_p(one_side, other_side, metric.value, rng, PERMUTATIONS)}
    truth, one = _answers(evidence, left, regime)
    _, other = _answers(evidence, right, regime)
    if metric.task == "classification":
        found["mcnemar_p"] = mcnemar(one.argmax(axis=1) == truth, other.argmax(axis=1) == truth).p
    else:
        found["williams_p"] = dependent_correlations(truth, one[:, 0], other[:, 0]).p
    sign = 1 if metric.higher_is_better else -1
    ahead, behind = (sign * evidence.point(place).influence.mean(axis=(1, 2)) for place in places)
    order = almost_stochastic_order(ahead, behind, rng)
    return found | {"aso_violation": order.violation, "aso_bound": order.bound}


def _answers(evidence: Evidence, system: str, regime: str) -> tuple[FloatArray, FloatArray]:
    """Truth (n,) and scores (n, K) of the first seed on clean text, by utterance."""
    rows = evidence.few
    rows = rows[(rows["corruption"] == "clean") & (rows["regime"] == regime) & (rows["seed"] == evidence.cube.seeds[0])]
    pairs = rows[["model", "variant"]].drop_duplicates().itertuples(index=False)
    model, variant = next((m, v) for m, v in pairs if system_name(m, v) == system)
    found = rows[(rows["model"] == model) & (rows["variant"] == variant)]
    found = found.assign(utterance=found["utterance"].astype(str)).sort_values("utterance")
    return found["truth"].to_numpy(float), found.filter(like="score_").to_numpy(float)
