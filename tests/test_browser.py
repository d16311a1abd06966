"""The page in a real browser: what can be done with it, and that it asks nothing of anyone and everyone can read it."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_run import Made, Skill, measured, write

from dual_bench.report import evidence as evidence_module
from dual_bench.report.evidence import gather
from dual_bench.report.flips import Flip, flips
from dual_bench.report.page import KINDS
from dual_bench.report.render import render
from dual_bench.store import read_run, text_table
from dual_bench.types import Condition

HOSTILE = "</script><!--<b>x"
LONG = "a" * 10_000
THEMES = ("light", "dark")
VIEWS = tuple(itertools.product((1400, 400), THEMES))
MADE = Made(
    models=("dual", "text-only", HOSTILE), rates=(0.3, 0.6, 1.0), utterances=24, clusters=6, probed=True,
    classes=("joy", "anger", "fear", f"{HOSTILE}\n&\"'"), cluster_prefix=HOSTILE,
    skills={HOSTILE: Skill(0.3, 0.8, luck=2, noise=0.2)},
)  # fmt: skip


def words(condition: Condition, number: int) -> str:
    """What is read of an utterance: nothing when all of it is dropped, and what a recogniser makes up."""
    said = ["so", "we", f"met{number}", HOSTILE, *([LONG] if number % 8 == 0 else [])]
    if condition.corruption == "word-drop":
        return " ".join(said[: len(said) - round(condition.rate * len(said))])
    return " ".join(["heard", *said[1:]] if condition.corruption.startswith("transcript:") else said)


# -------------------------------------------------------------------------------------------- the browser


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Chromium for all tests here, which has seen no page."""
    selenium = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in paths:
        pytest.skip("no chromium and chromedriver on the path")
    options = selenium.ChromeOptions()
    options.binary_location = str(paths[0])
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = selenium.Chrome(options=options, service=Service(str(paths[1])))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made run whose words are noisy, and its page."""
    folder = tmp_path_factory.mktemp("run")
    conditions, corpus = MADE.conditions(), MADE.corpus()
    texts = [words(condition, number) for condition in conditions for number in range(len(corpus))]
    write(folder, MADE).write_texts(text_table(conditions, [u.id for u in corpus], texts, measured(MADE)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_module, "RESAMPLES", 100)
        render(folder, formats=["html"])
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> str:
    return (folder / "index.html").as_uri()


@pytest.fixture(scope="module")
def rows(folder: Path) -> tuple[Flip, ...]:
    """The sentences that the page must hold: more than it shows at once, with every kind of change."""
    found = flips(gather(read_run(folder)))
    assert found is not None
    assert len(found.rows) > 25
    assert {group.kind for row in found.rows for group in row.groups} == {"kept", *KINDS}
    return found.rows


def show(driver: Any, address: str, width: int = 1400, theme: str = "light") -> None:
    """Open the page anew, and wait for its figure."""
    driver.get("about:blank")
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": PREFERS, "value": theme}]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get(address)
    driver.set_script_timeout(120)
    driver.execute_async_script(
        "const done = arguments[0];"
        "(function look() { window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle ? done() "
        ": setTimeout(look, 20); })()"
    )


PREFERS = "prefers-color-scheme"


def curves(driver: Any) -> list[str]:
    """The systems whose points the figure of the explorer holds."""
    told: list[str] = driver.execute_script(
        "return [...new Set(Bokeh.documents[0].get_model_by_name('points').data.system)]"
    )
    return told


def column(driver: Any, source: str, name: str) -> list[Any]:
    found: list[Any] = driver.execute_script(
        "return [...Bokeh.documents[0].get_model_by_name(arguments[0]).data[arguments[1]]]", source, name
    )
    return found


def choose(driver: Any, form: str, **fields: str) -> None:
    """Set fields as a person does, so that the page hears of it."""
    driver.execute_script(
        "const form = document.getElementById(arguments[0]); form.reset();"
        "for (const [name, value] of Object.entries(arguments[1])) { const field = form.elements[name];"
        "field.value = value; if (field.value !== value) throw new Error(`no ${name} ${value}`);"
        "for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, { bubbles: true })); }",
        form,
        fields,
    )


def click(driver: Any, selector: str) -> None:
    driver.execute_script("document.querySelector(arguments[0]).click()", selector)


def seen(driver: Any, selector: str) -> list[bool]:
    """Of each such part, whether it is drawn."""
    found: list[bool] = driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map("
        "(part) => part.checkVisibility() && getComputedStyle(part).display !== 'none')",  # the first errs in SVG
        selector,
    )
    return found


# ----------------------------------------------------------------------------------------------- the page


@pytest.mark.parametrize(("width", "theme"), VIEWS)
def test_the_page_opens_without_complaint_or_request_and_fits(
    driver: Any, address: str, width: int, theme: str
) -> None:
    show(driver, address, width, theme)
    for part in ("explorer-figure", "flips-filter"):
        driver.execute_script("document.getElementById(arguments[0]).scrollIntoView()", part)
    choose(driver, "explorer-controls", corruption="1", regime="1")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert [entry for entry in driver.get_log("browser") if entry["level"] not in ("INFO", "DEBUG")] == []
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith("data:")} == {address}


@pytest.mark.parametrize("theme", THEMES)
def test_a_system_is_hidden_in_every_figure_and_comes_back(driver: Any, address: str, theme: str) -> None:
    show(driver, address, theme=theme)
    everyone = curves(driver)
    assert sorted(everyone) == sorted(MADE.models)
    box = "input[name=system][value='1']"
    assert seen(driver, "svg .system-1").count(True) == len(seen(driver, "svg .system-1")) > 0
    click(driver, box)
    assert curves(driver) == [name for name in everyone if name != "text-only"]
    assert not any(seen(driver, "svg .system-1"))
    assert all(seen(driver, "#curves svg .system-0"))
    click(driver, box)
    assert curves(driver) == everyone
    assert all(seen(driver, "svg .system-1"))


def test_another_corruption_and_regime_show_their_own_numbers(driver: Any, address: str) -> None:
    show(driver, address)
    label = "return document.getElementById('explorer-figure').getAttribute('aria-label')"
    told = {}
    for corruption, regime in itertools.product("01", "01"):
        choose(driver, "explorer-controls", corruption=corruption, regime=regime)
        told[corruption, regime] = (driver.execute_script(label), column(driver, "points", "estimate"))
        name, trained = MADE.corruptions[int(corruption)], MADE.regimes[int(regime)]
        assert name in told[corruption, regime][0]
        assert f"Trained {trained}: dual goes from" in told[corruption, regime][0]
        assert {where.partition(" ")[0] for where in column(driver, "points", "where")} == {"clean", name}
    assert len({text for text, _ in told.values()}) == 4
    assert len(column(driver, "bands", "xs")) == len(MADE.models)
    click(driver, "input[name=bands]")
    assert column(driver, "bands", "xs") == []
    assert len({tuple(numbers) for _, numbers in told.values()}) >= 2


def test_the_figure_takes_the_colours_of_the_theme_as_it_changes(driver: Any, address: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    show(driver, address, theme="light")
    light = column(driver, "curves", "colour")
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": PREFERS, "value": "dark"}]})
    # the page hears of it with the next frame
    WebDriverWait(driver, 10).until(lambda _: column(driver, "curves", "colour") != light)
    dark = column(driver, "curves", "colour")
    assert len(set(light)) == len(set(dark)) == len(MADE.models)
    assert not set(light) & set(dark)


def test_every_table_has_a_caption_and_every_line_of_numbers_a_header(driver: Any, address: str) -> None:
    show(driver, address)
    tables = driver.execute_script(
        "return [...document.querySelectorAll('table:not(.cards)')].map((table) => [table.caption.textContent,"
        "[...table.tBodies[0].rows].map((row) => row.cells[0].scope)])"
    )
    assert len(tables) > 5
    for caption, headers in tables:
        assert caption.strip()
        assert set(headers) == {"row"}, caption


def table_of(driver: Any) -> list[list[str]]:
    """The texts of the table beside the explorer's figure, line after line."""
    found: list[list[str]] = driver.execute_script(
        "return [...document.querySelector('#explorer-points table').rows].map("
        "(row) => [...row.cells].map((cell) => cell.textContent))"
    )
    return found


