"""The model of a recogniser's errors: what it promises, and how near it comes to a real one."""

from __future__ import annotations

import ast
import csv
import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from unusual import is_subsequence, rates, seeds, sentences

from dual_bench.corruptions import asr_estimate, speech
from dual_bench.corruptions.asr_estimate import (
    Pair,
    apart,
    channel,
    errors,
    estimate,
    halves,
    main,
    read_pairs,
    relative_errors,
    simulated,
    summary,
)
from dual_bench.corruptions.speech import (
    ASR_MODEL,
    Recogniser,
    asr_errors,
    default_recogniser,
    lexicon,
    pronunciations,
    read_recogniser,
    spoken,
)
from dual_bench.seeding import generator
from dual_bench.types import UserError

OTHER = Recogniser(
    losing=0.6,
    lost_short=0.7,
    lost_long=0.4,
    inserted=0.35,
    clumping=5.0,
    per_phone=2.2,
    commonness=0.8,
    unrelated=0.2,
)
"""A recogniser unlike the default one."""


def heard(text: str, rate: float, seed: int, recogniser: Recogniser | None = None) -> str:
    return asr_errors(text, rate, np.random.default_rng(seed), recogniser)


def made(count: int, length: int) -> list[str]:
    """Sentences of common words, each drawn evenly: few come twice in a sentence, as in those that people say."""
    rng = generator("made sentences")
    return [" ".join(rng.choice(lexicon().words[:600], length).tolist()) for _ in range(count)]


# ------------------------------------------------------------------------------------------ what it promises


def test_golden_sentences() -> None:
    assert heard("We opened the letter, after lunch!", 0.6, 5) == "my she open was though better after lunch!"
    assert heard("Y'know what? There is no more left, left!", 0.5, 3) == "Y'know but There is more left, left!"
    assert heard("  Oh my God,\tI'm so sorry!\n", 0.6, 2) == "Oh need\tI'm so sorry!"


@given(n=st.integers(0, 40), low=rates, high=rates, seed=seeds)
@example(n=5000, low=0.3, high=0.31, seed=0)
def test_a_word_hit_at_a_rate_is_hit_and_in_the_same_way_at_every_higher_one(
    n: int, low: float, high: float, seed: int
) -> None:
    said = [f"{lexicon().words[i]}_{i}!" for i in range(n)]  # nothing that is heard looks like one of these
    lighter, heavier = (heard(" ".join(said), rate, seed).split() for rate in sorted((low, high)))
    kept_lighter, kept_heavier = ([w for w in words if w.endswith("!")] for words in (lighter, heavier))
    assert is_subsequence(kept_heavier, kept_lighter)
    assert is_subsequence(kept_lighter, said)
    assert is_subsequence([w for w in lighter if w not in said], [w for w in heavier if w not in said])


@given(text=sentences, rate=rates, seed=seeds)
def test_words_that_are_not_hit_stay_as_they_are_and_what_is_heard_is_a_plain_word(
    text: str, rate: float, seed: int
) -> None:
    assert set(heard(text, rate, seed).split()) <= {*text.split(), *lexicon().words}


@given(word=st.sampled_from(["The", "too!", "27", "soileau", "—", "’Em"]), seed=seeds)
def test_a_word_that_is_hit_is_never_heard_as_itself(word: str, seed: int) -> None:
    found = heard(word, 1.0, seed, Recogniser(1, 0, 0, 0, 5, 2.4, 0.7, 0.3))
    assert len(found.split()) == 1
    assert found not in (word, spoken(word)[0])


@given(text=sentences, rate=rates, seed=seeds)
def test_an_utterance_either_loses_words_or_gains_them(text: str, rate: float, seed: int) -> None:
    losing, gaining = (len(heard(text, rate, seed, replace(OTHER, losing=share)).split()) for share in (1, 0))
    assert losing <= len(text.split()) <= gaining


