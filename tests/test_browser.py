"""The page in a real browser: what can be done with it, and that it asks nothing of anyone and everyone can read it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from made_run import Made, write

from dual_bench.report import evidence as evidence_module
from dual_bench.report import page as page_module
from dual_bench.report.canvas import Picture
from dual_bench.report.render import render

pytestmark = pytest.mark.xdist_group("browser")  # one browser for all of them

HOSTILE = "</script><!--<b>x\n&\"'"
LONG = "a" * 10_000
THEMES = ("light", "dark")
VIEWS = tuple(itertools.product((1400, 400), THEMES))
MADE = Made(models=("dual", "text-only", HOSTILE.split("\n")[0]), rates=(0.3, 0.6, 1.0), probed=True)
SYSTEMS = ("dual", "text-only", HOSTILE)
CHANGES = (("so", "same"), ("we", "lost"), ("met", "changed"), (HOSTILE, "added"))


@dataclass(frozen=True)
class Group:
    before: str
    after: str
    systems: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class Flip:
    condition: str
    corruption: str
    regime: str
    utterance: str
    cluster: str = "dialogue"
    words: tuple[tuple[str, str], ...] = CHANGES
    before: str = "so we left"
    after: str = "so met"
    truth: str = "joy"
    groups: tuple[Group, ...] = ()


@dataclass(frozen=True)
class Flips:
    """Sentences as ``page.of_run`` wants them."""

    rows: tuple[Flip, ...] = field(default_factory=lambda: tuple(_rows()))
    total: int = 99
    rule: str = "Some of 99 sentences."


def _rows() -> Iterator[Flip]:
    """More than the page shows at once: each kind of change by each system, under each condition."""
    kinds = {"broken": ("joy", "anger"), "mended": ("anger", "joy"), "moved": ("anger", "neutral")}
    where = itertools.product(("clean", "mixed"), ("word-drop 30 %", "word-drop 100 %", "typo 60 %"), kinds, SYSTEMS)
    for i, (regime, condition, kind, system) in enumerate(where):
        others = tuple(s for s in SYSTEMS if s != system)
        groups = (Group(*kinds[kind], (system,), kind), Group("joy", "joy", others, "kept"))
        yield Flip(condition, condition.split()[0], regime, f"u{i:02}", groups=groups)
    yield Flip("typo 60 %", "typo", "mixed", HOSTILE, words=((LONG, "lost"),), before=LONG, after="", groups=groups)


ROWS = Flips().rows


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
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the page of a made run, with sentences, and a picture whose parts belong to systems."""
    folder = tmp_path_factory.mktemp("run")
    write(folder, MADE)
    parts = "".join(f'<g id="system-{i}"><path d="M{i} 0h1"/></g>' for i in range(3))
    stand_in = Picture("stand-in", "Stand-in", "Of all.", "1 goes up.", f'<svg viewBox="0 0 9 9">{parts}</svg>')
    of_run = page_module.of_run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_module, "RESAMPLES", 100)
        patch.setattr(
            page_module,
            "of_run",
            lambda evidence, found, drawn, *_, **__: of_run(evidence, found, (*drawn, stand_in), Flips()),
        )
        render(folder)
    return (folder / "index.html").as_uri()


def show(driver: Any, address: str, width: int = 1400, theme: str = "light") -> None:
    """Open the page anew, and wait for its figure."""
    driver.get("about:blank")
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": PREFERS, "value": theme}]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get(address)
    driver.set_script_timeout(20)
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
    assert all(seen(driver, "#figures svg .system-0"))
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


def expected(**wanted: str) -> list[str]:
    """The utterances that fit, straight from the data."""
    return [
        row.utterance
        for row in ROWS
        if wanted.get("regime", row.regime) == row.regime
        and wanted.get("where", f"at {row.condition}") in (f"any {row.corruption}", f"at {row.condition}")
        and wanted.get("text", "").lower() in f"{row.before} {row.utterance} {row.truth}".lower()
        and any(
            wanted.get("kind", group.kind) == group.kind != "kept"
            and ("system" not in wanted or SYSTEMS[int(wanted["system"])] in group.systems)
            for group in row.groups
        )
    ]


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"regime": "mixed"},
        {"where": "any word-drop"},
        {"where": "at word-drop 100 %", "kind": "broken"},
        {"system": "2"},
        {"system": "1", "kind": "mended", "regime": "clean"},
        {"text": "U03"},
        {"text": "nowhere"},
    ],
    ids=str,
)
def test_the_sentences_that_are_shown_and_counted_are_those_that_fit(
    driver: Any, address: str, wanted: dict[str, str]
) -> None:
    if driver.current_url != address:
        show(driver, address)
    choose(driver, "flips-filter", **(wanted or {"text": ""}))
    fitting, shown = expected(**wanted), seen(driver, "#flips-rows tr")
    count = driver.execute_script("return document.getElementById('flips-count').textContent")
    assert count.startswith(f"{len(fitting)} of {len(ROWS)} sentences")
    assert [row.utterance for row, is_seen in zip(ROWS, shown, strict=True) if is_seen] == fitting[:25]
    click(driver, "#flips-more button")
    shown = seen(driver, "#flips-rows tr")
    assert [row.utterance for row, is_seen in zip(ROWS, shown, strict=True) if is_seen] == fitting


def test_the_filter_and_the_systems_are_reached_by_keyboard(driver: Any, address: str) -> None:
    from selenium.webdriver.common.keys import Keys

    show(driver, address)
    driver.find_element("css selector", "body").send_keys(Keys.TAB)
    assert driver.switch_to.active_element.get_attribute("class") == "skip"
    driver.execute_script("document.querySelector('input[name=system]').focus()")
    driver.switch_to.active_element.send_keys(Keys.SPACE)
    assert "dual" not in curves(driver)
    driver.execute_script("document.querySelector('#flips-filter input').focus()")
    driver.switch_to.active_element.send_keys("u03", Keys.ENTER)
    assert seen(driver, "#flips-rows tr").count(True) == 1
    assert driver.current_url == address


def axe() -> str:
    """The text of axe-core, from $AXE_CORE or the folder of the virtual environment."""
    file = Path(os.environ.get("AXE_CORE") or Path(sys.prefix) / "node_modules" / "axe-core" / "axe.min.js")
    if not file.is_file():
        pytest.skip(f"no axe-core at {file}")
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize(("width", "theme"), VIEWS)
def test_axe_finds_no_barrier(driver: Any, address: str, width: int, theme: str) -> None:
    text = axe()
    show(driver, address, width, theme)
    driver.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    driver.execute_script(text)
    found: Sequence[dict[str, Any]] = driver.execute_async_script(
        "axe.run({ runOnly: ['wcag2a', 'wcag2aa'] }).then((found) => arguments[0](found.violations))"
    )
    assert [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found] == []


def test_without_a_script_every_sentence_and_figure_is_there(driver: Any, address: str) -> None:
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.get("about:blank")
        driver.get(address)
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert not any(seen(driver, "[data-script]"))
    assert all(seen(driver, "#curves svg"))
    driver.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    assert seen(driver, "#flips-rows tr") == [True] * len(ROWS)
