"""Every model of the catalogue keeps every promise of ``dual_bench.contract.models``."""

from __future__ import annotations

import pytest

from dual_bench.catalog import MODELS
from dual_bench.contract.checks import examined
from dual_bench.contract.models import PROMISES, Subject
from dual_bench.models.spec import ModelSpec


@pytest.mark.parametrize("promise", PROMISES, ids=[check.__name__ for check in PROMISES.values()])
@pytest.mark.parametrize("name", MODELS.entries)
def test_every_model_of_the_catalogue_keeps_its_promises(name: str, promise: str) -> None:
    spec: ModelSpec = MODELS.load(name)
    found = examined(promise, PROMISES[promise], Subject(spec, spec.settings()))
    assert found.verdict != "FAILS", f"{promise}: {found.detail}"


def test_the_trunk_of_dual_is_looked_at() -> None:
    spec: ModelSpec = MODELS.load("dual")
    promise = "is exactly its trunk and its decoder"
    assert examined(promise, PROMISES[promise], Subject(spec, spec.settings())).verdict == "ok"