@pytest.mark.parametrize("recogniser", [None, OTHER])
@pytest.mark.parametrize("rate", [0.1, *(pytest.param(rate, marks=pytest.mark.slow) for rate in (0.5, 0.9))])
def test_the_word_error_rate_is_the_nominal_rate(rate: float, recogniser: Recogniser | None) -> None:
    noisy = [(text, heard(text, rate, seed, recogniser)) for seed, text in enumerate(made(2500, 8))]
    assert errors(noisy).rates[0] == pytest.approx(rate, abs=0.02)


def test_another_process_makes_the_same_errors(another_process: Callable[[str], str]) -> None:
    code = """
import numpy as np
from dual_bench.corruptions.speech import asr_errors
text = "Y'know what? Soileau wrote us twenty-seven letters after lunch, 我们 and I'm so sorry"
print([asr_errors(text, rate, np.random.default_rng(seed)) for seed in range(20) for rate in (0.3, 0.8)])
"""
    text = "Y'know what? Soileau wrote us twenty-seven letters after lunch, 我们 and I'm so sorry"
    here = [heard(text, rate, seed) for seed in range(20) for rate in (0.3, 0.8)]
    assert ast.literal_eval(another_process(code)) == here


def test_what_is_heard_sounds_like_what_was_said_or_is_a_common_word() -> None:
    only_near = Recogniser(1, 0, 0, 0, 5, 2.4, 0.7, 0)
    near = [heard("letter", 1.0, seed, only_near) for seed in range(200)]
    assert np.mean([apart("letter", word) <= 2 for word in near]) > 0.5
    only_unrelated = Recogniser(1, 0, 0, 0, 5, 2.4, 0.7, 1)
    common = [heard("letter", 1.0, seed, only_unrelated) for seed in range(200)]
    assert np.mean([lexicon().words.index(word) < 200 for word in common]) > 0.4


def test_a_word_outside_the_dictionary_is_heard_as_one_spelled_alike() -> None:
    only_near = Recogniser(1, 0, 0, 0, 5, 2.4, 0.0, 0)
    assert {heard("lettter", 1.0, seed, only_near) for seed in range(20)} >= {"letter"}


# ---------------------------------------------------------------------------------------- what it is made of


def test_pronunciations_are_the_first_of_each_word_a_character_for_a_phone() -> None:
    known = pronunciations()
    assert len(known) > 120_000
    assert known["two"] == known["too"]
    assert [len(known[word]) for word in ("a", "the", "letter", "that's")] == [1, 2, 4, 4]
    assert not any(word.endswith(")") for word in known)


def test_the_lexicon_starts_with_the_commonest_words() -> None:
    words = lexicon().words
    assert words[:6] == ("the", "of", "and", "in", "a", "to")
    assert len(set(words)) == len(words) > 15_000
    assert all(word.isalpha() and word in pronunciations() for word in words)
    assert lexicon().zipf[-1] == 1


@pytest.fixture
def _no_pocketsphinx(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for cached in (pronunciations, lexicon, spoken):
        cached.cache_clear()
    yield
    pronunciations.cache_clear()


@pytest.mark.usefixtures("_no_pocketsphinx")
def test_without_the_dictionary_the_error_says_what_to_install() -> None:
    assert heard("one two", 0.0, 0) == "one two"
    with pytest.raises(UserError, match=r"pip install 'dual-bench\[asr\]'"):
        heard("one two three", 1.0, 0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"losing": 1.5}, "losing"),
        ({"inserted": 0.7}, "inserted"),
        ({"clumping": 0}, "clumping"),
        ({"per_phone": float("nan")}, "per_phone"),
        ({"unrelated": "much"}, "expected"),
    ],
)
def test_numbers_that_no_recogniser_has_are_refused(tmp_path: Path, change: dict[str, object], named: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(vars(OTHER)), "utf-8")
    assert read_recogniser(path) == OTHER
    at_the_ends = replace(OTHER, losing=0, lost_short=1, inserted=0.5, commonness=1.5, per_phone=0, unrelated=0)
    path.write_text(json.dumps(vars(at_the_ends)), "utf-8")
    assert read_recogniser(path) == at_the_ends
    path.write_text(json.dumps(vars(OTHER) | change), "utf-8")
    with pytest.raises(UserError, match=named):
        read_recogniser(path)
    with pytest.raises(UserError, match="expected"):
        read_recogniser(tmp_path / "absent.json")


