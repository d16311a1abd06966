"""Work for other processes, some of which do not survive it."""

from __future__ import annotations

import os


def squared(number: int, deadly: frozenset[int] = frozenset()) -> int:
    """The square; a deadly number ends the process as a crash would."""
    if number in deadly:
        os._exit(139)
    return number * number
