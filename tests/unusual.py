"""Texts that a corruption may meet: ordinary, unusual and arbitrary ones."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from dual_bench.contract.corruptions import TEXTS

UNUSUAL = (
    *TEXTS,
    " ",
    " \t\n\u2003\u00a0 ",
    "zero\u200bwidth \ufeffmark \x00 \x1c \x85 end",
    " ".join(f"w{i}" for i in range(5000)),
)
words = st.text(st.characters(exclude_categories=("Cs", "Zs", "Zl", "Zp", "Cc")), min_size=1, max_size=8)
spaces = st.text(st.sampled_from(" \t\n\u00a0\u2003"), min_size=1, max_size=3)
sentences = st.lists(st.tuples(words, spaces), max_size=12).map(lambda pairs: "".join(w + s for w, s in pairs))
texts = st.one_of(st.text(), sentences, st.sampled_from(UNUSUAL))
rates = st.floats(0, 1)
seeds = st.integers(0, 2**32 - 1)


def is_subsequence(part: Sequence[str], whole: Sequence[str]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)