def test_numbers_change_only_with_the_version() -> None:
    numbers = {1: "7afdff545cfd429d499ade2d151770398d6b53bb82634f11dd1e09c7caba79a6"}
    found = hashlib.sha256(Path(speech.__file__).with_name("asr_model.json").read_bytes()).hexdigest()
    assert numbers.get(ASR_MODEL.version) == found, (
        "asr_model.json changed: raise the version of ASR_MODEL, so that no stored result of the old numbers is taken "
        f"for one of the new, and add {{{ASR_MODEL.version + 1}: '{found}'}} here"
    )


# --------------------------------------------------------------------------------------------- how it is fitted


def test_errors_are_counted_by_utterance_with_the_words_concerned() -> None:
    found = errors([("we opened the letter", "we open letter"), ("it was", "is was so"), ("no", "no")])
    assert found.words.tolist() == [4, 2, 1]
    assert (found.substituted.tolist(), found.deleted.tolist(), found.inserted.tolist()) == (
        [1, 1, 0],
        [1, 0, 0],
        [0, 1, 0],
    )
    assert len(found.confusions) == 2
    assert found.alone == (("it", "is"),)
    assert found.rates == (4 / 7, 2 / 7, 1 / 7, 1 / 7)
    assert found.spread == pytest.approx(np.std([0.5, 1, 0]))
    assert errors([("a b c d e", "x b y d e")]).alone == (("a", "x"), ("c", "y"))
    assert errors([("a b c d e f", "x c y e f")]).alone == (("d", "y"),)


def test_halves_are_disjoint_complete_and_the_same_each_time() -> None:
    pairs = [(f"word {i}", "") for i in range(101)]
    fitted, held_out = halves(pairs)
    assert (len(fitted), len(held_out)) == (50, 51)
    assert sorted(fitted + held_out) == sorted(pairs)
    assert halves(pairs) == halves(pairs, 0) == (fitted, held_out)
    assert [reference for reference, _ in fitted[:8]] == [f"word {i}" for i in (1, 3, 4, 9, 13, 15, 18, 20)]
    assert halves(pairs, 1) == halves(pairs, 1) != (fitted, held_out)
    assert sorted(pair for half in halves(pairs, 1) for pair in half) == sorted(pairs)
    chosen = generator("asr-estimate", "split", 2).permutation(101)[:50]
    assert halves(pairs, 2)[0] == [pairs[i] for i in sorted(chosen)]


def test_shares_of_an_estimate_are_those_counted_by_hand() -> None:
    pairs = [
        ("we saw the yellow elephants", "we the yellow"),  # loses a short word and a long one
        ("the ship sails", "ship sails"),  # loses a short one
        ("tea and rain", "tea and and rain"),  # gains one
        ("one two three", "two three four"),  # loses one and gains one, and tells nothing of either
        ("the ship sails now", "the sheep sails now"),
    ]
    found = estimate(pairs)
    wer, losing = (2 + 1 + 1 + 2 + 1) / 18, 3 / 4
    assert found.losing == losing

    def short(words: str) -> int:
        return sum(len(spoken(word)[1].units) <= asr_estimate.SHORT for word in words.split())

    said, lost = short(" ".join(text for text, _ in pairs)), short("saw elephants the one")
    assert 0 < lost < 4
    assert found.lost_short == pytest.approx(lost / (said * wer * losing))
    assert found.lost_long == pytest.approx((4 - lost) / ((18 - said) * wer * losing))
    assert found.inserted == 0.5  # two, of a quarter of seven, which is more than there can be
    many = [*pairs, *[("we saw the house", "we saw a house")] * 20]
    assert estimate(many).inserted == pytest.approx(2 / ((1 - losing) * 27))


