"""Every corruption on any text at any rate: the identity at rate 0, never an error, and no more than so much text."""

from __future__ import annotations

from typing import Any

import numpy as np
from fuzz.base import Target, refusing, surrogates, text, text_of
from hypothesis import strategies as st

from dual_bench.catalog import CORRUPTIONS
from dual_bench.corruptions.measure import changes, measure
from dual_bench.corruptions.noise import load
from dual_bench.types import Context, Task, TrainingText

_LONGEST = 48
"""Characters that stand for one of the text at the most: two words of a lexicon, and a space."""

rates = st.sampled_from((0.0, 1.0, 5e-324, 0.5, float(np.nextafter(1, 0)))) | st.floats(0, 1)
_words = st.lists(st.sampled_from(("we", "Opened", "the", "letter,", "isn't", "ﬁne", "10")) | text, max_size=12).map(
    " ".join
)
_texts = text | surrogates | _words
_tasks = st.sampled_from((Task("classification", ("a", "b")), Task("regression", low=-1.0, high=1.0)))


@st.composite
def contexts(draw: st.DrawFn) -> Context:
    task = draw(_tasks)
    said = draw(st.lists(text, min_size=1, max_size=4))
    targets = st.sampled_from((0.0, 1.0)) if task.kind == "classification" else st.floats(-1, 1)
    told = np.array([draw(targets) for _ in said])
    return Context(TrainingText(task, tuple(said), told), draw(targets | st.just(float("nan"))))


def _drawn_of(content: bytes) -> tuple[str, str, float, int, Context]:
    """A corruption, a text, and what is said in training, of bytes."""
    head = content[:6].ljust(6, b"\x00")
    given, *said = [text_of(part) for part in content[6:].split(b"\xff\xff")]
    names = [name for name, needed in _NEEDS.items() if needed in ("nothing", "training")]
    rate = (0.0, 1.0, 5e-324, head[2] / 255, head[2] / 2**20)[head[1] % 5]
    task = (Task("classification", ("a", "b")), Task("regression", low=-1.0, high=1.0))[head[3] % 2]
    targets = np.arange(len(said)) % 2.0
    target = (0.0, 1.0, float("nan"))[head[3] % 3]
    training = TrainingText(task, tuple(said), targets)
    return names[head[0] % len(names)], given, rate, head[4], Context(training, target)


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def corrupt(drawn: tuple[str, str, float, int, Context]) -> None:
    """Words to words."""
    name, given, rate, seed, context = drawn
    corruption = load(name)
    more = (context,) if corruption.needs == "training" else ()
    found = corruption.apply(given, rate, _generator(seed), *more)
    assert isinstance(found, str)
    assert corruption.apply(given, 0.0, _generator(seed), *more) == given
    longest = max(map(len, (*context.training.texts, "")))
    assert len(found) <= (len(given) + 1) * (_LONGEST + longest)
    if not any("\ud800" <= c <= "\udfff" for c in given + "".join(context.training.texts)):
        found.encode()
    measured = measure(given, found)
    assert measured.errors >= 0
    changes(given, found)


def worst(drawn: tuple[list[str], list[float], int, bool]) -> None:
    texts, asked, seed, odd = drawn
    corruption = load("worst-case")

    def harm(rows: Any, read: list[str]) -> np.ndarray:
        return np.full(len(read), np.nan) if odd else np.array([float(len(one)) for one in read])

    found = corruption.apply(texts, [0.0, *asked], harm, [_generator(seed + i) for i in range(len(texts))])
    assert found[0] == texts
    for row in found:
        assert all(len(one) <= max(len(given), 0) for one, given in zip(row, texts, strict=True))


_token = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.floats(-9, 9, width=32)


def behind(drawn: tuple[str, list[tuple[float, float]], float, int]) -> None:
    """Token embeddings to token embeddings."""
    name, rows, rate, seed = drawn
    tokens = np.array(rows, np.float32).reshape(-1, 2)
    corruption = load(name)
    unknown = np.full(2, 7.0, np.float32)
    found = corruption.apply(tokens, rate, _generator(seed), unknown)
    assert (found.shape, found.dtype) == (tokens.shape, tokens.dtype)
    assert np.array_equal(corruption.apply(tokens, 0.0, _generator(seed), unknown), tokens)
    if np.abs(tokens).max(initial=0) < 1e15:
        assert np.isfinite(found).all()


_sample = st.floats(-1, 1, width=32) | st.floats(width=32)


def heard(drawn: tuple[list[float], float, float, int]) -> None:
    """Sound to words: no waveform is refused in any way but a sentence."""
    samples, sample_rate, rate, seed = drawn
    corruption = load("asr-loop")
    with refusing():
        found = corruption.apply("so", rate, _generator(seed), np.array(samples, np.float32), sample_rate)
        assert isinstance(found, str)
        assert rate or found == "so"
        assert len(found) < 1000


_NEEDS = {name: load(name).needs for name in CORRUPTIONS.entries}
_seeds = st.integers(0, 2**32)


def _named(*needs: str) -> st.SearchStrategy[str]:
    return st.sampled_from([name for name, needed in _NEEDS.items() if needed in needs])


TARGETS = (
    Target(
        "corruptions",
        st.tuples(_named("nothing", "training"), _texts, rates, _seeds, contexts()),
        corrupt,
        12_000,
        70_000,
        tuple(
            bytes([i, 3, 99, 0, 1, 0]) + b" We opened the letter, isn't it?\xff\xff so be it\xff\xff no"
            for i in range(20)
        ),
        _drawn_of,
    ),
    Target(
        "worst-case",
        st.tuples(st.lists(_texts, max_size=3), st.lists(rates, max_size=2), _seeds, st.booleans()),
        worst,
        2_000,
        2_000,
    ),
    Target(
        "token noise",
        st.tuples(_named("tokens"), st.lists(st.tuples(_token, _token), max_size=6), rates, _seeds),
        behind,
        2_000,
        2_000,
    ),
    Target(
        "asr-loop",
        st.tuples(
            st.lists(_sample, max_size=60),
            st.sampled_from((16_000.0, 8_000.0, 44_100.0, 1.0, 7919.0, 192_000.0, 1e9 + 7, 0.5, float("nan"), 1e300)),
            rates,
            _seeds,
        ),
        heard,
        600,
        0,
    ),
)
