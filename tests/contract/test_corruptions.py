"""Every corruption of the catalogue keeps every promise of ``dual_bench.contract.corruptions``.

`tests/test_corruptions.py` holds more against them, on arbitrary texts.
"""

from __future__ import annotations

import pytest

from dual_bench.catalog import CORRUPTIONS
from dual_bench.contract.checks import findings
from dual_bench.contract.corruptions import PROMISES

LISTENING = "asr-loop"
"""Needs a recogniser and seconds; `tests/test_recogniser.py` has its tests."""


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS.entries if name != LISTENING])
def test_every_corruption_of_the_catalogue_keeps_its_promises(name: str) -> None:
    broken = [found for found in findings(PROMISES, CORRUPTIONS.load(name)) if found.verdict == "FAILS"]
    assert broken == []
