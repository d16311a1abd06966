"""What is committed in ``reports/reference``: rebuilt, and held to what is promised of it."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from reading import body_text, parse
from realised import NAMES, RATES, csv, markdown, table_of

from dual_bench.corruptions.severity import TARGETS
from dual_bench.report.render import render
from dual_bench.store import read_run

FOLDER = Path(__file__).parents[1] / "reports" / "reference"
REPORT = FOLDER / "synthetic"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "realised.csv")


def test_every_corruption_of_words_is_in_the_table_at_every_rate_and_severity(table: pd.DataFrame) -> None:
    assert list(dict.fromkeys(table["corruption"])) == list(NAMES)
    for _, rows in table.groupby("corruption"):
        assert rows.loc[rows["severity"] == 0, "nominal"].tolist() == list(RATES)
        assert rows.loc[rows["severity"] > 0, "severity"].tolist() == list(TARGETS)


def test_the_realised_share_is_within_002_of_the_nominal_rate(table: pd.DataFrame) -> None:
    given = table[table["severity"] == 0]
    assert ((given["realised"] - given["nominal"]).abs() <= 0.02).all()


def test_a_severity_is_within_003_of_its_word_error_rate_or_marked(table: pd.DataFrame) -> None:
    scale = table[table["severity"] > 0]
    reached = scale["reached"].astype(str) == "True"
    assert ((scale.loc[reached, "wer"] - scale.loc[reached, "target"]).abs() <= 0.03).all()
    assert scale.loc[~reached, "nominal"].isin([1.0, 0.001]).all()
    assert (~reached).any()


def test_the_page_shows_the_table(table: pd.DataFrame) -> None:
    read = table.assign(reached=table["reached"].map({"True": True, "False": False, True: True, False: False}))
    assert markdown(read) == (FOLDER / "realised.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "severities"),
    [("word-shuffle", [2]), ("mismatch", []), pytest.param("asr-model", [], marks=pytest.mark.slow)],
)
def test_the_table_is_what_the_noise_does(
    name: str, severities: list[int], table: pd.DataFrame, shared_data: Path
) -> None:
    """At one rate, and at a severity where it is found soon: other noise is other at any."""
    made = pd.read_csv(io.StringIO(csv(table_of(shared_data, [name], [0.5], severities))))
    own = (table["nominal"] == 0.5) & (table["severity"] == 0) | table["severity"].isin(severities)
    committed = table[(table["corruption"] == name) & own].reset_index(drop=True)[list(made)]
    assert len(committed) == 1 + len(severities)
    pd.testing.assert_frame_equal(made, committed, check_dtype=False, rtol=0, atol=1e-9)


# ------------------------------------------------------------------------------------ the reference report


@pytest.mark.usefixtures("no_figures")
def test_every_table_of_the_reference_report_is_rebuilt_byte_for_byte(tmp_path: Path) -> None:
    render(REPORT, out=tmp_path / "out", formats=["csv", "latex"])
    committed, rebuilt = (
        {file.name: file.read_bytes() for file in (folder / "tables").iterdir()}
        for folder in (REPORT, tmp_path / "out")
    )
    assert len(committed) > 20
    assert rebuilt == committed


def test_the_reference_report_is_complete_and_says_that_its_corpus_is_artificial() -> None:
    run = read_run(REPORT)
    assert run.info.status == "complete"
    assert not run.missing
    assert not run.info.provenance.dirty
    page = (REPORT / "index.html").read_text(encoding="utf-8")
    assert "is artificial" in body_text(parse(page))


def test_the_reference_report_is_small() -> None:
    assert (REPORT / "index.html").stat().st_size < 3e6
    assert sum(file.stat().st_size for file in REPORT.rglob("*") if file.is_file()) < 15e6
