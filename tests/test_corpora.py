"""Several corpora: ranks, tests over blocks, and the critical-difference diagram."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reading import body_text, parse, rows_of
from scipy.stats import friedmanchisquare, rankdata, wilcoxon
from sklearn.metrics import accuracy_score
from test_foreign import refused, report, saved, table

from dual_bench.metrics import ACCURACY
from dual_bench.report import corpora, ranking

MODELS = {"ours": 0.9, "baseline": 0.55, "late-fusion": 0.7, "early-fusion": 0.68}


@pytest.fixture(scope="module", autouse=True)
def _few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpora, "RESAMPLES", 200)
        yield


def several(corpora: int = 4, seeds: int = 2) -> pd.DataFrame:
    parts = [
        table(MODELS, seeds, utterances=60 + 12 * i, start=i).assign(dataset=f"corpus-{i}") for i in range(corpora)
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder, frame = tmp_path_factory.mktemp("corpora"), several()
    result = report("--predictions", saved(frame, folder / "all.csv"), "--out", folder / "out")
    assert result.exit_code == 0, result.output
    return folder / "out", frame


def block_scores(frame: pd.DataFrame) -> np.ndarray:
    """(blocks, systems), straight from the frame."""
    frame = frame.assign(answer=frame[["score_0", "score_1", "score_2"]].to_numpy().argmax(axis=1))
    each = frame.groupby(["dataset", "seed", "model"])[["truth", "answer"]].apply(
        lambda g: accuracy_score(g["truth"], g["answer"])
    )
    return each.unstack("model")[list(MODELS)].to_numpy()


def test_ranks_and_tests_equal_those_of_scipy(done: tuple[Path, pd.DataFrame]) -> None:
    folder, frame = done
    scores = block_scores(frame)
    assert scores.shape == (8, 4)
    corpora = scores.reshape(4, 2, -1).mean(axis=1)  # each corpus the mean over its two seeds
    ranks = {name: rankdata(-part, axis=1).mean(axis=0) for name, part in (("corpora", corpora), ("seeds", scores))}
    for name, expected in ranks.items():
        found = {r["system"]: float(r[f"mean_rank_{name}"]) for r in rows_of(folder, "ranks")}
        assert found == pytest.approx(dict(zip(MODELS, expected, strict=True)))
    for line, part in zip(rows_of(folder, "friedman"), (corpora, scores), strict=True):
        assert float(line["chi2"]) == pytest.approx(friedmanchisquare(*part.T).statistic)
        assert int(line["blocks"]) == len(part)
    names = list(MODELS)
    for row in rows_of(folder, "pairs"):
        i, j = names.index(row["left"]), names.index(row["right"])
        assert float(row["rank_difference"]) == pytest.approx(ranks["corpora"][i] - ranks["corpora"][j])
        for column, part in (("wilcoxon_p", corpora), ("wilcoxon_by_seed_p", scores)):
            expected = wilcoxon(part[:, i] - part[:, j], zero_method="pratt", correction=True).pvalue
            assert float(row[column]) == pytest.approx(expected)
            assert float(row[f"{column}_adjusted"]) >= float(row[column])
    assert len(rows_of(folder, "pairs")) == 6


def test_scores_and_blocks_are_those_of_each_corpus(done: tuple[Path, pd.DataFrame]) -> None:
    folder, frame = done
    scores = block_scores(frame)
    told = pd.read_csv(folder / "tables" / "blocks.csv")
    again = told.pivot(index=["corpus", "seed"], columns="system", values="value")[list(MODELS)].to_numpy()
    np.testing.assert_allclose(again, scores)
    rows = rows_of(folder, "scores")
    assert len(rows) == 16
    for row in rows:
        corpus = int(row["corpus"].removeprefix("corpus-"))
        mean = scores[2 * corpus : 2 * corpus + 2, list(MODELS).index(row["system"])].mean()
        assert float(row["value"]) == pytest.approx(mean)
        assert float(row["low"]) < float(row["value"]) < float(row["high"])


def test_the_page_warns_and_the_diagram_has_words(done: tuple[Path, pd.DataFrame]) -> None:
    folder, _ = done
    tree = parse((folder / "index.html").read_text(encoding="utf-8"))
    text = body_text(tree)
    assert "What is said of other corpora rests on 4 corpora, each the mean over its seeds" in text
    assert "Blocks of corpus and seed share test utterances" in text
    assert "rejects too often" in text
    (figure,) = [e for e in tree.iter() if str(e.tag).endswith("svg")]
    assert figure.get("aria-label", "").startswith("Mean ranks, best first: ours ")
    assert "Critical difference" in figure.get("aria-label", "")
    assert {p.name for p in (folder / "figures").iterdir()} == {"ranks-unknown.svg", "ranks-unknown.png"}
    assert "Nemenyi" in (folder / "report.md").read_text(encoding="utf-8")


def test_files_are_corpora_by_their_stems(tmp_path: Path) -> None:
    files = [saved(table(MODELS, 2, start=i), tmp_path / f"c{i}.csv") for i in range(3)]
    given = [part for file in files for part in ("--predictions", file)]
    result = report(*given, "--metric", "uar", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert {r["corpus"] for r in rows_of(tmp_path / "out", "scores")} == {"c0", "c1", "c2"}
    assert {r["metric"] for r in rows_of(tmp_path / "out", "scores")} == {"uar"}
    assert "more than once" in refused("--predictions", files[0], "--predictions", files[0])


def test_one_value_of_dataset_names_the_corpus(tmp_path: Path) -> None:
    file = saved(table(seeds=2).assign(dataset="IEMOCAP"), tmp_path / "x.csv")
    assert report("--predictions", file, "--out", tmp_path / "out").exit_code == 0
    assert "# IEMOCAP: systems compared" in (tmp_path / "out" / "report.md").read_text()


def agreeing(folder: Path) -> str:
    """The report on two corpora of one seed in which one of two systems is always better."""
    files = [saved(table({"a": 0.95, "b": 0.4}, 1, start=i), folder / f"agree{i}.csv") for i in range(2)]
    assert report("--predictions", files[0], "--predictions", files[1], "--out", folder / "agree").exit_code == 0
    return (folder / "agree" / "report.md").read_text()


def test_two_regimes_are_ranked_apart_and_two_tied_systems_are_not_tested(tmp_path: Path) -> None:
    one = several(2, 1)
    frame = pd.concat([one.assign(regime="clean"), one.assign(regime="mixed")])
    assert report("--predictions", saved(frame, tmp_path / "r.csv"), "--out", tmp_path / "out").exit_code == 0
    assert {p.stem for p in (tmp_path / "out" / "figures").iterdir()} == {"ranks-clean", "ranks-mixed"}
    # two blocks that agree wholly: F is infinite, which is no evidence
    assert "not shown to differ (Friedman's test, chi-squared" in agreeing(tmp_path)
    same = table({"a": 0.5}, 2)
    same = pd.concat([same, same.assign(model="b")])
    files = [saved(same, tmp_path / f"{name}.csv") for name in "pq"]
    assert report("--predictions", files[0], "--predictions", files[1], "--out", tmp_path / "tied").exit_code == 0
    assert "tied in every block" in (tmp_path / "tied" / "report.md").read_text()


def test_corpora_of_other_systems_regimes_or_tasks_are_refused(tmp_path: Path) -> None:
    one = saved(table(seeds=1), tmp_path / "one.csv")

    def beside(frame: pd.DataFrame) -> str:
        other = saved(frame, tmp_path / "two.csv")
        sentence = refused("--predictions", one, "--predictions", other, "--out", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return sentence

    fewer = beside(table({"ours": 0.5, "theirs": 0.5}, 1))
    assert "only one has baseline and late-fusion, only two has theirs" in fewer
    assert "the same regimes in all corpora; only one has unknown, only two has mixed" in beside(
        table(seeds=1).assign(regime="mixed")
    )
    assert "classification" in beside(table(seeds=1).drop(columns=["score_1", "score_2"]))


def test_without_a_difference_by_friedmans_test_one_bar_joins_all() -> None:
    """Whatever Nemenyi's test says of single pairs."""
    ranks = np.array([1.4, 3.5, 3.0, 3.2, 3.9])
    apart, joined = (ranking.Diagram(tuple("abcde"), ranks, 2.03, differ) for differ in (True, False))
    assert "a, c, d, b and e" not in apart.finding()
    assert joined.cliques == [(0, 2, 3, 1, 4)]
    assert "Not shown to differ: a, c, d, b and e." in joined.finding()


def test_seeds_of_one_corpus_decide_nothing_about_others() -> None:
    """Corpora in which systems differ at random, and seeds that repeat each corpus: few of 200 tables are claimed."""
    rng = np.random.default_rng(0)
    claimed = 0
    for _ in range(200):
        effects = rng.normal(size=(5, 4))
        blocks = [
            corpora.Block("r", str(c), s, effects[c] + 0.5 * rng.normal(size=4)) for c in range(5) for s in range(5)
        ]
        claimed += corpora._rank(blocks, ACCURACY).differ
    assert claimed <= 24
