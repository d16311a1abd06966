"""Calibration under noise: how often a model is right where it is so sure, on clean text and under heaviest noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from dual_bench.confidence import BINS, ECE, bin_of
from dual_bench.report import canvas
from dual_bench.report.canvas import COLOURS, MUTED
from dual_bench.report.evidence import Evidence
from dual_bench.report.noise import Place
from dual_bench.report.numbers import fixed, plural
from dual_bench.stats.frame import numbered, system_name
from dual_bench.types import FloatArray

FEWEST = 10
"""Utterances that a bin must hold, on average over seeds and draws, to be drawn."""
_LOOKS: tuple[dict[str, Any], ...] = ({"color": COLOURS[1], "marker": "o"}, {"color": COLOURS[2], "marker": "s"})
"""Of clean text, and of the heaviest noise."""
_CALIBRATED: dict[str, Any] = {"color": MUTED, "linewidth": 0.8, "linestyle": (0, (1, 2.5))}


@dataclass(frozen=True)
class Bins:
    """Of each of the bins of ``ECE`` (B,): utterances, on average over seeds and draws, mean confidence, accuracy."""

    count: FloatArray
    confidence: FloatArray
    accuracy: FloatArray

    @property
    def drawn(self) -> NDArray[np.bool_]:
        """Whether a bin holds enough."""
        return self.count >= FEWEST

    def mean(self, of: FloatArray) -> float:
        """The mean over all utterances."""
        return float(np.nansum(self.count * of) / self.count.sum())


Binned = Mapping[tuple[str, str, Place], Bins]
"""(regime, system, place) -> its bins."""


def binned(evidence: Evidence) -> Binned:
    """The answers on clean text and under the heaviest noise; none where scores are not probabilities."""
    if ECE.name not in evidence.ends:
        return {}
    rows = evidence.few
    scores = rows.filter(like="score_").to_numpy()
    sure = np.minimum(scores.max(axis=1).astype(float), 1)
    hit = scores.argmax(axis=1) == rows["truth"].to_numpy()
    which = bin_of(sure)
    code, names = numbered(rows, ["model", "variant", "regime"])
    found = {}
    for place in evidence.poles:
        there = (rows["corruption"] == place.corruption).to_numpy() & (rows["rate"] == place.rate).to_numpy()
        cell = code[there] * BINS + which[there]
        sums = [
            np.bincount(cell, weights, len(names) * BINS).reshape(-1, BINS)
            for weights in (None, sure[there], hit[there].astype(float))
        ]
        for (model, variant, regime), count, confidence, right in zip(names, *sums, strict=True):
            system = system_name(model, variant)
            means = [np.divide(s, count, out=np.full(BINS, np.nan), where=count > 0) for s in (confidence, right)]
            runs = count.sum() / evidence.cube.utterances
            found[regime, system, place] = Bins(count / runs, *means)
    return found


def figure(evidence: Evidence, bins: Binned, regime: str) -> Figure:
    """Accuracy against confidence, a small panel for each system."""
    systems = evidence.trained(regime)
    keys = [Line2D([], [], label=p.label, linewidth=1, **s) for p, s in zip(evidence.poles, _LOOKS, strict=False)]
    keys.append(Line2D([], [], label="calibrated", **_CALIBRATED))
    labels = ("confidence (%)", "accuracy (%)")
    drawn, panels = canvas.small_panels(len(systems), 1.15, labels, keys, f"trained {regime}")
    for panel, system in zip(panels, systems, strict=True):
        panel.set_gid(canvas.group(evidence, system))
        panel.plot([0, 100], [0, 100], **_CALIBRATED)
        canvas.small_title(panel, evidence.title(system))
        for row, (place, shape) in enumerate(zip(evidence.poles, _LOOKS, strict=False)):
            _curve(panel, bins[regime, system, place], shape)
            error = evidence.at(system, regime, place, ECE).value
            panel.text(
                0.97, 0.15 - 0.11 * row, f"ECE {fixed(error, 2)}", transform=panel.transAxes, fontsize=6, ha="right",
                color=shape["color"],
            )  # fmt: skip
        panel.set_xlim(0, 100)
        panel.set_ylim(0, 100)
        panel.set_xticks([0, 50, 100])
        panel.set_yticks([0, 50, 100])
    return drawn


def _curve(panel: Axes, bins: Bins, shape: dict[str, Any]) -> None:
    """Points as large as their share of the utterances."""
    there = bins.drawn
    x, y = 100 * bins.confidence[there], 100 * bins.accuracy[there]
    panel.plot(x, y, color=shape["color"], linewidth=0.8, alpha=0.8)
    size = 4 + 60 * bins.count[there] / bins.count.sum()
    panel.scatter(x, y, size, color=shape["color"], marker=shape["marker"], linewidths=0, alpha=0.8)


def caption(evidence: Evidence, bins: Binned, regime: str) -> str:
    """What the diagrams show, and how much of the answers is in bins that are left out."""
    of = [b for (trained, _, _), b in bins.items() if trained == regime]
    out = sum(float(b.count[~b.drawn].sum()) for b in of) / sum(float(b.count.sum()) for b in of)
    return (
        f"Reliability diagrams of the systems trained {regime}: of the utterances of which a model is so sure, how "
        f"many it has right; on the diagonal it knows what it does not know, below it is too sure. {BINS} bins of "
        f"equal width, those of ECE; points by the number of utterances, {canvas.points(evidence)}. Bins of fewer than "
        f"{plural(FEWEST, 'utterance')} on average are left out ({fixed(100 * out, 1)} % of all). ECE, in each panel, "
        "counts all bins, and is biased upward in small samples; its intervals: tables/confidence.csv."
    )


def finding(evidence: Evidence, bins: Binned, regime: str) -> str:
    """ECE before and after, and whether models are too sure."""
    return f"Calibration of systems trained {regime}. {' '.join(_told(evidence, bins, regime))}"


def _told(evidence: Evidence, bins: Binned, regime: str) -> Iterator[str]:
    for system in evidence.trained(regime):
        said = []
        for place in evidence.poles:
            one, error = bins[regime, system, place], evidence.at(system, regime, place, ECE).value
            sure, right = (fixed(100 * one.mean(of), 0) for of in (one.confidence, one.accuracy))
            said.append(f"{place.label} ECE {fixed(error, 2)}, mean confidence {sure} % where {right} % are right")
        yield f"{evidence.title(system)}: {'; '.join(said)}."
