"""What every corruption promises. ``PROMISES`` names each check; its function says what is wrong, or nothing.

A corruption of token embeddings is given random ones; one that needs sound, noise for a sound; one that depends on a
model is not called here: what it does is seen on a model alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from dual_bench.contract.checks import Check, SkippedError
from dual_bench.seeding import generator
from dual_bench.shown import shortened
from dual_bench.types import Context, Corruption, Task, TrainingText

TEXTS = (
    "We opened the letter, and nobody was surprised.",
    "",
    " \t\n",
    "word",
    "  two   words\n",
    "👩‍👩‍👧‍👦 fine 👍🏽 🇩🇪",
    "e\u0301\u0302 a\u0308 \u0301 b",
    "שלום עולם \u202bمرحبا\u202c بك",
    "我们打开了那封信 在 走廊里",
    "zero\u200bwidth \ufeffmark \x00 \x85 end",
    " ".join(f"w{i}" for i in range(300)),
)
"""Ordinary, empty and unusual."""

_TRAINING = TrainingText(
    Task("classification", ("a", "b")),
    ("what a lovely day", "no, not again", "we will see", "so be it"),
    np.array([0.0, 1.0, 0.0, 1.0]),
)
_SHORT = ("hello", "no way")
_SENTENCES = tuple(
    f"{who} {what} the {thing} before lunch, isn't it?"
    for who in ("Ann", "nobody", "our teacher", "I")
    for what in ("opened", "found", "really liked")
    for thing in ("letter", "house")
)


def applied(corruption: Corruption, text: str, rate: float, rng: np.random.Generator) -> Any:
    """What it makes of a text, or of token embeddings (words, 4) in the place of one."""
    if corruption.needs == "model":
        raise SkippedError("it chooses words for each trained model")
    if corruption.needs == "tokens":
        return corruption.apply(_original(corruption, text), rate, rng, np.full(4, 9.0, np.float32))
    given: tuple[object, ...] = ()
    if corruption.needs == "training":
        given = (Context(_TRAINING, 0.0),)
    if corruption.needs == "sound":
        given = (generator("contract sound").normal(size=4000).astype(np.float32) / 9, 16_000.0)
    return corruption.apply(text, rate, rng, *given)


def _original(corruption: Corruption, text: str) -> Any:
    """What it is applied to."""
    if corruption.needs != "tokens":
        return text
    return generator("contract tokens", text).normal(size=(len(text.split()), 4)).astype(np.float32)


def _same(one: Any, other: Any) -> bool:
    """Equal to the byte."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return type(one) is type(other) and bool(one == other)


def record(corruption: Corruption) -> str | None:
    if not corruption.rate_is.strip():
        return 'rate_is is empty; say what the rate is the share of, such as "words lost"'
    if corruption.version < 1:
        return f"expected a version of 1 or more, found {corruption.version}"
    return None


def identity(corruption: Corruption) -> str | None:
    for number, text in enumerate(TEXTS):
        found = applied(corruption, text, 0.0, generator("contract", number))
        if not _same(found, _original(corruption, text)):
            return (
                f"expected {_short(text)} as it is at rate 0, found {_short(found)}; keep white space and spelling too"
            )
    return None


def valid(corruption: Corruption) -> str | None:
    for text in TEXTS:
        for rate in (0.3, 1.0):
            found = applied(corruption, text, rate, generator("contract", text))
            if corruption.needs == "tokens":
                shape = (len(text.split()), 4)
                if getattr(found, "shape", None) != shape or not np.isfinite(found).all():
                    return f"expected finite token embeddings of shape {shape} at rate {rate:g}, found {_short(found)}"
            elif not isinstance(found, str):
                return f"expected a text for {_short(text)} at rate {rate:g}, found {_short(found)}; return a str"
            elif found != found.encode("utf-8", "ignore").decode("utf-8"):
                return f"{_short(text)} becomes {_short(found)} at rate {rate:g}, half of a character; cut between them"
    return None


def deterministic(corruption: Corruption) -> str | None:
    for text in TEXTS:
        one, other = (applied(corruption, text, 0.5, generator("contract", text)) for _ in range(2))
        if not _same(one, other):
            return (
                f"the same generator makes {_short(one)} of {_short(text)}, and then {_short(other)}; draw from the "
                "generator that is given, and from nothing else"
            )
    return None


def draws(corruption: Corruption) -> str | None:
    for text in TEXTS:
        states = []
        for rate in (0.0, 0.5, 1.0):
            rng = generator("contract", text)
            applied(corruption, text, rate, rng)
            states.append(rng.bit_generator.state)
        if not states[0] == states[1] == states[2]:
            return (
                f"for {_short(text)} it draws more numbers at one rate than at another; draw them all first, then "
                "compare them with the rate"
            )
    return None


def nested(corruption: Corruption) -> str | None:
    if not corruption.nested:
        raise SkippedError("it says nested=False")
    for text in _SHORT:
        for seed in range(40):
            before = None
            for rate in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
                found = applied(corruption, text, rate, generator("contract", seed))
                if not _same(found, _original(corruption, text)):
                    before = rate
                elif before is not None:
                    return (
                        f"{_short(text)} is hit at rate {before:g}, and with the same generator not at {rate:g}; hit a "
                        "word where its number lies below the rate, or say nested=False"
                    )
    return None


def grows(corruption: Corruption) -> str | None:
    if corruption.needs == "sound":
        raise SkippedError("what it does to a made-up sound says nothing")
    rates = (0.1, 0.4, 0.7, 1.0)
    done = [_damage(corruption, rate) for rate in rates]
    if not done[-1] > 0:
        return f"nothing happens to any of {len(_SENTENCES)} sentences at rate 1"
    if done[0] > 0.95 * done[-1]:
        return f"it does as much at rate 0.1 as at 1 ({done[0]:.2f} of the characters); let the rate say how much"
    for i in range(3):
        if done[i + 1] < done[i] - 0.05 * max(done):
            return (
                f"it does less at rate {rates[i + 1]:g} than at {rates[i]:g}: {done[i + 1]:.2f} and {done[i]:.2f} of "
                "the characters change; let more happen at a higher rate"
            )
    return None


def _damage(corruption: Corruption, rate: float) -> float:
    """Edits for each character, or the distance for each token, in the mean of the sentences."""
    found = []
    for text in _SENTENCES:
        noisy, original = applied(corruption, text, rate, generator("contract", text)), _original(corruption, text)
        if corruption.needs == "tokens":
            found.append(float(np.linalg.norm(noisy - original, axis=1).mean()))
        else:
            found.append(Levenshtein.distance(original, noisy) / len(text))
    return float(np.mean(found))


def _short(value: object) -> str:
    return shortened(repr(value), 50)


PROMISES: Mapping[str, Check[Corruption]] = {
    "says what its rate is, and its version": record,
    "leaves a text as it is at rate 0": identity,
    "gives a text for any text": valid,
    "does the same with the same generator": deterministic,
    "draws the same numbers whatever the rate": draws,
    "heavier noise contains lighter noise": nested,
    "does more at a higher rate": grows,
}
