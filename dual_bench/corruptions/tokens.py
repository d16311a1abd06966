"""Noise behind the words: on token embeddings (T, d), for a text of which only features are known, or of which the
encoder rather than the recogniser is at fault. The words stay as they are, so that there is no word error rate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dual_bench.types import Corruption, FloatArray

Tokens = NDArray[np.float32]


def zero_tokens(tokens: Tokens, rate: float, rng: np.random.Generator, unknown: FloatArray) -> Tokens:
    """Each token embedding becomes zero with probability ``rate``, as a packet of features that was lost.

    (Yuan et al. 2021, "Transformer-based Feature Reconstruction Network": random feature missing, here in text.)

    >>> zero_tokens(np.ones((3, 1), np.float32), 0.5, np.random.default_rng(0), np.zeros(1)).ravel()
    array([1., 0., 0.], dtype=float32)
    """
    return _replaced(tokens, rate, rng, np.zeros_like(unknown))


def unknown_tokens(tokens: Tokens, rate: float, rng: np.random.Generator, unknown: FloatArray) -> Tokens:
    """Each token embedding becomes that of the unknown token with probability ``rate``.

    (What TFR-Net and its successors feed for a missing word.)

    >>> unknown_tokens(np.ones((3, 1), np.float32), 0.5, np.random.default_rng(0), np.full(1, 7.0)).ravel()
    array([1., 7., 7.], dtype=float32)
    """
    return _replaced(tokens, rate, rng, unknown)


def _replaced(tokens: Tokens, rate: float, rng: np.random.Generator, by: FloatArray) -> Tokens:
    hit = rng.random(len(tokens)) < rate
    return np.where(hit[:, None], by, tokens).astype(np.float32) if hit.any() else tokens


def noisy_tokens(tokens: Tokens, rate: float, rng: np.random.Generator, unknown: FloatArray) -> Tokens:
    """Gaussian noise that makes up the share ``rate`` of the power of the mixture, which keeps the power of the text:

        sqrt(1 - rate) x + sqrt(rate P(x)) n,    P(x) = mean of x squared over tokens and features, n ~ N(0, 1).

    So the signal-to-noise ratio is 10 log10((1 - rate) / rate) dB, and at rate 1 there is noise alone. The noise of a
    draw is the same at every rate, only louder.

    >>> noisy_tokens(np.ones((2, 1), np.float32), 0.5, np.random.default_rng(0), np.zeros(1)).ravel().round(3)
    array([0.796, 0.614], dtype=float32)
    """
    noise = rng.standard_normal(tokens.shape)
    if rate == 0 or not len(tokens):
        return tokens
    power = float(np.mean(np.square(tokens, dtype=np.float64)))
    mixture: FloatArray = np.sqrt(1 - rate) * tokens + np.sqrt(rate * power) * noise
    return mixture.astype(np.float32)


ZERO = Corruption("token-zero", 1, zero_tokens, rate_is="token embeddings zeroed", needs="tokens")
UNKNOWN = Corruption("token-unk", 1, unknown_tokens, rate_is="token embeddings unknown", needs="tokens")
NOISE = Corruption(
    "token-noise", 1, noisy_tokens, rate_is="noise power in the token embeddings", needs="tokens", nested=False
)
