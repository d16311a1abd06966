"""The sentences: which predictions flip, told longhand; what is picked; and that no text breaks anything."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_run import Made, write

from dual_bench.corruptions.measure import changes
from dual_bench.report.answers import SIGNS
from dual_bench.report.evidence import Evidence, gather
from dual_bench.report.flips import GAP, LETTERS, MOST, SHOWN, Flips, evenly, flips, shortened, table
from dual_bench.report.noise import Noise, Place
from dual_bench.report.rows import ANSWER_COLUMNS
from dual_bench.schema import TEXT_COLUMNS
from dual_bench.store import read_run

CLASSES = ("anger", "joy", "neutral")


def evidence_of(
    answers: pd.DataFrame, texts: pd.DataFrame | None = None, classes: tuple[str, ...] = CLASSES, **told: Any
) -> Evidence:
    """The part of a run's evidence that sentences are made from."""
    first = dict.fromkeys(answers["corruption"])
    rates = {c: tuple(sorted(set(answers.loc[answers["corruption"] == c, "rate"]))) for c in first if c != "clean"}
    facts = {
        "answers": answers,
        "few": answers[["utterance"]].assign(cluster="talk of " + answers["utterance"].astype(str)),
        "systems": tuple(sorted(set(answers["system"]))),
        "regimes": tuple(dict.fromkeys(answers["regime"])),
        "corruptions": tuple(sorted(c for c in rates if not c.startswith("transcript:"))),
        "transcripts": tuple(c for c in rates if c.startswith("transcript:")),
        "places": (Place("clean text", "clean", 0.0),),
        "noise": Noise(pd.DataFrame(), {}, frozenset(), frozenset()),
        "title": str.upper,
        "cube": SimpleNamespace(seeds=tuple(sorted(set(answers["seed"]))), rates=rates.__getitem__),
        "run": SimpleNamespace(
            texts=pd.DataFrame(columns=list(TEXT_COLUMNS)) if texts is None else texts,
            info=SimpleNamespace(corpus=SimpleNamespace(classes=classes)),
        ),
    }
    return SimpleNamespace(**facts | told)  # type: ignore[return-value]


def answers_of(*said: tuple[str, str, float, list[float], list[float]], regime: str = "clean") -> pd.DataFrame:
    """Rows from (system, utterance, truth, what each seed answers to clean text, and with half the words)."""
    rows = [
        (system, regime, seed, corruption, rate, utterance, truth, answer, None)
        for system, utterance, truth, *pair in said
        for (corruption, rate), answers in zip([("clean", 0.0), ("word-drop", 0.5)], pair, strict=True)
        for seed, answer in enumerate(answers)
    ]
    return pd.DataFrame(rows, columns=list(ANSWER_COLUMNS))


def texts_of(*read: tuple[str, str, str]) -> pd.DataFrame:
    """Texts from (utterance, clean text, with half the words)."""
    rows = [
        {"corruption": corruption, "rate": rate, "draw": draw, "utterance": utterance, "text": text}
        for utterance, *pair in read
        for (corruption, rate), first in zip([("clean", 0.0), ("word-drop", 0.5)], pair, strict=True)
        for draw, text in enumerate([first, "of another draw"] if rate else [first])
    ]
    return pd.DataFrame(rows)


def made(**told: Any) -> Flips:
    found = flips(evidence_of(**told))
    assert found is not None
    return found


def test_systems_are_grouped_by_what_they_said_before_and_after() -> None:
    rows = answers_of(
        ("a", "u1", 0, [0], [2]),
        ("b", "u1", 0, [0], [2]),
        ("c", "u1", 0, [1], [0]),
        ("d", "u1", 0, [1], [2]),
        ("e", "u1", 0, [0], [0]),
        ("f", "u1", 0, [1], [1]),
        ("a", "u2", 1, [1], [1]),
    )
    found = made(answers=rows, texts=texts_of(("u1", "so be it", "so it"), ("u2", "well", "well")))
    (row,) = found.rows
    assert (row.utterance, row.cluster, row.truth, row.condition) == ("u1", "talk of u1", "anger", "word-drop 50 %")
    assert (row.before, row.after) == ("so be it", "so it")
    assert row.words == (("so", "same"), ("be", "lost"), ("it", "same"))
    assert [(g.kind, g.before, g.after, g.systems) for g in row.groups] == [
        ("broken", "anger", "neutral", ("A", "B")),
        ("moved", "joy", "neutral", ("D",)),
        ("mended", "joy", "anger", ("C",)),
        ("kept", "anger", "anger", ("E",)),
        ("kept", "joy", "joy", ("F",)),
    ]
    assert found.total == 1
    assert found.rule.startswith("1 case: every test utterance")


