"""Plans on a corpus of no utterances: enough to see which cells they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from dual_bench.plan import Cell, Plan, cells
from dual_bench.types import Corpus, Fold, Task

NOBODY = np.empty(0, np.int64)
PACK = 2


def corpus_of(folds: Sequence[str]) -> Corpus:
    task = Task("classification", ("glad", "sad"))
    return Corpus("empty", task, (), {}, tuple(Fold(f, *[NOBODY] * 3) for f in folds), "", "f" * 64)


def plan_of(models: Sequence[str], **fields: Any) -> Plan:
    given = {"rates": (0.5,), "corruptions": ("word-drop",), "draws": 1, **fields}
    return Plan(name="planned", dataset="empty", models=tuple(models), **given)


def cells_of(plan: Plan, folds: Sequence[str] = ("official",)) -> tuple[Cell, ...]:
    corpus = corpus_of(folds)
    return cells(plan, corpus, plan.conditions(corpus), {"text": "letters"}, "cpu")


REGIMES = ("clean", "matched", "mixed", "modality-dropout")
MODELS = ("dual", "dual:width=8", "text-only", "audio-vision", "constant")
"""One that reads no words, one that reads nothing, and not all can be stacked."""


@st.composite
def plans(draw: st.DrawFn) -> tuple[Plan, tuple[str, ...]]:
    """A plan and the folds of its corpus."""

    def some(names: Sequence[str]) -> list[str]:
        return draw(st.lists(st.sampled_from(names), min_size=1, unique=True))

    training = {"pack": draw(st.sampled_from((1, PACK)))}
    plan = plan_of(some(MODELS), regimes=tuple(some(REGIMES)), seeds=draw(st.integers(1, 7)), training=training)
    return plan, ("a", "b", "c")[: draw(st.integers(1, 3))]