def test_the_clumping_is_that_of_the_likeliest_beta_binomial() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(4, 20, 400)
    lost = stats.betabinom.rvs(words, 5 * 0.3, 5 * 0.7, random_state=rng)
    none = np.zeros(400, np.int64)
    wer = lost.sum() / words.sum()
    sums = np.exp(np.linspace(0, 4, 400))
    likely = [stats.betabinom.logpmf(lost, words, a * wer, a * (1 - wer)).sum() for a in sums]
    found = asr_estimate._clumping(asr_estimate.Errors(words, none, lost, none, (), (), ()), 1.0, 0.0)
    assert found == pytest.approx(sums[int(np.argmax(likely))], rel=0.05)


def test_the_channel_is_found_from_what_became_of_words() -> None:
    rng = np.random.default_rng(1)
    words = rng.choice(lexicon().words[:60], 1500)
    only = replace(OTHER, losing=1, lost_short=0, lost_long=0)
    pairs = [(str(word), asr_errors(str(word), 1.0, rng, only)) for word in words]
    per_phone, commonness, unrelated = channel(pairs)
    assert per_phone == pytest.approx(OTHER.per_phone, rel=0.15)
    assert commonness == pytest.approx(OTHER.commonness, rel=0.2)
    assert unrelated == pytest.approx(OTHER.unrelated, abs=0.05)


def test_words_outside_the_dictionary_are_letters_apart() -> None:
    assert (apart("soileau", "soileaus"), apart("zzxqw", "a"), apart("zzxqw", "zzxqw")) == (1, 5, 0)


def test_a_summary_counts_errors_and_how_far_apart_substitutes_sound() -> None:
    found = summary([("two ships", "too ships"), ("ship so", "sheep so"), ("elephants are grey", "a are grey")])
    assert found[:5] == pytest.approx([3 / 7, 3 / 7, 0, 0, np.std([1 / 2, 1 / 2, 1 / 3])])
    assert found[5:] == pytest.approx([1 / 3, 1 / 3, 0, 0, 0, 1 / 3])
    assert summary([("so", "so")])[5:] == [0] * 6


def test_what_is_simulated_has_a_stream_for_each_draw_and_utterance() -> None:
    pairs = [("we opened the letter", "we open letter"), ("it was so", "it was so")]
    for draw in (0, 3):
        streams = [generator("asr-estimate", "check", draw, i) for i in range(2)]
        made = [(text, asr_errors(text, 2 / 7, rng, OTHER)) for (text, _), rng in zip(pairs, streams, strict=True)]
        assert simulated(pairs, OTHER, draw) == made


def test_splits_are_shown_one_by_one_with_their_median_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    made = iter(np.array([[0.1, -0.2, 0.05], [0.3, 0.0, 0.0], [-0.1, 0.1, 0.2]]))
    monkeypatch.setattr(asr_estimate, "estimate", lambda pairs: OTHER)
    monkeypatch.setattr(asr_estimate, "relative_errors", lambda pairs, recogniser: next(made))
    shown = asr_estimate.check_splits({"a": [("it", "is"), ("so", "no")]}, 3).splitlines()
    assert [line.split() for line in shown[1:4]] == [
        ["split", "0", "+10.0%", "-20.0%", "+5.0%"],
        ["split", "1", "+30.0%", "+0.0%", "+0.0%"],
        ["split", "2", "-10.0%", "+10.0%", "+20.0%"],
    ]
    assert shown[4].split() == ["median", "+10.0%", "+0.0%", "+5.0%"]
    assert len({len(line) for line in shown[:-1]}) == 1
    assert shown[-1] == "all three within 20% in 2 of 3 splits"


