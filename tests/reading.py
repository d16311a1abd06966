"""Reading a rendered report back, and computing its numbers straight from the rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

import html5lib
import numpy as np
from bokeh.resources import INLINE

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


def assert_only_our_scripts(tree: ElementTree.Element) -> None:
    """The page runs its own script and Bokeh's, to the letter; every other is data."""
    own = (resources.files("dual_bench.report") / "templates" / "page.js").read_text(encoding="utf-8")
    for script in tree.iter("script"):
        text = (script.text or "").strip()
        if script.get("type") == "application/json":
            json.loads(text)
        else:
            assert not script.attrib
            assert text in (own.strip(), bokeh())


@cache
def bokeh() -> str:
    """The text of BokehJS as the installed package has it."""
    text: str = INLINE.js_raw[0]
    return text.strip()


def without_bokeh(page: str) -> str:
    """All of a page that dual-bench wrote."""
    return page.replace(bokeh(), "")


def body_text(tree: ElementTree.Element) -> str:
    body = tree.find("body")
    assert body is not None
    return " ".join("".join(_texts(body)).split())


def _texts(element: ElementTree.Element) -> Iterator[str]:
    """What people read."""
    if element.tag == "script":
        return
    yield element.text or ""
    for child in element:
        yield from _texts(child)
        yield child.tail or ""


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
