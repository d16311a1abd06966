"""Decoded sound to one channel at 16 kHz."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av import AudioFrame

SAMPLE_RATE = 16_000
"""Hz; what all sound is resampled to."""
DRIFT = 0.02
"""Seconds that sound may be off its stated time before it is moved; 0.045 is seen (ITU-R BT.1359-1)."""
RATES = (4_000, 192_000)
"""Hz; any other rate is damage."""

_MIX = {
    **dict.fromkeys(("FL", "FR", "FLC", "FRC", "DL", "DR"), math.sqrt(0.5)),
    "FC": 1.0,
    **dict.fromkeys(("BL", "BR", "BC", "SL", "SR"), 0.5),
    **dict.fromkeys(("LFE", "LFE2"), 0.0),
}
"""Weights in a mono mix, before they are scaled to sum to one (ITU-R BS.775-3, annex 4, table 2: mono)."""


@dataclass
class Run:
    """Sound without a gap: ``pieces`` (samples,) end to end, at ``rate`` Hz, from the sample ``first`` of the clock."""

    first: int
    rate: int
    pieces: list[NDArray[np.float32]] = field(default_factory=list)
    length: int = 0

    def add(self, piece: NDArray[np.float32]) -> None:
        self.pieces.append(piece)
        self.length += len(piece)

    @property
    def end(self) -> float:
        """In seconds."""
        return (self.first + self.length) / self.rate


def mono(frame: AudioFrame) -> NDArray[np.float32]:
    """(samples,), the mix of a decoded frame's channels."""
    if (frame.format.is_planar and frame.layout.nb_channels >= 8) or frame.format.name.startswith("s64"):
        # PyAV 18 has no arrays of 64-bit integers; and it counts planes until there is none, which goes wrong from 8 on
        from av import AudioResampler

        (frame,) = AudioResampler(format="flt").resample(frame)
    coded = frame.to_ndarray()
    if not frame.format.is_planar:
        coded = coded.reshape(-1, frame.layout.nb_channels).T
    values = coded.astype(np.float32)
    if coded.dtype == np.uint8:
        values = (values - np.float32(128)) / np.float32(128)
    elif coded.dtype.kind == "i":
        values /= 2.0 ** (8 * coded.dtype.itemsize - 1)
    mixed: NDArray[np.float32] = _weights(tuple(channel.name for channel in frame.layout.channels)) @ values
    return np.nan_to_num(mixed, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


@lru_cache(maxsize=16)
def _weights(channels: tuple[str, ...]) -> NDArray[np.float32]:
    """Of each channel in the mix, by ffmpeg's names; alike where a name says nothing."""
    known = np.array([_MIX.get(name, math.nan) for name in channels], np.float32)
    if np.isnan(known).any() or not known.any():
        known = np.ones(len(channels), np.float32)
    weights: NDArray[np.float32] = known / known.sum()
    return weights


def joined(runs: Sequence[Run], start: float, end: float) -> NDArray[np.float32]:
    """(samples,) at 16 kHz from ``start`` to ``end`` seconds, or to the last run's end: each run in its place."""
    low, high = round(start * SAMPLE_RATE), round(min(end, max(run.end for run in runs)) * SAMPLE_RATE)
    whole = np.zeros(max(high - low, 0), np.float32)
    for run in runs:
        first, values = _resampled(run)
        left, right = max(low, first), min(high, first + len(values))
        if left < right:
            whole[left - low : right - low] = values[left - first : right - first]
    return np.clip(whole, -1, 1, out=whole)


def _resampled(run: Run) -> tuple[int, NDArray[np.float32]]:
    """The run at 16 kHz, and which sample of the clock it starts with.

    Both clocks tick together every ``down`` samples of the run's: filled up with zeros to there, a stretch is resampled
    to the very samples that it has in the whole.
    """
    from scipy.signal import resample_poly  # takes long to import

    values = np.concatenate(run.pieces)
    common = math.gcd(run.rate, SAMPLE_RATE)
    up, down = SAMPLE_RATE // common, run.rate // common
    lead = run.first % down
    first = (run.first - lead) // down * up
    if up == down:
        return first, values
    padded = np.concatenate([np.zeros(lead, np.float32), values])
    made: NDArray[np.float32] = resample_poly(padded, up, down, window=_low_pass(max(up, down)))
    return first, made


@lru_cache(maxsize=8)
def _low_pass(factor: int) -> NDArray[np.float32]:
    """Passes the lower 89% of the narrower band, and nothing (-90 dB) from 101% on: 48 zero crossings a side, Kaiser's
    window of beta 9."""
    from scipy.signal import firwin

    taps: NDArray[np.float32] = firwin(2 * 48 * factor + 1, 0.95 / factor, window=("kaiser", 9.0)).astype(np.float32)
    return taps
