"""Where a study's time goes, told by a clock that the test winds."""

from __future__ import annotations

from made_run import Made, info_of

from dual_bench import screen
from dual_bench.profile import Stopwatch, profile
from dual_bench.schema import CellInfo
from dual_bench.types import DAMAGED, telling


def cell(name: str, seed: int, fit: float, epochs: int, **more: object) -> CellInfo:
    facts = {
        "digest": name,
        "status": "done",
        "model": "dual",
        "variant": "",
        "regime": "clean",
        "seed": seed,
        "fold": "official",
        "parameters": 1,
        "best_epoch": 1,
        "history": [{"total": 1.0}] * epochs,
        "seconds_fit": fit,
        "seconds_predict": fit / 2,
        "device": "cpu",
        "threads": 1,
        "code": "",
        "rows": 10,
        "sha256": "",
    }
    return CellInfo.model_validate(facts | more)


def test_a_stage_lasts_until_another_begins_and_may_go_on_later() -> None:
    now = 100.0
    told = []
    watch = Stopwatch(lambda: now)
    report = watch.watching(lambda *what: told.append(what))
    for at, stage in ((103.0, "corpus"), (104.0, "words"), (106.0, "words"), (110.0, "models"), (111.0, "words")):
        now = at
        report(stage, 1, 2, "detail")
    now = 115.0
    watch.begin("report")
    now = 118.5
    assert watch.stages() == {"start": 3.0, "corpus": 1.0, "words": 10.0, "models": 1.0, "report": 3.5}
    assert list(watch.stages()) == ["start", "corpus", "words", "models", "report"]
    assert told[1] == ("words", 1, 2, "detail")


def test_what_was_damaged_is_told_within_the_stage_that_found_it() -> None:
    now = 100.0
    told: list[tuple[object, ...]] = []
    watch = Stopwatch(lambda: now)
    report = watch.watching(lambda *what: told.append(what))
    report("words", 0, 1, "texts")
    now = 101.0
    telling(report)("a store is damaged: that is made again")
    now = 110.0
    assert watch.stages() == {"start": 0.0, "words": 10.0}
    assert told[1:] == [(DAMAGED, 0, 0, "a store is damaged: that is made again")]


def test_what_was_damaged_is_shown_and_no_bar_begins_or_ends() -> None:
    with screen.screen.capture() as shown, screen.progress() as report:
        report("words", 0, 2, "texts")
        telling(report)("the store [x] is damaged: that is made again")
        report("words", 1, 2, "texts")
    assert "the store [x] is damaged: that is made again\n" in shown.get()
    assert shown.get().count("damaged") == 1
    assert "1/2" in shown.get()


def test_seconds_are_summed_by_system_and_a_training_that_cells_share_counts_once() -> None:
    info = info_of(Made(), [])
    cells = [
        cell("a", 0, 3.0, 2),
        cell("b", 0, 3.0, 2, regime="matched"),  # the same training, asked something else
        cell("c", 1, 3.0, 4),  # another seed is another training, however long it took
        cell("d", 0, 50.0, 1, variant="sdm=off"),
    ]
    found = profile({"models": 9.0}, info, cells)
    assert found.stages == {"models": 9.0}
    assert found.processes == info.provenance.jobs
    off, on = found.models
    assert (off.system, off.trainings, off.seconds_fit, off.answers) == ("dual:sdm=off", 1, 50.0, 10)
    assert (on.system, on.trainings, on.seconds_fit, on.seconds_predict, on.answers) == ("dual", 2, 6.0, 3.0, 30)
    size = info.corpus.counts["train"]
    assert size > 0
    assert (off.utterances, on.utterances) == (size, 6 * size)


def test_of_a_corpus_with_folds_a_training_sees_a_fold_of_mean_size() -> None:
    info = info_of(Made(), [])
    corpus = info.corpus.model_copy(update={"folds": 4, "counts": {"train": 100, "validation": 10, "test": 10}})
    found = profile({}, info.model_copy(update={"corpus": corpus}), [cell("a", 0, 1.0, 3)])
    assert found.models[0].utterances == 75
