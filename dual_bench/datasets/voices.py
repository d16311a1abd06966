"""The voices of the synthetic corpus: a glottal wave with pitch, loudness, tremor and breath, at 16 kHz.

Emotions in one of ``MOTION_PAIRS`` share a static level (mean pitch, loudness, spectral tilt, breath, tremor) and
differ only in how they move: the waveform of the second is, in distribution, that of the first played backwards. A
time average of short-time spectra cannot tell them apart; their change over time can.

The two ``WAVES`` are not emotions but a harder test: pitch and loudness rise slowly and fall fast, over and over from a
random phase, or the other way round. Their level at any given time tells nothing either; only its change does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.signal import sawtooth

SAMPLE_RATE = 16_000
"""Hz."""
MOTION_PAIRS = (("joy", "anger"), ("surprise", "fear"))

_CONTROL_STEP = 160
"""Samples from one point of a contour to the next: 10 ms."""
_HARMONICS = 16
"""The highest stays below 8 kHz up to a pitch of 500 Hz."""
_TABLE = 2048
_FULL_SCALE = 2**15 - 1
_LOUDNESS = 0.03
"""Root mean square of a neutral voice, full scale being 1."""
_ROOM_NOISE = 3e-4


@dataclass(frozen=True)
class Style:
    """How an emotion sounds: a level, and how far pitch and loudness go to either side of it from start to end."""

    pitch: float = 0.0
    """Semitones above the speaker's own."""
    loudness: float = 0.0
    """dB above neutral."""
    tilt: float = 1.2
    """Harmonic k has amplitude k**-tilt."""
    breath: float = 0.05
    """Noise, as a share of the voice's amplitude."""
    tremor: float = 0.0
    """Depth of a 6.5 Hz wobble, in semitones of pitch and dB of loudness."""
    glide: float = 0.0
    """Semitones: pitch moves from -glide to +glide."""
    swell: float = 0.0
    """dB: loudness moves from -swell to +swell."""
    waves: float = 0.0
    """How often pitch and loudness rise slowly and fall fast; 0: they move once, from start to end."""
    backwards: bool = False


_JOY = Style(pitch=3.0, loudness=7.0, tilt=0.6, glide=3.0, swell=7.0)
_SURPRISE = Style(pitch=5.0, breath=0.6, tremor=0.7, glide=3.0, swell=7.0)
STYLES = {
    "neutral": Style(),
    "sadness": Style(pitch=-2.0, loudness=-7.0, tilt=2.2, breath=0.12),
    "joy": _JOY,
    "anger": replace(_JOY, backwards=True),
    "surprise": _SURPRISE,
    "fear": replace(_SURPRISE, backwards=True),
    "slow rise": replace(_JOY, waves=2.0),
    "fast rise": replace(_JOY, waves=2.0, backwards=True),
}
WAVES = ("slow rise", "fast rise")


@dataclass(frozen=True)
class Voice:
    """What a speaker brings along: pitch in Hz, loudness in dB, and the complex gain of each harmonic."""

    pitch: float
    loudness: float
    timbre: NDArray[np.complex128]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Voice:
        gain = 10 ** (rng.normal(0, 1.5, _HARMONICS) / 20)
        phase = rng.uniform(0, 2 * np.pi, _HARMONICS)
        return cls(110 * 2 ** rng.uniform(0, 1), rng.normal(0, 0.7), gain * np.exp(1j * phase))


def speak(emotion: str, voice: Voice, samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(samples,) in [-1, 1], rounded to 16 bits as a recording would be."""
    style = STYLES[emotion]
    pitch, loudness = _contours(style, voice, samples, rng)
    control = np.arange(len(pitch)) * _CONTROL_STEP
    time = np.arange(samples)
    cycles = rng.random() + np.cumsum(np.interp(time, control, pitch)) / SAMPLE_RATE
    amplitude = np.interp(time, control, loudness)
    wave = _period(style.tilt, voice)[(cycles * _TABLE).astype(np.int64) % _TABLE]
    wave = amplitude * wave + (amplitude * style.breath + _ROOM_NOISE) * rng.standard_normal(samples)
    wave = np.rint(np.clip(wave, -1, 1) * _FULL_SCALE) / _FULL_SCALE
    return np.ascontiguousarray(wave[::-1] if style.backwards else wave, np.float32)


def course(waves: float, points: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(points,) from -1 to 1: once from start to end, or a saw tooth of ``waves`` periods and random phase whose fall
    takes a sixth of a period."""
    position = np.linspace(-1, 1, points)
    if not waves:
        return np.asarray(np.sign(position) * np.abs(position) ** rng.uniform(0.7, 1.3))
    turn = 2 * np.pi * (waves * (position + 1) / 2 + rng.random())
    return np.asarray(sawtooth(turn, width=5 / 6))


def _contours(
    style: Style, voice: Voice, samples: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pitch in Hz and root mean square amplitude, a point every 10 ms."""
    points = samples // _CONTROL_STEP + 2
    seconds = np.arange(points) * _CONTROL_STEP / SAMPLE_RATE
    move = course(style.waves, points, rng)

    def wobble(low: float, high: float) -> NDArray[np.float64]:
        wave: NDArray[np.float64] = np.sin(2 * np.pi * (rng.uniform(low, high) * seconds + rng.random()))
        return wave

    semitones = style.pitch + style.glide * move + 0.5 * wobble(1, 2) + style.tremor * wobble(6, 7)
    decibels = style.loudness + style.swell * move + 1.0 * wobble(3, 5) + style.tremor * wobble(6, 7)
    pitch = voice.pitch * 2 ** (semitones / 12)
    loudness = _LOUDNESS * 10 ** ((decibels + voice.loudness) / 20)
    return pitch, loudness


def _period(tilt: float, voice: Voice) -> NDArray[np.float64]:
    """One period of the voice, root mean square 1."""
    spectrum = np.zeros(_TABLE // 2 + 1, np.complex128)
    spectrum[1 : _HARMONICS + 1] = np.arange(1, _HARMONICS + 1) ** -tilt * voice.timbre
    period: NDArray[np.float64] = np.fft.irfft(spectrum, _TABLE)
    period /= np.sqrt(np.mean(period**2))
    return period
