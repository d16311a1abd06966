"""Predictions of another toolkit: the whole way from a table to a report, and every fault that a table may have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import calling
import numpy as np
import pandas as pd
import pytest
from calling import invoke
from made_run import Made, write
from markdown_it import MarkdownIt
from reading import assert_only_our_scripts, body_text, parse, rows_of, table_bytes
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, mean_absolute_error
from typer.testing import Result

from dual_bench.report import corpora
from dual_bench.report import evidence as evidence_module
from dual_bench.report.render import render
from dual_bench.store import read_run

SUBSETS = ("audio", "vision", "text", "audio+vision", "audio+text", "vision+text", "audio+vision+text")


@pytest.fixture(scope="module", autouse=True)
def _few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_module, "RESAMPLES", 200)
        patch.setattr(corpora, "RESAMPLES", 200)
        yield


def report(*arguments: str | Path) -> Result:
    return invoke("report", *arguments)


def refused(*arguments: str | Path) -> str:
    return calling.refused("report", *arguments)


SKILLS = {"ours": 0.85, "baseline": 0.6, "late-fusion": 0.7}


def table(
    models: dict[str, float] | None = None,
    seeds: int = 3,
    conditions: tuple[tuple[str, float, int], ...] = (),
    utterances: int = 60,
    start: int = 0,
) -> pd.DataFrame:
    """Predictions of 3 classes with known skills, as another toolkit would write them."""
    rng = np.random.default_rng(start)
    truth = rng.integers(3, size=utterances)
    parts = []
    for model, skill in (models or SKILLS).items():
        for seed in range(seeds):
            for corruption, rate, draw in (("clean", 0.0, 0), *conditions):
                right = rng.random(utterances) < skill * (1 - 0.4 * rate)
                answer = np.where(right, truth, (truth + rng.integers(1, 3, utterances)) % 3)
                scores = 0.1 + 0.7 * np.eye(3)[answer]
                facts = {"model": model, "seed": seed, "corruption": corruption, "rate": rate, "draw": draw}
                facts |= {"utterance": [f"u{i:03}" for i in range(utterances)], "truth": truth}
                facts |= {"cluster": [f"d{i % 12:02}" for i in range(utterances)]}
                parts.append(pd.DataFrame({**facts, **{f"score_{k}": scores[:, k] for k in range(3)}}))
    return pd.concat(parts, ignore_index=True)


NOISY = (("word-drop", 0.5, 0), ("word-drop", 0.5, 1), ("word-drop", 1.0, 0), ("word-drop", 1.0, 1))
PROBED = (*((f"absent:{s}", 1.0, 0) for s in SUBSETS), *((f"permuted:{s}", 1.0, d) for s in SUBSETS for d in (0, 1)))


def saved(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path, index=False)
    return path


# ------------------------------------------------------------------------------------------- a whole report


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("foreign")
    frame = table(conditions=(*NOISY, *PROBED))
    result = report("--predictions", saved(frame, folder / "theirs.csv"), "--out", folder / "out")
    assert result.exit_code == 0, result.output
    assert "index.html" in result.stdout
    return folder / "out", frame


def test_a_parquet_file_gives_the_tables_of_a_csv_file(done: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    folder, frame = done
    file = saved(frame, tmp_path / "theirs.parquet")
    assert report("--predictions", file, "--out", tmp_path / "out", "--format", "csv").exit_code == 0
    assert table_bytes(tmp_path / "out") == table_bytes(folder)


def test_scores_equal_those_of_scikit_learn(done: tuple[Path, pd.DataFrame]) -> None:
    folder, frame = done
    known: dict[str, Callable[..., float]] = {
        "accuracy": accuracy_score,
        "uar": balanced_accuracy_score,
        "macro-f1": lambda truth, answer: f1_score(truth, answer, average="macro"),
        "weighted-f1": lambda truth, answer: f1_score(truth, answer, average="weighted"),
    }
    frame = frame.assign(answer=frame[["score_0", "score_1", "score_2"]].to_numpy().argmax(axis=1))
    checked = 0
    for row in rows_of(folder, "scores"):
        here = frame[
            (frame["model"] == row["system"])
            & (frame["corruption"] == row["corruption"])
            & (frame["rate"] == float(row["rate"]))
        ]
        each = [known[row["metric"]](g["truth"], g["answer"]) for _, g in here.groupby(["seed", "draw"])]
        assert float(row["value"]) == pytest.approx(np.mean(each), abs=1e-12)
        assert row["trained"] == "unknown"
        checked += 1
    assert checked == 3 * 2 * 4


def test_comparisons_confidence_and_worth_of_modalities_are_there(done: tuple[Path, pd.DataFrame]) -> None:
    folder, _ = done
    pairs = {(r["left"], r["right"], r["quantity"]) for r in rows_of(folder, "comparisons")}
    assert pairs == {
        ("ours", o, q) for o in ("baseline", "late-fusion") for q in ("clean", "word-drop area", "word-drop 1.0")
    }
    assert {r["metric"] for r in rows_of(folder, "confidence")} == {"accuracy", "brier", "ece", "aurc"}
    worth = {(r["system"], r["measure"], r["reading"]) for r in rows_of(folder, "dependency")}
    assert worth >= {(s, "shapley", reading) for s in SKILLS for reading in ("absent", "permuted")}
    assert {p.stem for p in (folder / "tables").iterdir()} == {
        "scores", "retention", "robustness", "comparisons", "variance", "dependency", "confidence", "curves",
        "classical", "pairwise", "confusion", "sentences",
    }  # fmt: skip
    assert {p.stem for p in (folder / "figures").iterdir()} == {
        "degradation-word-drop", "dependency", "coverage", "slope", "matrix-unknown", "confusion-unknown",
        "reliability-unknown",
    }  # fmt: skip


@pytest.mark.usefixtures("no_figures")
def test_probes_of_some_utterances_alone_are_left_out_and_the_rest_is_reported(tmp_path: Path) -> None:
    frame = table(conditions=(*NOISY, *PROBED))
    probe = frame["corruption"].str.startswith(("absent", "permuted"))
    names = sorted(frame["utterance"].unique())
    half = frame[~probe | frame["utterance"].isin(names[: len(names) // 2])]
    assert report("--predictions", saved(half, tmp_path / "half.csv"), "--out", tmp_path / "out").exit_code == 0
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "modalities are absent or exchanged are not used" in text
    assert not (tmp_path / "out" / "tables" / "dependency.csv").exists()
    assert (tmp_path / "out" / "tables" / "scores.csv").exists()


def test_the_page_says_only_what_is_known(done: tuple[Path, pd.DataFrame]) -> None:
    folder, _ = done
    text = body_text(parse((folder / "index.html").read_text(encoding="utf-8")))
    assert "The predictions were made elsewhere; file" in text
    assert "3 systems with 3 training seeds and 2 noise draws" in text
    assert "nothing was measured on the words" in text
    for untrue in ("Each is trained", "The epoch is chosen", "device", "Within a draw", "read the same noisy words"):
        assert untrue not in text
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert MarkdownIt("commonmark").enable("table").render(markdown).count("<table>") == 9


@pytest.mark.usefixtures("no_figures")
def test_rendering_again_gives_the_same_bytes_and_other_predictions_are_refused(tmp_path: Path) -> None:
    file, out = saved(table(conditions=NOISY), tmp_path / "a.csv"), tmp_path / "out"
    assert report("--predictions", file, "--out", out).exit_code == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert report("--predictions", file, "--out", out).exit_code == 0
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    other = saved(table(seeds=2), tmp_path / "b.csv")
    assert "holds something else" in refused("--predictions", other, "--out", out)
    assert "holds something else" in refused("--predictions", file, "--out", tmp_path)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


@pytest.mark.usefixtures("no_figures")
def test_the_default_folder_bears_stem_and_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(table(seeds=2, utterances=24), tmp_path / "mine.csv")
    assert report("--predictions", "mine.csv", "--metric", "uar").exit_code == 0
    (folder,) = (tmp_path / "reports").iterdir()
    assert folder.name.startswith("mine-")
    assert len(folder.name) == len("mine-") + 8
    assert (folder / "index.html").is_file()
    assert "How do ours, baseline and late-fusion compare on mine?" in (folder / "report.md").read_text()


def test_a_run_fed_back_gives_the_estimates_of_its_own_report(tmp_path: Path) -> None:
    made = Made(corruptions=("word-drop", "typo"))
    write(tmp_path / "run", made)
    render(tmp_path / "run", formats=["csv"])
    file = saved(read_run(tmp_path / "run").predictions, tmp_path / "made.parquet")
    result = report("--predictions", file, "--out", tmp_path / "out", "--format", "csv")
    assert result.exit_code == 0, result.output
    for name in ("scores", "comparisons", "curves"):
        dropped = ["floor", "ceiling", "wer"] if name == "curves" else []
        own, again = (
            pd.read_csv(tmp_path / f / "tables" / f"{name}.csv").drop(columns=dropped) for f in ("run", "out")
        )
        pd.testing.assert_frame_equal(own, again)


def test_regression_takes_one_score_and_has_its_metrics(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(-3, 3, 40)
    rows = [
        {"model": m, "seed": s, "utterance": f"u{i}", "truth": t, "score_0": t + rng.normal(0, size)}
        for m, size in (("a", 0.3), ("b", 1.0)) for s in range(2) for i, t in enumerate(truth)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    assert report("--predictions", saved(frame, tmp_path / "r.csv"), "--out", tmp_path / "out").exit_code == 0
    for row in rows_of(tmp_path / "out", "scores"):
        if row["metric"] == "mae":
            each = [
                mean_absolute_error(g["truth"], g["score_0"])
                for _, g in frame[frame.model == row["system"]].groupby("seed")
            ]
            assert float(row["value"]) == pytest.approx(np.mean(each), abs=1e-12)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "counts as a cluster of its own" in text
    assert not (tmp_path / "out" / "figures").exists() or not list((tmp_path / "out" / "figures").iterdir())


def test_scores_that_are_no_probabilities_have_no_confidence(tmp_path: Path) -> None:
    frame = table(conditions=NOISY).assign(notes="x", prompt="y")
    frame.loc[:, "score_0"] += 3
    frame.insert(0, "", range(len(frame)))  # the index, as pandas writes it
    file = saved(frame, tmp_path / "logits.csv")
    assert report("--predictions", file, "--out", tmp_path / "out", "--format", "md,csv").exit_code == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Metrics of confidence are left out: the scores of 2,700 of 2,700 rows are no class probabilities" in text
    assert "not used: one without a name, notes, prompt" in text
    assert not (tmp_path / "out" / "tables" / "confidence.csv").exists()
    assert not (tmp_path / "out" / "figures" / "coverage.png").exists()
    assert "needs class probabilities" in refused("--predictions", file, "--metric", "ece", "--out", tmp_path / "no")


@pytest.mark.usefixtures("no_figures")
def test_systems_that_were_not_probed_are_left_out_of_that_table_alone(tmp_path: Path) -> None:
    probed = table(models={"ours": 0.85}, conditions=PROBED)
    other = table(models={"baseline": 0.6})
    frame = pd.concat([probed, other])
    # one truth for each utterance
    assert report("--predictions", saved(frame, tmp_path / "p.csv"), "--out", tmp_path / "out").exit_code == 0
    assert {r["system"] for r in rows_of(tmp_path / "out", "dependency")} == {"ours"}
    assert {r["system"] for r in rows_of(tmp_path / "out", "scores")} == {"ours", "baseline"}


def test_transcripts_and_measures_of_the_noise_are_shown_as_the_file_tells(tmp_path: Path) -> None:
    frame = table(conditions=(*NOISY, ("transcript:whisper", 1.0, 0)))
    frame["wer"] = frame["rate"].where(frame["corruption"] == "word-drop", 0.2).where(frame["corruption"] != "clean", 0)
    frame.loc[frame["corruption"] == "transcript:whisper", "rate"] = np.nan
    assert (
        report(
            "--predictions", saved(frame, tmp_path / "t.csv"), "--out", tmp_path / "out", "--format", "html,csv"
        ).exit_code
        == 0
    )
    told = {(r["corruption"], float(r["rate"])): float(r["wer"]) for r in rows_of(tmp_path / "out", "noise")}
    assert told == pytest.approx({("word-drop", 0.5): 0.5, ("word-drop", 1.0): 1.0, ("transcript:whisper", 1.0): 0.2})
    assert (tmp_path / "out" / "figures" / "transcripts.svg").is_file()


HOSTILE = {"<script>alert(1)</script>": 0.8, "=cmd|' /C calc'!A0": 0.6, "a:b=": 0.5, "$x$ | `y` **z**": 0.5}


@pytest.mark.usefixtures("no_figures")
def test_hostile_names_stay_text(tmp_path: Path) -> None:
    one = table(models=HOSTILE, conditions=(("os:system", 0.5, 0), ("os:system", 1.0, 0)))
    two = table(models=HOSTILE, start=1)
    frame = pd.concat([one.assign(dataset="<b>x</b>"), two.assign(dataset="=y|z")])
    for name, given in (("one", one), ("both", frame)):
        out = tmp_path / name
        result = report("--predictions", saved(given, tmp_path / f"{name}.csv"), "--out", out)
        assert result.exit_code == 0, result.output
        tree = parse((out / "index.html").read_text(encoding="utf-8"))
        assert_only_our_scripts(tree)
        assert not [e for e in tree.iter("b") if e.text == "x"]
        parsed = MarkdownIt("commonmark").enable("table").render((out / "report.md").read_text(encoding="utf-8"))
        assert "<script" not in parsed
        assert "<strong>z" not in parsed
        assert {r["system"] for r in rows_of(out, "scores")} == {n if n[0] != "=" else f"'{n}" for n in HOSTILE}
        assert all(b"\n=" not in b and b",=" not in b for b in table_bytes(out).values())


# ------------------------------------------------------------------------------------------------- faults


def without(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.drop(columns=column)


def first(column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object})
        frame.loc[0, column] = value
        return frame

    return change


FAULTS: list[tuple[str, Callable[[pd.DataFrame], pd.DataFrame], str]] = [
    ("missing column", without("truth"), "expected a column 'truth', found model, seed"),
    ("no score", lambda f: f.drop(columns=["score_0", "score_1", "score_2"]), "expected a column 'score_0'"),
    ("misspelt", lambda f: f.rename(columns={"utterance": "utterence"}), "'utterence'; did you mean 'utterance'?"),
    ("misspelt optional", lambda f: f.rename(columns={"corruption": "corruptoin"}), "did you mean 'corruption'?"),
    ("capital", lambda f: f.rename(columns={"model": "Model"}), "found 'Model'; did you mean 'model'?"),
    ("gap in scores", without("score_1"), "expected score_0 to score_1, found score_0, score_2"),
    ("NaN truth", first("truth", None), "0 to 2 as there are 3 scores, in the column 'truth', found nan in row 1"),
    ("truth out of range", first("truth", 3), "found 3 in row 1 (ours, utterance 'u000')"),
    ("truth between", first("truth", 0.5), "found 0.5"),
    ("truth a word", first("truth", "angry"), "expected numbers in the column 'truth', found 'angry' in row 1"),
    ("score a word", first("score_1", "high"), "expected numbers in the column 'score_1', found 'high' in row 1"),
    ("score missing", first("score_1", None), "expected finite numbers in score_0 to score_2"),
    ("no model", first("model", ""), "expected a name in the column 'model', found nothing in row 1"),
    ("control", first("model", "a\x07b"), "expected printable characters in the column 'model'"),
    ("seed", first("seed", 0.5), "expected whole numbers from 0 on in the column 'seed', found 0.5"),
    ("duplicates", lambda f: pd.concat([f, f.iloc[:1]]), "found two: row"),
    ("two truths", lambda f: f.assign(truth=f["truth"].where(f.index > 0, 2 - f["truth"])), "expected one truth"),
    ("two clusters", first("cluster", "d07"), "expected one cluster"),
    ("rate missing", lambda f: f.assign(rate=np.nan), "a rate above 0, to 1, of 'word-drop', found none in row"),
    ("rate column missing", without("rate"), "expected a rate above 0, to 1, of 'word-drop', found none"),
    ("rate too large", lambda f: f.assign(rate=f["rate"] * 2), "found 2 in row"),
    ("rate of clean", first("rate", 0.5), "expected rate 0 of clean text, found 0.5"),
    ("no clean", lambda f: f[f["corruption"] != "clean"], "expected rows of the corruption 'clean'"),
    ("modality", lambda f: f.replace({"corruption": {"word-drop": "absent:txt"}}), "did you mean 'text'?"),
    ("incomplete", lambda f: f[(f["model"] != "ours") | (f["utterance"] != "u003")], "each; found 295 by 'ours'"),
    ("empty", lambda f: f.iloc[:0], "found none below the header"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "found"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_fault_gets_one_sentence_and_leaves_nothing(
    change: Callable[[pd.DataFrame], pd.DataFrame], found: str, tmp_path: Path
) -> None:
    file = saved(change(table(conditions=NOISY)), tmp_path / "faulty.csv")
    sentence = refused("--predictions", file, "--out", tmp_path / "out")
    assert found in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("empty.csv", b"", "cannot be read as csv"),
        ("picture.csv", b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "cannot be read as csv"),
        ("text.parquet", b"model,seed\n", "cannot be read as parquet"),
        ("ragged.csv", b"model,seed,utterance,truth,score_0\na,0,u,1,2,3,4\n", "cannot be read as csv"),
        ("rows.json", b"{}", "a name that ends in .csv or .parquet, found '.json'"),
    ],
)
def test_what_is_no_table_is_refused(name: str, content: bytes, found: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert found in refused("--predictions", tmp_path / name, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_a_parquet_file_may_hold_amiss(tmp_path: Path) -> None:
    frame = table()
    nested = saved(frame.assign(score_0=[[1.0]] * len(frame)), tmp_path / "nested.parquet")
    assert "expected one value in each cell of 'score_0'" in refused("--predictions", nested)
    words = saved(frame.assign(truth="joy"), tmp_path / "words.parquet")
    assert "expected numbers in the column 'truth', found 'joy'" in refused("--predictions", words)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--metric", "acuracy"], "did you mean 'accuracy'?"),
        (["--metric", "mae"], "metric 'mae' is not for classification"),
        (["--metric", ""], "unknown metric ''"),
    ],
)
def test_a_metric_must_suit_the_predictions(arguments: list[str], found: str, tmp_path: Path) -> None:
    file = saved(table(), tmp_path / "p.csv")
    assert found in refused("--predictions", file, *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_and_predictions_exclude_each_other(tmp_path: Path) -> None:
    file = saved(table(), tmp_path / "p.csv")
    assert "expected a FOLDER or --predictions, found both" in refused(tmp_path, "--predictions", file)
    assert "found neither" in refused()
    assert "--metric goes with --predictions" in refused(tmp_path, "--metric", "uar")
    assert "is missing" in refused("--predictions", tmp_path / "nowhere.csv")
    (tmp_path / "a.csv").mkdir()
    assert "is a folder" in refused("--predictions", tmp_path / "a.csv")
