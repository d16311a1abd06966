"""A few inputs of every target of fuzzing; ``make fuzz`` tries a million."""

from __future__ import annotations

from typing import Any

import pytest
from fuzz.base import Target
from fuzz.targets import TARGETS
from hypothesis import HealthCheck, given, settings

SMALL = [target for target in TARGETS if target.hypothesis > 100]


@pytest.mark.parametrize("target", SMALL, ids=[target.name for target in SMALL])
def test_no_input_is_met_with_anything_but_a_sentence(target: Target) -> None:
    for content in target.seeds:
        target.check(target.read(content))

    @settings(max_examples=max(2, target.hypothesis // 1000), suppress_health_check=list(HealthCheck))
    @given(target.inputs)
    def run(value: Any) -> None:
        target.check(value)

    run()
