"""One pass over the prediction rows of a run, which may be more than memory holds: sums, and the few rows kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import union_categoricals

from dual_bench.metrics import Metric
from dual_bench.report.noise import Noise, Place, gather_noise, told_noise
from dual_bench.stats.frame import Cube, Part, Summing, numbered, summed, system_name
from dual_bench.store import Run, apart
from dual_bench.types import TRANSCRIPT_PREFIX, UserError

ANSWER_COLUMNS = ("system", "regime", "seed", "corruption", "rate", "utterance", "truth", "answer", "text")
"""``answer`` is the index of the class, or the value; ``text`` what was read, where it depends on the model."""


@dataclass(frozen=True)
class Rows:
    """What a report needs of the rows."""

    cube: Cube
    """The primary metric under every ordinary condition."""
    probes: Cube | None
    """The same on clean text and with modalities taken away or exchanged; None where nothing of it is whole."""
    probed: bool
    """Whether there are such rows at all."""
    certified: pd.DataFrame
    """The rows of ``any-text``."""
    few: pd.DataFrame
    """The rows of clean text, of the heaviest noise and of transcripts."""
    answers: pd.DataFrame
    """What each model answered in the first draw: columns ``ANSWER_COLUMNS``, conditions ``_instances``."""
    noise: Noise
    heaviest: Place | None


class _Taken(NamedTuple):
    """What is taken from the rows of one training."""

    sums: Part
    probes: Part
    certified: pd.DataFrame
    few: pd.DataFrame
    answers: pd.DataFrame


def read(run: Run, metric: Metric) -> Rows:
    """Sum ``metric``, and keep what is looked at closely; UserError where the rows contradict themselves."""
    noise = _noise(run)
    heaviest = noise.heaviest()
    ends = {("clean", 0.0), *([(heaviest.corruption, heaviest.rate)] if heaviest else [])}
    sums, probes = Summing(metric), Summing(metric)
    certified, few, answers = [], [], []
    for taken in run.each(partial(_take, metric=metric, ends=ends)):
        sums.add(taken.sums)
        probes.add(taken.probes)
        certified.append(taken.certified)
        few.append(taken.few)
        answers.append(taken.answers)
    full = sums.cube(partial=run.held is None)  # what a study has not finished yet does not hold up the rest
    bounds, ends_only, said = (_of_whole(together(frames), full) for frames in (certified, few, answers))
    return Rows(
        full, _whole(probes, full), bool(probes.trainings), bounds, ends_only, said, noise, heaviest
    )  # fmt: skip


def _take(part: pd.DataFrame, metric: Metric, ends: Collection[tuple[str, float]]) -> _Taken:
    ordinary, bound, probed = apart(part)
    heard = [(name, 1.0) for name in ordinary["corruption"].cat.categories if name.startswith(TRANSCRIPT_PREFIX)]
    probes = Part({}, {})
    if len(probed):
        clean = ordinary[_under(ordinary, [("clean", 0.0)])]
        probes = summed(together([_of_same(clean, probed), probed]), metric)
    few = ordinary[_under(ordinary, [*ends, *heard])]
    return _Taken(summed(ordinary, metric), probes, bound, few, _answered(ordinary))


def _of_whole(rows: pd.DataFrame, full: Cube) -> pd.DataFrame:
    """The rows of the trainings that count."""
    if rows.empty:
        return rows
    names = ["system"] if "system" in rows else ["model", "variant"]
    codes, trainings = numbered(rows, [*names, "regime", "seed"])
    there = {(key.system, key.regime) for key in full.sums}
    counts = []
    for *name, regime, seed in trainings:
        system = name[0] if len(name) == 1 else system_name(*name)
        counts.append((system, regime) in there and seed in full.seeds)
    return rows if all(counts) else rows[np.array(counts)[codes]].reset_index(drop=True)


def clean_cube(run: Run, metric: Metric) -> Cube:
    """``metric`` on clean text alone."""
    sums = Summing(metric)
    for part in run.each(lambda rows: summed(rows[_under(rows, [("clean", 0.0)])], metric)):
        sums.add(part)
    return sums.cube(partial=run.held is None)


def _noise(run: Run) -> Noise:
    if run.held is not None:
        return told_noise(apart(run.held)[0])
    chosen = run.chosen()
    if len(run.texts):
        return gather_noise(run.texts, chosen, run.info.severities)
    # every row repeats what was measured on its text, so those of one training tell it as well
    shared = apart(run.first())[0]
    shared = shared[shared["text"].isna()]
    return told_noise(together([shared, chosen]) if len(chosen) else shared, run.info.severities)


def _under(rows: pd.DataFrame, conditions: Iterable[tuple[str, float]]) -> NDArray[np.bool_]:
    """Which rows are of these (corruption, rate)."""
    found = np.zeros(len(rows), bool)
    names = list(rows["corruption"].cat.categories)
    codes, rates = rows["corruption"].cat.codes.to_numpy(), rows["rate"].to_numpy()
    for corruption, rate in conditions:
        if corruption in names:
            found |= (codes == names.index(corruption)) & (rates == rate)
    return found


def _of_same(clean: pd.DataFrame, probed: pd.DataFrame) -> pd.DataFrame:
    """The clean rows of the trainings that were probed: another toolkit may have probed some only."""
    trainings = []
    for rows in (clean, probed):  # of one part, and so with the same categories
        codes = [rows[name].cat.codes.to_numpy(np.int64) for name in ("model", "variant", "regime")]
        sizes = [len(rows[name].cat.categories) for name in ("model", "variant", "regime")]
        trainings.append(np.ravel_multi_index(codes, sizes))
    return clean[np.isin(trainings[0], np.unique(trainings[1]))]


def _whole(probes: Summing, full: Cube) -> Cube | None:
    try:
        return probes.cube(among=full)
    except UserError:  # of another toolkit: not every utterance, or no seed that clean text has too
        return None


def _instances(conditions: Sequence[tuple[str, float, int]]) -> set[tuple[str, float, int]]:
    """(corruption, rate, draw) of clean text and of two rates of each corruption, the middle and the last, in the first
    draw."""
    found = set()
    for name in {corruption for corruption, _, _ in conditions}:
        rates = sorted({rate for corruption, rate, _ in conditions if corruption == name})
        draw = min(draw for corruption, _, draw in conditions if corruption == name)
        found |= {(name, rates[(len(rates) - 1) // 2], draw), (name, rates[-1], draw)}
    return found


def _answered(rows: pd.DataFrame) -> pd.DataFrame:
    codes, conditions = numbered(rows, ["corruption", "rate", "draw"])
    wanted = _instances([(corruption, rate, draw) for corruption, rate, draw in conditions])
    kept = rows[np.array([condition in wanted for condition in conditions])[codes]]
    scores = kept.filter(like="score_").to_numpy()
    codes, pairs = numbered(kept, ["model", "variant"])
    system = pd.Categorical([system_name(model, variant) for model, variant in pairs])[codes]
    answer = scores.argmax(axis=1).astype(np.int16) if scores.shape[1] > 1 else scores[:, 0]
    answers: pd.DataFrame = kept.assign(system=system, answer=answer)[list(ANSWER_COLUMNS)]
    return answers


def together(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The frames one after another; what is categorical stays so, which a plain ``concat`` would unfold."""
    columns = {}
    for name in frames[0].columns:
        parts = [frame[name] for frame in frames]
        alike = all(isinstance(part.dtype, pd.CategoricalDtype) for part in parts)
        columns[name] = union_categoricals(parts) if alike else pd.concat(parts, ignore_index=True)
    return pd.DataFrame(columns)
