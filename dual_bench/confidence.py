"""Metrics of confidence: does a model know that the words are broken?

They are metrics of classification as in ``metrics``, functions of additive statistics, and lower is better for each.
Scores are class probabilities (n, K). The confidence of a prediction is its top probability, and the prediction is the
first of the largest, as accuracy has it. A model that reads noise should lose confidence as it loses accuracy: ECE
asks whether it loses as much, AURC whether it is unsure of the right utterances, and Brier asks both at once.
"""

from __future__ import annotations

import numpy as np

from dual_bench.metrics import Metric, ratio
from dual_bench.types import FloatArray, IntArray

# ------------------------------------------------------------------------------------------------- Brier


def _squares(truth: FloatArray, scores: FloatArray) -> FloatArray:
    distance = np.asarray(scores, float) - np.eye(scores.shape[1])[truth.astype(int)]
    return np.stack([(distance**2).sum(axis=1), np.ones(len(truth))], axis=1)


def _mean(sums: FloatArray) -> FloatArray:
    return ratio(sums[..., 0], sums[..., 1])


BRIER = Metric(
    name="brier",
    title="Brier score",
    task="classification",
    higher_is_better=False,
    about="confidence",
    definition="squared distance of the class probabilities from the true class, summed over classes, mean over "
    "utterances",
    statistics=_squares,
    value=_mean,
    high=2.0,
)
"""1/n sum_i sum_k (p_ik - 1[y_i = k])^2, in [0, 2], lower is better (Brier 1950, Monthly Weather Review 78:1).

Statistics are (n, 2): the squared distance, and 1. This is Brier's own score, of all classes; for K = 2 it is twice
the score of one class that is often reported. No departure.
"""

# --------------------------------------------------------------------------------------------------- ECE

BINS = 15


def bin_of(confidence: FloatArray) -> IntArray:
    """The bin of ECE, 0 to ``BINS`` - 1, that each top probability lies in."""
    # only inner edges, so that the outer bins hold whatever lies beyond; an edge belongs to the bin below it
    return np.searchsorted(np.arange(1, BINS) / BINS, confidence)


def _gaps(truth: FloatArray, scores: FloatArray) -> FloatArray:
    # a softmax of float32 can end a little above 1
    confidence = np.minimum(np.asarray(scores.max(axis=1), float), 1)
    gap = (scores.argmax(axis=1) == truth) - confidence
    return np.concatenate([np.eye(BINS)[bin_of(confidence)] * gap[:, None], np.ones((len(truth), 1))], axis=1)


def _mean_gap(sums: FloatArray) -> FloatArray:
    return ratio(np.abs(sums[..., :-1]).sum(axis=-1), sums[..., -1])


ECE = Metric(
    name="ece",
    title="ECE",
    task="classification",
    higher_is_better=False,
    about="confidence",
    definition=f"expected calibration error: distance of accuracy from mean confidence in each of {BINS} bins of "
    "equal width, weighted by the bin's count; biased upward in small samples",
    statistics=_gaps,
    value=_mean_gap,
)
"""1/n sum_b |hits_b - confidence_b|, both summed in bin b; in [0, 1], lower is better.

Naeini et al. 2015 (AAAI); bins of the top probability as in Guo et al. 2017 (ICML): ((b - 1)/15, b/15], closed on the
right, so confidence 1 lies in the last; 0 lies in the first, and what float32 puts above 1 counts as 1. Statistics
are (n, 16): hit less confidence in the column of the bin, and 1.

It is biased upward, most for calibrated models. A calibrated bin of n_b utterances has a gap of random sign, whose
size is sqrt(2 v_b n_b / pi) on average, v_b = c (1 - c) at confidence c. With B bins in equal use and v = 0.2 that
makes an ECE of about 0.36 sqrt(B / n) where the truth is 0: 0.11 for 100 utterances in 10 bins, 0.04 for 1000. A
resample doubles the variance and so has sqrt(2) times that bias: replicates lie above the estimate. Compare ECE
between conditions of the same utterances, where part of the bias cancels. (Roelofs et al. 2022, AISTATS, on the bias.)
"""


def ece_noise(utterances: int) -> float:
    """The ECE that a calibrated model shows by chance, about; the reasoning is that of ``ECE``.

    >>> round(ece_noise(600), 3)
    0.057
    """
    return 0.36 * float(np.sqrt(BINS / utterances))


