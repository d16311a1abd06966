"""What the corruptions of a run are, what they are called, and what they did to the words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from dual_bench.catalog import CORRUPTIONS
from dual_bench.report.numbers import listing, percent
from dual_bench.schema import MEASURED, NoiseInfo, RunInfo, SeverityPoint
from dual_bench.types import TRANSCRIPT_PREFIX, Corruption, UserError

UNREACHED = "†"
"""Marks a severity whose word error rate the corruption cannot make."""

ALL_GONE = "all text gone"

DEPENDS = "(chosen for each model)"
"""Marks a corruption whose text depends on the model that reads it."""

_FAMILIES = {
    "characters": "characters",
    "words": "words",
    "speech": "speech",
    "recogniser": "speech",
    "missing": "missing and wrong",
    "tokens": "representation",
    "worst": "worst case",
}
"""What the corruptions of each module of ``dual_bench.corruptions`` are together."""


class Place(NamedTuple):
    """A column of the tables: a corruption at one nominal rate, and what people call it."""

    label: str
    corruption: str
    rate: float


def known(name: str, info: RunInfo) -> Corruption | NoiseInfo | None:
    """What the corruption says of itself; of a user's own what the run recorded, as a report runs no code that a record
    mentions."""
    try:
        found = CORRUPTIONS.known(name)
    except UserError:  # of a package that is broken; the report does without it
        found = None
    return found if isinstance(found, Corruption) else info.own_noise.get(name)


def rate_is(name: str, info: RunInfo) -> str:
    """What the nominal rate is the share of, or nothing where nobody knows."""
    found = known(name, info)
    return found.rate_is if found else ""


def shares(names: Sequence[str], info: RunInfo) -> str:
    """What the nominal rates are shares of, corruptions of like share together; nothing where nobody knows."""
    told: dict[str, list[str]] = {}
    for name in names:
        if share := rate_is(name, info):
            told.setdefault(share, []).append(name)
    if not told:
        return ""
    return f"The nominal rate is the share of {listing([f'{s} ({listing(of)})' for s, of in told.items()])}."


def family(name: str) -> str:
    """
    >>> family("typo"), family("worst-case"), family("my.own:NOISE")
    ('characters', 'worst case', 'of your own')
    """
    if name not in CORRUPTIONS.entries:
        return "of your own"
    module = CORRUPTIONS.entries[name].target.split(":")[0].rpartition(".")[2]
    return _FAMILIES.get(module, module)


def in_families(names: Sequence[str]) -> tuple[str, ...]:
    """The names in the order of the catalogue, which goes by families, and others behind in their own.

    >>> in_families(["my.own:NOISE", "worst-case", "word-drop", "typo"])
    ('typo', 'word-drop', 'worst-case', 'my.own:NOISE')
    """
    order = list(CORRUPTIONS.entries)
    return tuple(sorted(names, key=lambda name: order.index(name) if name in order else len(order)))


@dataclass(frozen=True)
class Noise:
    """``frame`` is ``realised``; ``severities`` holds the points of each corruption that has some, in order."""

    frame: pd.DataFrame
    severities: Mapping[str, tuple[SeverityPoint, ...]]
    chosen: frozenset[str]
    """Corruptions whose text depends on the model."""
    behind: frozenset[str]
    """Corruptions that leave the words alone, and act behind them: they have no word error rate."""

    def label(self, corruption: str) -> str:
        """What the corruption is called wherever it is named."""
        return f"{corruption} {DEPENDS}" if corruption in self.chosen else corruption

    def where(self, corruption: str, rate: float) -> str:
        """``80 %``, or ``severity 5``, or ``severity 3 to 5†`` where one rate stands for several."""
        points = self.at(corruption, rate)
        if not points:
            return percent(rate)
        ends = dict.fromkeys((points[0].severity, points[-1].severity))
        mark = "" if all(p.reached for p in points) else UNREACHED
        return f"severity {' to '.join(map(str, ends))}{mark}"

    def place(self, corruption: str, rate: float) -> Place:
        return Place(f"{self.label(corruption)} {self.where(corruption, rate)}", corruption, rate)

    def quantity(self, name: str) -> str:
        """What a contrast compares (``Contrast.quantity``), for people."""
        if name == "clean":
            return "clean text"
        if name.startswith(TRANSCRIPT_PREFIX):
            return f"{name.removeprefix(TRANSCRIPT_PREFIX)} text"
        corruption, _, last = name.rpartition(" ")
        whole = {"area": "area", "mean": "mean over severities"}.get(last)
        return f"{self.label(corruption)} {whole or f'at {self.where(corruption, float(last))}'}"

    def at(self, corruption: str, rate: float) -> list[SeverityPoint]:
        """The severities that this rate stands for."""
        return [p for p in self.severities.get(corruption, ()) if p.rate == rate]

    @property
    def rates(self) -> dict[str, tuple[float, ...]]:
        """The rate of each severity of the corruptions that have severities."""
        return {name: tuple(p.rate for p in points) for name, points in self.severities.items()}

    def wer(self, corruption: str, rate: float) -> float:
        """The realised word error rate; NaN where it is not defined."""
        if rate == 0:
            return 0.0
        return self._wers.get((corruption, rate), np.nan)

    @cached_property
    def _wers(self) -> dict[tuple[str, float], float]:
        """By corruption and rate; a figure asks for each hundreds of times."""
        keys = zip(map(str, self.frame["corruption"]), map(float, self.frame["rate"]), strict=True)
        return dict(zip(keys, map(float, self.frame["wer"]), strict=True))

    def heaviest(self) -> Place | None:
        """The largest rate of the corruption that drops the largest share of the words.

        One drops words where more than half of its word errors are deletions. Where none does, the largest word error
        rate decides, and where there is none, the largest cosine distance. What is equal to a hundredth is equal, and
        the first in the catalogue is taken. One that depends on the model is taken only where there is no other.
        """
        made = self.frame[(self.frame["rate"] > 0) & ~self.frame["corruption"].str.startswith(TRANSCRIPT_PREFIX)]
        if made.empty:
            return None
        last = (
            made.sort_values(["corruption", "rate"]).groupby("corruption").tail(1).set_index("corruption", drop=False)
        )
        last = last.loc[list(in_families(list(last.index)))]
        shared = last[~last["corruption"].isin(self.chosen)]
        last = last if shared.empty else shared
        dropped = last["dropped"].round(2)
        scales = (dropped.where(~(2 * dropped <= last["wer"])), last["wer"].round(2), last["cosine"].round(2))
        scale = next((s for s in scales if (s > 0).any()), scales[0])
        row = last.iloc[int(scale.fillna(-1).to_numpy(float).argmax())]
        found = self.place(str(row["corruption"]), float(row["rate"]))
        return found._replace(label=ALL_GONE) if round(float(row["dropped"]), 9) == 1 else found


def gather_noise(texts: pd.DataFrame, predictions: pd.DataFrame, points: Sequence[SeverityPoint]) -> Noise:
    """What the rows tell of the corruptions."""
    read = predictions[predictions["text"].notna()]
    chosen = frozenset(map(str, read["corruption"].unique()))
    frame = realised(texts, read)
    measurable = bool(frame.loc[frame["corruption"] == "clean", "wer"].notna().any())
    silent = frame.groupby("corruption")["wer"].apply(lambda wer: bool(wer.isna().all()))
    behind = frozenset(map(str, silent[silent].index)) if measurable else frozenset()
    return Noise(frame, _tested(points, frame), chosen, behind)


def _tested(points: Sequence[SeverityPoint], frame: pd.DataFrame) -> dict[str, tuple[SeverityPoint, ...]]:
    """The severities of each corruption whose rates are in ``frame``, in order."""
    tested = set(zip(frame["corruption"], frame["rate"], strict=True))
    ordered = sorted((p for p in points if (p.corruption, p.rate) in tested), key=lambda p: p.severity)
    names = dict.fromkeys(p.corruption for p in ordered)
    return {n: tuple(p for p in ordered if p.corruption == n) for n in names}


def told_noise(predictions: pd.DataFrame, points: Sequence[SeverityPoint] = ()) -> Noise:
    """What the rows say of the corruptions where there are no texts: plain means over utterances, then over draws.

    A row repeats what was measured on its text; where texts depend on the model it is the mean over models. What was
    not measured is NaN, and nothing is taken to act behind the words.
    """
    by_draw = predictions.groupby(["corruption", "rate", "draw"], observed=True, sort=True)
    draws = by_draw[list(MEASURED)].mean()
    by_rate = draws.groupby(level=["corruption", "rate"], observed=True, sort=True)
    frame = by_rate.mean().join(by_rate.std(ddof=1).add_suffix("_sd"))
    frame.insert(0, "draws", by_rate.size())
    frame = frame.assign(models=0).reset_index().astype({"corruption": str})
    chosen = predictions[predictions["text"].notna()]
    names = frozenset(map(str, chosen["corruption"].unique()))
    models = len(chosen[["model", "variant", "regime", "seed"]].drop_duplicates())
    frame.loc[frame["corruption"].isin(names), "models"] = models
    return Noise(frame, _tested(points, frame), names, frozenset())


def realised(texts: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """What each corruption did to the words: a row for each (corruption, nominal rate).

    WER is errors over reference words in the whole test part; CER and the dropped share are means over utterances,
    weighted by their words; the cosine distance is the plain mean. Each is the mean over draws, with the standard
    deviation between draws. Of a corruption that depends on the model the prediction rows ``chosen`` tell, and each is
    the mean over all ``models``.
    """
    shared = texts[~texts["corruption"].isin(chosen["corruption"].unique())]
    draws = _pooled(shared, ["corruption", "rate", "draw"]).assign(models=0)
    if len(chosen):
        words = texts[texts["corruption"] == "clean"].drop_duplicates("utterance").set_index("utterance")["words"]
        rows = chosen.assign(words=chosen["utterance"].astype(str).map(words.rename(index=str)))
        rows["errors"] = np.where(rows["wer"].isna(), 0, rows["wer"].astype(float) * rows["words"])
        models = _pooled(rows, ["corruption", "rate", "draw", "model", "variant", "regime", "seed"])
        each = models.groupby(level=["corruption", "rate", "draw"], sort=True)
        draws = pd.concat([draws, each.mean().assign(models=each.size())]).sort_index()
    by_rate = draws.groupby(level=["corruption", "rate"], sort=True)
    measured = by_rate[list(MEASURED)]
    frame = measured.mean().join(measured.std(ddof=1).add_suffix("_sd"))
    frame.insert(0, "draws", by_rate.size())
    return frame.assign(models=by_rate["models"].max()).reset_index()


def _pooled(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The measures of each group of texts."""
    # a text whose noise is not in its words counts no word, so that its group has no word error rate
    words = rows["words"].to_numpy(float) * rows["wer"].notna().to_numpy()
    sums = pd.DataFrame({name: rows[name].astype(str) for name in by if name not in ("rate", "draw", "seed")})
    for name in set(by) & {"rate", "draw", "seed"}:
        sums[name] = rows[name].to_numpy()
    sums["words"], sums["wer"] = words, rows["errors"].to_numpy(float)
    for name in ("cer", "dropped"):
        sums[name] = np.where(words > 0, rows[name].to_numpy(float), 0) * words
    sums["cosine"] = rows["cosine"].to_numpy(float)
    groups = sums.groupby(by, sort=True)
    total = groups[["words", "wer", "cer", "dropped"]].sum()
    shares = total[["wer", "cer", "dropped"]].div(total["words"].where(total["words"] > 0), axis=0)
    return shares.assign(cosine=groups["cosine"].mean())