def test_the_command_writes_its_numbers_with_what_made_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asr_estimate, "estimate", lambda pairs: replace(OTHER, losing=0.123456))
    monkeypatch.setattr(asr_estimate, "check", lambda sources, recogniser: "")
    file, out = write(tmp_path / "pairs.jsonl", [("it", "is"), ("so", "no")]), tmp_path / "mine.json"
    main([str(file), "--out", str(out)])
    told = json.loads(out.read_text("utf-8"))
    assert told.pop("sha256") == {"pairs.jsonl": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert told.pop("command") == "python -m dual_bench.corruptions.asr_estimate pairs.jsonl --out mine.json"
    assert told == vars(replace(OTHER, losing=0.1235))
    assert out.read_text("utf-8").endswith("}\n")


def test_an_estimate_finds_the_numbers_that_made_the_pairs() -> None:
    pairs = [(text, heard(text, 0.3, seed, OTHER)) for seed, text in enumerate(made(3000, 10))]
    found = estimate(pairs)
    for name, planted in vars(OTHER).items():
        assert getattr(found, name) == pytest.approx(planted, rel=0.15, abs=0.03), name


@pytest.mark.parametrize(
    "pairs",
    [
        [("we opened the letter", "we opened letter")] * 3 + [("it", "is")],
        [("we opened the letter", "we opened the new letter")] * 3 + [("it", "is")],
        [("it", "is")],
    ],
)
def test_an_estimate_from_few_pairs_is_a_recogniser_all_the_same(pairs: list[Pair]) -> None:
    found = estimate(pairs)
    assert all(0 <= getattr(found, name) <= 1 for name in ("losing", "lost_short", "lost_long", "unrelated"))
    assert 0 <= found.inserted <= 0.5
    assert found.clumping > 0


def test_pairs_that_tell_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="word errors"):
        estimate([("it was", "it was")])
    with pytest.raises(UserError, match="common word"):
        channel([("it", "qzxw")])


def write(path: Path, pairs: list[Pair]) -> Path:
    path.write_text("".join(json.dumps({"reference": r, "hypotheses": [h, "x"]}) + "\n" for r, h in pairs), "utf-8")
    return path


def test_the_command_prints_a_check_and_writes_numbers_that_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asr_estimate, "DRAWS", 1)
    pairs = [(text, heard(text, 0.3, seed)) for seed, text in enumerate(made(200, 10))]
    file, out = write(tmp_path / "pairs.jsonl", [*pairs, ("", "noise")]), tmp_path / "mine.json"
    main([str(file), "--out", str(out)])
    printed = capsys.readouterr().out
    assert "pairs.jsonl (100), real" in printed
    assert "all (100), model" in printed
    assert vars(read_recogniser(out)) == pytest.approx(vars(estimate(halves(pairs)[0])), abs=1e-4)
    assert json.loads(out.read_text("utf-8"))["command"].endswith("asr_estimate pairs.jsonl --out mine.json")


def test_the_command_refits_on_other_halves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asr_estimate, "DRAWS", 1)
    pairs = [(text, heard(text, 0.3, seed)) for seed, text in enumerate(made(200, 10))]
    file = str(write(tmp_path / "pairs.jsonl", pairs))
    main([file])
    once = capsys.readouterr().out
    main([file, "--splits", "3"])
    found = capsys.readouterr().out
    assert found.startswith(once)
    _, *rows, verdict = found.removeprefix(once).splitlines()
    cells = {row[:10].strip(): [float(cell.rstrip("%")) / 100 for cell in row[10:].split()] for row in rows}
    assert list(cells) == ["split 0", "split 1", "split 2", "median", "lowest", "highest"]
    for split in range(3):
        fitted, held_out = halves(pairs, split)
        assert cells[f"split {split}"] == pytest.approx(relative_errors(held_out, estimate(fitted)), abs=6e-4)
    splits = [cells[f"split {split}"] for split in range(3)]
    assert cells["median"] == np.median(splits, axis=0).tolist()
    assert cells["lowest"] == np.min(splits, axis=0).tolist()
    assert cells["highest"] == np.max(splits, axis=0).tolist()
    near = sum(max(map(abs, split)) <= 0.2 for split in splits)
    assert verdict == f"all three within 20% in {near} of 3 splits"