# -------------------------------------------------------------------------------------------------- AURC

_EDGES = np.concatenate([np.arange(1, 90) / 100, 1 - np.geomspace(0.1, 2.0**-24, 60)])
"""Where one level of confidence ends and the next begins: every 0.01 up to 0.9, then 1 - confidence shrinks by a fifth
from one to the next, down to the last number that float32 has below 1. Steps of 0.01 all the way would rank nothing
in a network that is surer than 0.99 of half its predictions, and put its area off by 0.06."""


def _levels(truth: FloatArray, scores: FloatArray) -> FloatArray:
    # level 0 is the surest: in the order in which utterances are accepted
    level = len(_EDGES) - np.searchsorted(_EDGES, scores.max(axis=1))
    seen = np.eye(len(_EDGES) + 1)[level]
    return np.concatenate([seen, seen * (scores.argmax(axis=1) != truth)[:, None]], axis=1)


def _accepted(sums: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Counts, errors and error rate of each level, and the count of those accepted before it; (..., L) each."""
    counts, errors = np.split(np.asarray(sums, float), 2, axis=-1)
    return counts, errors, np.nan_to_num(ratio(errors, counts)), np.cumsum(counts, axis=-1) - counts


def _area(sums: FloatArray) -> FloatArray:
    counts, errors, rate, before = _accepted(sums)
    surplus = np.cumsum(errors, axis=-1) - errors - before * rate
    # in the first level that holds anything the risk is its rate throughout: no surplus, and no ratio to grow by
    growth = np.log1p(np.nan_to_num(ratio(counts, before)))
    return ratio((errors + surplus * growth).sum(axis=-1), counts.sum(axis=-1))


AURC = Metric(
    name="aurc",
    title="AURC",
    task="classification",
    higher_is_better=False,
    about="confidence",
    definition="area under the risk-coverage curve: share of errors among the most confident utterances, mean over "
    "all shares of utterances",
    statistics=_levels,
    value=_area,
)
"""1/n integral_0^n E(t)/t dt, E(t) the expected errors among the t most confident; in [0, 1], lower is better.

The curve is El-Yaniv & Wiener's (2010, JMLR 11:1605), the area Geifman, Uziel & El-Yaniv's (2019, ICLR). Confidence
that says nothing gives the error rate r; a perfect ranking gives r + (1 - r) ln(1 - r). Statistics are (n, 2 L): the
count and the errors of each of L = 150 levels of confidence, the surest first.

Departures, for the sake of sums and weights:

* Confidence is read on a fixed grid of L levels. Utterances of a level count in random order, in expectation, so E(t)
  is a straight line within it. On simulated networks from under- to overconfident the area moves by less than 0.001.
* The mean over coverages 1/n, ..., n/n becomes an integral, which real weights leave defined and their scale
  unchanged. In the step from k - 1 to k accepted, E(t)/t runs from the risk r_(k-1) to r_k, so the integral lies within
  sum_k |r_k - r_(k-1)| / n of the mean of r_1, ..., r_n; that is at most (1/2 + ... + 1/n) / n.

With a level of w utterances and error rate q, W accepted before it and E errors among those, the integral over the
level is q w + (E - W q) ln(1 + w / W).
"""


def selective_accuracy(sums: FloatArray, coverages: FloatArray) -> FloatArray:
    """Accuracy among the most confident share of utterances, from the sums of ``AURC.statistics``; higher is better.

    ``sums`` (..., m), with ``coverages`` (q,) in (0, 1], give (..., q): 1 - E(t)/t at t = coverage * n, which is one
    less the curve whose area AURC is, with AURC's departures. NaN where there is no utterance, or none is wanted.

    >>> truth, scores = np.array([0.0, 0.0]), np.array([[0.9, 0.1], [0.4, 0.6]])
    >>> selective_accuracy(AURC.statistics(truth, scores).sum(axis=0), np.array([0.5, 1.0])).tolist()
    [1.0, 0.5]
    """
    counts, _, rate, before = _accepted(sums)
    total = counts.sum(axis=-1, keepdims=True)
    # one coverage at a time: resamples by coverages by levels would not fit into memory
    taken = (np.clip(coverage * total - before, 0, counts) for coverage in coverages)
    return np.stack([ratio(((1 - rate) * part).sum(axis=-1), part.sum(axis=-1)) for part in taken], axis=-1)
