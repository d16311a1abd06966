"""Reading a rendered report back, and computing its numbers straight from the rows."""

from __future__ import annotations

import csv
from pathlib import Path
from xml.etree import ElementTree

import html5lib
import numpy as np

from dual_bench.metrics import ACCURACY, Metric
from dual_bench.store import read_run


def rows_of(folder: Path, table: str) -> list[dict[str, str]]:
    with (folder / "tables" / f"{table}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table_bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "tables").iterdir()}


def parse(page: str) -> ElementTree.Element:
    """The page, which must be valid HTML."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)


def body_text(tree: ElementTree.Element) -> str:
    return " ".join("".join(tree.find("body").itertext()).split())  # type: ignore[union-attr]


def direct(folder: Path, regime: str, system: str, corruption: str, rate: float, metric: Metric = ACCURACY) -> float:
    """The mean over seeds and draws of a metric, straight from the rows."""
    rows = read_run(folder).predictions
    rows = rows[
        (rows.model == system) & (rows.regime == regime) & (rows.corruption == corruption) & (rows.rate == rate)
    ]
    columns = [c for c in rows if c.startswith("score_")]
    return float(
        np.mean([metric(g.truth.to_numpy(), g[columns].to_numpy()) for _, g in rows.groupby(["seed", "draw"])])
    )


def accuracies(folder: Path) -> dict[tuple[str, str, str, float], float]:
    """(regime, model, corruption, rate) -> the mean over seeds and draws of the accuracy, straight from the rows."""
    rows = read_run(folder).predictions
    scores = rows[[c for c in rows if c.startswith("score_")]].to_numpy()
    rows = rows.assign(right=scores.argmax(axis=1) == rows["truth"])
    where = ["regime", "model", "corruption", "rate"]
    each = rows.groupby([*where, "seed", "draw"], observed=True)["right"].mean()
    return {key: float(value) for key, value in each.groupby(level=where, observed=True).mean().items()}
