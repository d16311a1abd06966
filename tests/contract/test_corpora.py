"""Corpora keep every promise of ``dual_bench.contract.corpora``: embedded, of the user's own, and real."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from tiny import write_corpus

from dual_bench.contract.checks import Finding, findings
from dual_bench.contract.corpora import PROMISES, Subject
from dual_bench.plan import load_corpus


def broken(spec: str, data: Path) -> list[Finding]:
    return [found for found in findings(PROMISES, Subject(partial(load_corpus, spec, data))) if found.verdict != "ok"]


def test_the_embedded_corpus_keeps_its_promises(tmp_path: Path) -> None:
    assert broken("synthetic:utterances=48", tmp_path) == []


@pytest.mark.parametrize("regression", [False, True])
def test_a_manifest_keeps_its_promises(tmp_path: Path, regression: bool) -> None:
    assert broken(str(write_corpus(tmp_path, regression=regression)), tmp_path) == []


@pytest.mark.parametrize("name", ["mosi-752", "ravdess", "composite"])
def test_the_real_corpora_keep_their_promises(shared_data: Path, name: str) -> None:
    assert broken(name, shared_data) == []