def test_the_numbers_of_the_curves_are_in_a_table_that_a_keyboard_reaches(driver: Any, address: str) -> None:
    from selenium.webdriver.common.keys import Keys

    show(driver, address)
    assert not any(seen(driver, "#explorer-points table"))
    driver.execute_script("document.querySelector('#explorer-points summary').focus()")
    driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert all(seen(driver, "#explorer-points table"))
    for corruption, regime in itertools.product("01", "01"):
        choose(driver, "explorer-controls", corruption=corruption, regime=regime)
        head, *lines = table_of(driver)
        assert [line[0] for line in lines] == list(MADE.models)
        told = {(line[0], where): text for line in lines for where, text in zip(head[1:], line[1:], strict=True)}
        names = (column(driver, "points", name) for name in ("system", "where", "estimate"))
        assert told == {(system, where): text for system, where, text in zip(*names, strict=True)}
        caption = driver.execute_script("return document.querySelector('#explorer-points caption').textContent")
        assert f"under {MADE.corruptions[int(corruption)]}, trained {MADE.regimes[int(regime)]}" in caption
    click(driver, "input[name=system][value='1']")
    assert [line[0] for line in table_of(driver)[1:]] == ["dual", HOSTILE]


def expected(rows: Sequence[Flip], **wanted: str) -> list[int]:
    """The numbers of the rows that fit, straight from the data."""
    return [
        number
        for number, row in enumerate(rows)
        if wanted.get("regime", row.regime) == row.regime
        and wanted.get("where", f"at {row.condition}") in (f"any {row.corruption}", f"at {row.condition}")
        and wanted.get("text", "").lower() in " ".join([row.before, row.after, row.utterance, row.truth]).lower()
        and any(
            wanted.get("kind", group.kind) == group.kind != "kept"
            and wanted.get("system", group.systems[0]) in group.systems
            for group in row.groups
        )
    ]


