"""Text of strangers in CSV files that people open with a spreadsheet program."""

from __future__ import annotations

import re
import unicodedata


def neutral(text: str) -> str:
    """The text, with an apostrophe before what a spreadsheet would take for a formula: also behind spaces and signs
    that do not show, and with the wider or smaller forms of = + - @ (after OWASP, CSV Injection). A carriage return is
    a new line, as ``csv`` would write it bare.

    >>> neutral("=cmd|' /C calc'!A0"), neutral("dual"), neutral(" ＝1")
    ("'=cmd|' /C calc'!A0", 'dual', "' ＝1")
    """
    text = re.sub("\r\n?", "\n", text)
    first = next((c for c in text if unicodedata.category(c)[0] not in "ZCM"), "")
    starts = text.startswith(("\t", "\n")) or unicodedata.normalize("NFKD", first).startswith(("=", "+", "-", "@"))
    return f"'{text}" if starts else text