def test_a_rate_that_is_zero_in_reality_is_met_by_zero_only() -> None:
    losing, gaining = replace(OTHER, losing=1), replace(OTHER, losing=0, inserted=0.5)
    pairs = [("we opened the letter after lunch", "we opened letter")] * 20
    assert relative_errors(pairs, losing)[[0, 2]].tolist() == [np.inf, 0]
    assert relative_errors(pairs, gaining)[[1, 2]].tolist() == [-1, np.inf]


@pytest.mark.parametrize(("splits", "named"), [("0", "expected 1 or more"), ("40", "expected pairs")])
def test_the_command_says_when_it_cannot_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, splits: str, named: str
) -> None:
    monkeypatch.setattr(asr_estimate, "DRAWS", 1)
    pairs = [("it was", "it was"), ("it was", "is was")]  # half of the halves to fit are without errors
    pairs = pairs if halves(pairs)[0] == pairs[1:] else pairs[::-1]
    with pytest.raises(SystemExit) as stopped:
        main([str(write(tmp_path / "pairs.jsonl", pairs)), "--splits", splits])
    assert stopped.value.code == 2
    assert f"--splits: {named}" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{}", '{"reference": "a", "hypotheses": []}', "[1]", "not json", "\xff"])
def test_the_command_says_what_is_wrong_with_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(SystemExit) as stopped:
        main([str(file)])
    assert stopped.value.code == 2
    assert "pairs.jsonl" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------- beside a real one


@pytest.fixture(scope="session")
def real_pairs(shared_data: Path) -> dict[str, list[Pair]]:
    files = sorted((shared_data / "asr_pairs_hyporadise").glob("*.jsonl"))
    if not files:
        pytest.skip("the pairs of HyPoradise are absent")
    return {file.name: read_pairs(file) for file in files}


def test_the_committed_numbers_are_those_of_the_fitted_half(real_pairs: dict[str, list[Pair]]) -> None:
    found = estimate([pair for pairs in real_pairs.values() for pair in halves(pairs)[0]])
    assert vars(default_recogniser()) == pytest.approx(vars(found), rel=1e-3, abs=1e-3)


@pytest.mark.slow
def test_on_held_out_pairs_all_kinds_of_errors_come_as_often_as_in_reality(real_pairs: dict[str, list[Pair]]) -> None:
    held_out = [pair for pairs in real_pairs.values() for pair in halves(pairs)[1]]
    real = errors(held_out)
    drawn = [errors(simulated(held_out, default_recogniser(), draw)) for draw in range(asr_estimate.DRAWS)]
    np.testing.assert_allclose(np.mean([d.rates for d in drawn], axis=0), real.rates, rtol=0.2)
    assert np.mean([d.spread for d in drawn]) == pytest.approx(real.spread, rel=0.2)


def test_on_held_out_pairs_substitutes_are_as_far_away_in_phones_as_in_reality(
    real_pairs: dict[str, list[Pair]],
) -> None:
    held_out = [pair for pairs in real_pairs.values() for pair in halves(pairs)[1]]
    real, model = (summary(pairs)[5:] for pairs in (held_out, simulated(held_out, default_recogniser(), 0)))
    assert np.abs(np.subtract(real, model)).max() < 0.05
    assert sum(real) == pytest.approx(1)


@pytest.mark.slow
def test_over_real_sentences_the_word_error_rate_is_the_nominal_rate(shared_data: Path) -> None:
    file = shared_data / "meld_text" / "test_sent_emo.csv"
    if not file.is_file():
        pytest.skip("the lines of MELD are absent")
    with file.open(encoding="utf-8", newline="") as lines:
        said = [row["Utterance"] for row in csv.DictReader(lines)]
    for rate in (0.1, 0.3, 0.5, 0.7, 0.9):
        noisy = [(text, ASR_MODEL.apply(text, rate, generator("asr-model", "meld", i))) for i, text in enumerate(said)]
        assert errors(noisy).rates[0] == pytest.approx(rate, abs=0.02), rate