def filtered(driver: Any, **wanted: str) -> None:
    """Filter the sentences; a system is given by its name."""
    if "system" in wanted:
        wanted["system"] = driver.execute_script(
            "return [...document.getElementById('flips-filter').elements.system.options]"
            ".find((option) => option.text === arguments[0]).value",
            wanted["system"],
        )
    choose(driver, "flips-filter", **(wanted or {"text": ""}))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, True),
        ({"regime": "mixed"}, True),
        ({"where": "any word-drop"}, True),
        ({"where": "at word-drop 100 %", "kind": "broken"}, True),
        ({"system": "text-only"}, True),
        ({"system": HOSTILE, "kind": "mended", "regime": "clean"}, True),
        ({"text": "U0003"}, True),
        ({"text": "HEARD"}, True),  # only noisy words have it
        ({"text": "lost:"}, False),  # what a screen reader says of words that are gone
    ],
    ids=str,
)
def test_the_sentences_that_are_shown_and_counted_are_those_that_fit(
    driver: Any, address: str, rows: tuple[Flip, ...], wanted: dict[str, str], found: bool
) -> None:
    if driver.current_url != address:
        show(driver, address)
    filtered(driver, **wanted)
    fitting, shown = expected(rows, **wanted), seen(driver, "#flips-rows tr")
    assert bool(fitting) == found
    count = driver.execute_script("return document.getElementById('flips-count').textContent")
    assert count.startswith(f"{len(fitting)} of {len(rows)} sentences")
    assert len(shown) == len(rows)
    assert [number for number, is_seen in enumerate(shown) if is_seen] == fitting[:25]
    while any(seen(driver, "#flips-more button")):
        click(driver, "#flips-more button")
    assert [number for number, is_seen in enumerate(seen(driver, "#flips-rows tr")) if is_seen] == fitting


def test_the_filter_and_the_systems_are_reached_by_keyboard(driver: Any, address: str, rows: tuple[Flip, ...]) -> None:
    from selenium.webdriver.common.keys import Keys

    show(driver, address)
    driver.find_element("css selector", "body").send_keys(Keys.TAB)
    assert driver.switch_to.active_element.get_attribute("class") == "skip"
    driver.execute_script("document.querySelector('input[name=system]').focus()")
    driver.switch_to.active_element.send_keys(Keys.SPACE)
    assert "dual" not in curves(driver)
    driver.execute_script("document.querySelector('#flips-filter input').focus()")
    driver.switch_to.active_element.send_keys("u0003", Keys.ENTER)
    assert seen(driver, "#flips-rows tr").count(True) == len(expected(rows, text="u0003")) <= 25
    assert driver.current_url == address


def axe() -> str:
    """The text of axe-core, from $AXE_CORE or the folder of the virtual environment."""
    file = Path(os.environ.get("AXE_CORE") or Path(sys.prefix) / "node_modules" / "axe-core" / "axe.min.js")
    if not file.is_file():
        pytest.skip(f"no axe-core at {file}")
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("width", "theme"),
    [pytest.param(*view, marks=() if view in (VIEWS[0], VIEWS[-1]) else pytest.mark.slow) for view in VIEWS],
)
def test_axe_finds_no_barrier(driver: Any, address: str, width: int, theme: str) -> None:
    text = axe()
    show(driver, address, width, theme)
    driver.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    driver.execute_script(text)
    found: Sequence[dict[str, Any]] = driver.execute_async_script(
        "axe.run({ runOnly: ['wcag2a', 'wcag2aa'] }).then((found) => arguments[0](found.violations))"
    )
    assert [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found] == []


def test_without_a_script_every_sentence_and_figure_is_there(
    driver: Any, folder: Path, rows: tuple[Flip, ...], tmp_path: Path
) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    (tmp_path / "index.html").write_text(re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL), encoding="utf-8")
    driver.get((tmp_path / "index.html").as_uri())
    assert not any(seen(driver, "[data-script]"))
    assert all(seen(driver, "#curves svg"))
    driver.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    assert seen(driver, "#flips-rows tr") == [True] * len(rows)