def test_a_system_says_what_most_of_its_seeds_say_and_owns_up_to_the_rest() -> None:
    rows = answers_of(
        ("a", "u1", 0, [0, 0, 1], [2, 1, 1]),  # anger 2 of 3, joy 2 of 3, and one seed says both
        ("b", "u1", 0, [2, 1, 0], [1, 2, 2]),  # a tie of three: the first class
        ("c", "u1", 0, [0, 0, 0], [1, 1, 1]),
    )
    (row,) = made(answers=rows).rows
    assert [(g.before, g.after, g.named) for g in row.groups] == [
        ("anger", "joy", ("A (1 of 3 seeds)", "C")),
        ("anger", "neutral", ("B (1 of 3 seeds)",)),
    ]
    voices = {voice.system: voice[1:] for group in row.groups for voice in group.voices}
    assert voices == {"a": (2, 2, 1, 3), "b": (1, 2, 1, 3), "c": (3, 3, 3, 3)}


def longhand(rows: pd.DataFrame) -> dict[tuple[str, float, str, str], dict[str, tuple[int, int]]]:
    """(corruption, rate, regime, utterance) -> system -> answers, of the cases in which one changes; by loops."""

    def most(part: pd.DataFrame) -> int:
        votes = Counter(part["answer"].astype(int))
        return min(answer for answer in votes if votes[answer] == max(votes.values()))

    who = ["regime", "system", "utterance"]
    clean = {key: most(part) for key, part in rows[rows["corruption"] == "clean"].groupby(who)}
    found: dict[Any, dict[str, tuple[int, int]]] = {}
    for (corruption, rate, *key), part in rows[rows["rate"] > 0].groupby(["corruption", "rate", *who]):
        regime, system, utterance = key
        found.setdefault((corruption, rate, regime, utterance), {})[system] = (clean[tuple(key)], most(part))
    return {key: said for key, said in found.items() if any(before != after for before, after in said.values())}


def told(found: Flips) -> dict[tuple[str, float, str, str], dict[str, tuple[int, int]]]:
    return {
        (row.corruption, row.rate, row.regime, row.utterance): {
            voice.system: (CLASSES.index(group.before), CLASSES.index(group.after))
            for group in row.groups
            for voice in group.voices
        }
        for row in found.rows
    }


def test_flips_are_those_found_by_loops_whatever_the_order_of_rows_and_categories(tmp_path: Path) -> None:
    made_ = Made(models=("dual", "text-only", "concat"), utterances=40, seeds=3, regimes=("clean", "mixed"))
    evidence = gather(read_run(write(tmp_path, made_).path))
    found = flips(evidence)
    assert found is not None
    assert found.total == len(found.rows) <= MOST
    assert told(found) == longhand(evidence.answers)
    assert {row.condition for row in found.rows} >= {"word-drop 50 %", "utterance-drop 100 %", "whisper text"}
    shuffled = evidence.answers.sample(frac=1, random_state=1)
    for column in ("system", "regime", "corruption", "utterance"):
        values = shuffled[column].astype(str)
        shuffled[column] = pd.Categorical(values, categories=sorted(set(values), reverse=True))
    run = replace(evidence.run, texts=evidence.run.texts.sample(frac=1, random_state=2))
    again = flips(replace(evidence, taken=replace(evidence.taken, answers=shuffled), run=run))
    assert again == found
    csvs = [made_table.csv() for each in (found, again) if (made_table := table(each))]
    assert csvs[0] == csvs[1]


def test_folds_test_each_utterance_once_and_seeds_that_are_incomplete_do_not_count() -> None:
    rows = answers_of(("a", "u1", 0, [0, 0, 0], [1, 1, 2]), ("a", "u2", 1, [1, 1, 1], [1, 1, 0]))
    # seed 2 is left out everywhere else in a report, so it is here
    (row,) = made(answers=rows, cube=SimpleNamespace(seeds=(0, 1), rates=lambda name: (0.5,))).rows
    assert row.utterance == "u1"
    assert row.groups[0].voices[0][1:] == (2, 2, 2, 2)


def test_a_system_that_was_not_asked_is_not_spoken_for() -> None:
    rows = answers_of(("a", "u1", 0, [0], [1]), ("b", "u1", 0, [0], []), ("b", "u2", 0, [0], [0]))
    (row,) = made(answers=rows).rows
    assert [group.systems for group in row.groups] == [("A",)]


