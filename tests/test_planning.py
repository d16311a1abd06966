"""Cells of a plan: what names them, and what they share."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from planned import cells_of, corpus_of, plan_of, plans

from dual_bench.catalog import digest_of
from dual_bench.corruptions.noise import load
from dual_bench.plan import FORMAT_VERSION, Cell, Plan, cells, installed, largest_rates
from dual_bench.types import Condition, Corpus


def facts_of(cell: Cell, plan: Plan, corpus: Corpus, conditions: tuple[Condition, ...]) -> dict[str, Any]:
    """All that the rows of a cell depend on, in full."""
    own = [conditions[number] for number in cell.conditions]
    made = sorted({c.corruption for c in own if c.made})
    facts: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "corpus": corpus.fingerprint,
        "encoders": {"text": "letters é"},
        "device": "cpu",
        "training": plan.training.model_dump(mode="json", exclude={"pack"}),
        "root_seed": plan.root_seed,
        "model": cell.variant.model,
        "settings": cell.settings.model_dump(mode="json", exclude_none=True),
        "regimen": list(cell.regimen),
        "seed": cell.seed,
        "fold": corpus.folds[cell.fold].name,
        "probe": plan.draws if cell.probed else None,
        "corruptions": [(name, load(name).version, installed(load(name).packages)) for name in made],
        "conditions": [(c.corruption, c.rate, c.draw, c.severity) for c in own],
        "mixture": list(largest_rates(conditions).items()) if cell.regimen.regime == "mixed" else [],
    }
    if cell.pack[1] > 1:
        facts["pack"] = list(cell.pack)
    return facts


@given(plans())
def test_the_digest_of_a_cell_is_that_of_all_it_depends_on(asked: tuple[Plan, tuple[str, ...]]) -> None:
    plan, folds = asked
    corpus = corpus_of(folds)
    conditions = plan.conditions(corpus)
    found = cells(plan, corpus, conditions, {"text": "letters é"}, "cpu")
    assert [c.digest for c in found] == [digest_of(facts_of(c, plan, corpus, conditions)) for c in found]
    assert len({c.digest for c in found}) == len(found)


def test_the_digest_of_a_cell_stays_so_that_results_of_earlier_versions_are_found() -> None:
    plan = plan_of(["dual", "text-only:width=16"], seeds=3, regimes=("mixed", "matched"), training={"pack": 2})
    found = {(c.variant.system, c.regimen.title, c.seed): c.digest[:16] for c in cells_of(plan, ("one", "two"))}
    assert found["dual", "mixed", 1] == "bd6a6fcac7e4a07b"
    assert found["text-only:width=16", "matched word-drop 0.5", 2] == "414685999e9ad148"


def test_training_reads_clean_text_where_noise_or_absence_could_not_be_told() -> None:
    plan = plan_of(["dual", "text-only", "audio-vision"], seeds=1, regimes=("matched", "modality-dropout"))
    read = {(c.variant.model, c.regimen.title): c.reads.title for c in cells_of(plan)}
    assert read == {
        ("dual", "matched clean 0"): "clean",
        ("dual", "matched word-drop 0.5"): "matched word-drop 0.5",
        ("dual", "modality-dropout"): "modality-dropout",
        ("text-only", "matched clean 0"): "clean",
        ("text-only", "matched word-drop 0.5"): "matched word-drop 0.5",
        ("text-only", "modality-dropout"): "clean",
        ("audio-vision", "matched clean 0"): "clean",
        ("audio-vision", "matched word-drop 0.5"): "clean",
        ("audio-vision", "modality-dropout"): "modality-dropout",
    }
