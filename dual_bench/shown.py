"""Text that others wrote, made fit for the places it goes to."""

from __future__ import annotations

import re


def legible(text: str) -> str:
    """The text with U+FFFD for what neither HTML nor XML may hold: control characters, surrogates, noncharacters.

    >>> legible("one\\r\\ntwo \\x07")
    'one\\ntwo \ufffd'
    """
    return _ILLEGIBLE.sub("\ufffd", re.sub("\r\n?", "\n", text))


_ILLEGIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
    + "".join(chr((plane << 16) + end) for plane in range(1, 17) for end in (0xFFFE, 0xFFFF))
    + "]"
)


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and an ellipsis where it has more than ``most`` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