def test_of_values_the_sign_is_the_answer() -> None:
    rows = answers_of(
        ("a", "u1", -2.0, [-1.5], [0.0]), ("a", "u2", 0.0, [0.5], [0.1]), ("b", "u1", -2.0, [1.0], [-0.1])
    )
    found = made(answers=rows, classes=())
    (row,) = found.rows
    assert row.truth == SIGNS[0]
    assert [(g.kind, g.before, g.after) for g in row.groups] == [("broken", *SIGNS), ("mended", *SIGNS[::-1])]
    assert "sign of the value" in found.rule


def test_there_are_no_sentences_where_nothing_can_flip() -> None:
    rows = answers_of(("a", "u1", 1.0, [0.0], [1.0]))
    assert flips(evidence_of(rows, classes=())) is None, "no value is negative"
    assert flips(evidence_of(rows[rows["corruption"] == "clean"])) is None, "no noise"
    assert flips(evidence_of(rows.assign(regime="matched"))) is None, "another model reads clean text"
    assert flips(evidence_of(rows[:0], regimes=("clean",), systems=("a",))) is None, "no answers"


def test_what_was_looked_at_and_never_flips_is_said() -> None:
    found = made(answers=answers_of(("a", "u1", 0, [0], [0])))
    assert (found.rows, found.total) == ((), 0)
    assert found.rule.startswith("No noise that was looked at changes")
    assert table(found) is None


def test_matched_models_are_left_out_and_the_rule_says_so() -> None:
    one = answers_of(("a", "u1", 0, [0], [1]))
    found = made(answers=pd.concat([one, one.assign(regime="matched")]))
    assert {row.regime for row in found.rows} == {"clean"}
    assert "matched is left out" in found.rule


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60), st.integers(0, 400))
def test_shares_are_even_as_far_as_there_are_rows(counts: list[int], most: int) -> None:
    shares = evenly(counts, most)
    assert sum(shares) == min(sum(counts), most)
    assert all(0 <= share <= count for share, count in zip(shares, counts, strict=True))
    cut = [share for share, count in zip(shares, counts, strict=True) if share < count]
    assert not cut or max(shares) <= min(cut) + 1


