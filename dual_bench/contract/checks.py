"""What a check is, and how its answer becomes a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from dual_bench.models.spec import told
from dual_bench.types import DualBenchError

T = TypeVar("T")
Check = Callable[[T], str | None]
"""What is wrong with a part, in a sentence: what was expected, what was found, what to do. None where nothing is."""


class SkippedError(Exception):
    """Why a check has nothing to say about a part."""


@dataclass(frozen=True)
class Finding:
    """Whether a part keeps a promise; ``detail`` says what is wrong, or why nobody looked, or why one who
    ought to could not (``unable``)."""

    promise: str
    verdict: Literal["ok", "FAILS", "skipped", "unable"]
    detail: str = ""


def examined(promise: str, check: Check[T], part: T) -> Finding:
    """One check; a part that raises breaks its promise."""
    try:
        problem = check(part)
    except SkippedError as reason:
        return Finding(promise, "skipped", str(reason))
    except DualBenchError as error:
        problem = str(error)
    except Exception as error:  # of a user's own, anything may come
        problem = f"raised {told(error)}"
    return Finding(promise, "FAILS", problem) if problem else Finding(promise, "ok")


def findings(promises: Mapping[str, Check[T]], part: T) -> Iterator[Finding]:
    """Every check in turn; what ends in the same way as one before it, as where nothing can be built, is told once."""
    told_before = set()
    for promise, check in promises.items():
        found = examined(promise, check, part)
        if found.verdict == "FAILS" and found.detail in told_before:
            found = Finding(promise, "skipped", "it ends as above")
        told_before.add(found.detail)
        yield found