def test_what_is_picked_is_bounded_even_and_hardest_first() -> None:
    rng = np.random.default_rng(3)
    ids = [f"u{i:04}" for i in range(900)]
    said = [
        (system, name, 0, [0], [float(rng.random() < share)])
        for system, share in [("a", 0.9), ("b", 0.5)]
        for name in ids
    ]
    one, other = answers_of(*said), answers_of(*said[:200], regime="mixed")
    found = made(answers=pd.concat([one, other]))
    assert len(found.rows) == MOST < found.total
    by_regime = {r: [row for row in found.rows if row.regime == r] for r in ("clean", "mixed")}
    assert {r: len(rows) for r, rows in by_regime.items()} == {"clean": MOST // 2, "mixed": MOST // 2}
    for rows in by_regime.values():
        rank = [(-sum(len(g.systems) for g in row.groups if g.kind != "kept"), row.utterance) for row in rows]
        assert rank == sorted(rank)
    assert f"{MOST} of {found.total:,} cases" in found.rule


def worst_case(clean_text: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = answers_of(("a", "u1", 0, [0, 1], [1, 0]), ("b", "u1", 0, [0, 0], [2, 0]))
    noisy = rows["rate"] > 0
    rows.loc[noisy, "corruption"] = "worst-case"
    rows.loc[noisy, "text"] = [f"read by {s} {seed}" for s, seed in rows.loc[noisy, ["system", "seed"]].to_numpy()]
    return rows, texts_of(("u1", "all of it", "not used"))


def test_where_each_model_reads_words_of_its_own_each_is_shown_with_its_first_seed() -> None:
    rows, texts = worst_case()
    found = made(answers=rows, texts=texts)
    assert [(row.before, row.after, row.groups[0].systems, row.groups[0].after) for row in found.rows] == [
        ("all of it", "read by a 0", ("A",), "joy"),
        ("all of it", "read by b 0", ("B",), "neutral"),
    ]
    assert all(row.groups[0].named == row.groups[0].systems for row in found.rows)
    assert "Under worst-case each model reads words of its own" in found.rule


def test_where_a_table_of_others_tells_the_text_that_all_read_it_is_shown_for_all() -> None:
    rows = answers_of(("a", "u1", 0, [0], [1]), ("b", "u1", 0, [0], [2]))
    rows["text"] = np.where(rows["rate"] > 0, "one", "one two")
    (row,) = made(answers=rows).rows
    assert row.words == (("one", "same"), ("two", "lost"))
    assert len(row.groups) == 2


def test_noise_behind_the_words_leaves_them_unchanged() -> None:
    rows = answers_of(("a", "u1", 0, [0], [1]))
    (row,) = made(answers=rows, texts=texts_of(("u1", "so be it", "so be it"))).rows
    assert row.unchanged
    assert row.words == (("so", "same"), ("be", "same"), ("it", "same"))


def test_without_texts_there_are_rows_without_words_and_the_rule_says_so() -> None:
    rows = answers_of(("a", "u1", 0, [0], [1]), ("a", "u2", 0, [0], [1]))
    found = made(answers=rows)
    assert [(row.words, row.before, row.after, row.unchanged) for row in found.rows] == 2 * [((), "", "", False)]
    assert "The words of any row are not known." in found.rule
    partly = made(answers=rows, texts=texts_of(("u1", "so be it", "")))
    assert "The words of 1 of the rows are not known." in partly.rule
    assert partly.rows[0].words == (("so", "lost"), ("be", "lost"), ("it", "lost"))


HOSTILE = [
    "<script>alert(1)</script> & \"quotes\" 'so' | pipe \\begin{x} $y$ %",
    "=cmd|' /C calc'!A0",
    "a\nb\r\nc\u2028d\x0be",
    "\u202eright to left\u202c",
    "x" * 10_000,
    "word " * 2_000,
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("noisy", ["", "=1+1 <b>", "{} more"])
def test_any_text_is_shown_bounded_and_on_one_line(text: str, noisy: str) -> None:
    rows = answers_of(("=a", 'u,1\n"', 0, [0], [1]))
    found = made(answers=rows, texts=texts_of(('u,1\n"', text, noisy.format(text))), classes=("=x", "<i>", "|"))
    (row,) = found.rows
    assert len(row.words) <= 2 * SHOWN
    assert all(word and len(word) <= LETTERS + 1 and not any(c.isspace() for c in word) for word, _ in row.words)
    assert max(len(row.before), len(row.after)) < 5_000
    made_table = table(found)
    assert made_table is not None
    (line,) = csv.DictReader(io.StringIO(made_table.csv(), newline=""))
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in line.values())
    assert (line["utterance"], line["kind"], line["seeds"]) == ('u,1\n"', "broken", "1")
    assert len(line["before"].splitlines()) <= 1


@given(st.lists(st.sampled_from("abc"), max_size=400), st.lists(st.sampled_from("abc"), max_size=400))
def test_shortening_keeps_every_mark_up_to_its_bound_and_says_where_words_are_left_out(
    before: list[str], after: list[str]
) -> None:
    words = changes(" ".join(before), " ".join(after))
    found = shortened(words)
    kept = [pair for pair in found if pair[0] != GAP]
    assert (len(found) == len(kept)) == (len(kept) == len(words))
    rest = iter(words)
    assert all(pair in rest for pair in kept), "in order, each with its own mark"
    changed = sum(kind != "same" for _, kind in words)
    assert len(kept) <= max(SHOWN, 60)
    if changed <= SHOWN // 11:
        assert sum(kind != "same" for _, kind in kept) == changed


def test_the_table_has_every_flip_of_the_rows_and_nothing_that_was_kept(tmp_path: Path) -> None:
    evidence = gather(read_run(write(tmp_path, Made(models=("dual", "text-only"), utterances=12)).path))
    found = flips(evidence)
    made_table = table(found)
    assert found is not None
    assert made_table is not None
    assert made_table.shown is None
    frame = made_table.frame
    expected = {
        (*key, system, *(CLASSES[answer] for answer in pair))
        for key, said in longhand(evidence.answers).items()
        for system, pair in said.items()
        if pair[0] != pair[1]
    }
    columns = ["corruption", "rate", "trained", "utterance", "system", "answer_clean", "answer_noisy"]
    assert set(frame[columns].itertuples(index=False, name=None)) == expected
    assert len(frame) == len(expected)
    truth = frame["truth"]
    assert ((frame["kind"] == "broken") == (frame["answer_clean"] == truth)).all()
    assert ((frame["kind"] == "mended") == (frame["answer_noisy"] == truth)).all()


def test_of_a_long_text_what_changed_is_in_both_texts_and_in_the_words() -> None:
    words = [f"w{i}" for i in range(200)]
    noisy = [*words[:99], "typo", *words[100:]]
    texts = texts_of(("u1", " ".join(words), " ".join(noisy)))
    (row,) = made(answers=answers_of(("a", "u1", 0, [0], [1])), texts=texts).rows
    assert not row.unchanged
    assert "w99" in row.before.split()
    assert "typo" not in row.before
    assert "typo" in row.after.split()
    assert "w99" not in row.after
    assert len(row.after.split()) < 60
