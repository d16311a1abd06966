"""The README keeps its word: its examples are run as they stand there, and what it points at is there."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from calling import invoke, refused

from dual_bench.catalog import CATALOGS, MODELS
from dual_bench.features.audio import LogMel
from dual_bench.features.encoder import audio_encoder, picture_encoder
from dual_bench.features.vision import FrameDCT
from dual_bench.models.spec import ModelSpec, parameter_count
from dual_bench.plan import load_corpus
from dual_bench.training import build
from dual_bench.types import Task, Widths

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = shlex.split("--regimes clean --seeds 2 --draws 2 --rates 0,1 --epochs 2 --no-dependency --out")


def section(heading: str) -> str:
    """What stands under a heading, up to the next of its kind or above."""
    after = README.split(f"\n{heading}\n")[1]
    level = heading.split()[0]
    return re.split(rf"^#{{2,{len(level)}}} ", after, flags=re.MULTILINE)[0]


def blocks(text: str, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [code for name, code in fenced if name == language]


def write_examples(text: str) -> None:
    """Each Python example, under the name in its first line."""
    for code in blocks(text, "python"):
        path = Path(code.splitlines()[0].removeprefix("# "))
        path.parent.mkdir(exist_ok=True)
        path.write_text(code, encoding="utf-8")


def commands(text: str) -> list[list[str]]:
    """Every command line of a section."""
    return [shlex.split(line) for block in blocks(text, "") for line in block.splitlines()]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the corpus of the README was written by its own commands, and is worked in."""
    folder = tmp_path_factory.mktemp("newcomer")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))  # the command adds this folder
        example = section("### A corpus")
        write_examples(example)
        program, script = commands(example)[0]
        assert program == "python"
        runpy.run_path(script)
        yield folder


def reported(command: list[str], out: Path, jobs: int = 1) -> tuple[dict[str, list[str]], str]:
    """The plan and the report of a run of the README, made small."""
    program, *arguments = command
    assert program == "dual-bench"
    result = invoke(*arguments, *SMALL, out, "--jobs", jobs)
    assert result.exit_code == 0, result.output
    assert (out / "index.html").stat().st_size > 0
    return json.loads((out / "run.json").read_text())["plan"], (out / "report.md").read_text()


def passed(command: list[str]) -> None:
    """A ``dual-bench check`` of the README finds nothing."""
    assert command[:2] == ["dual-bench", "check"]
    result = invoke(*command[1:])
    assert result.exit_code == 0, result.output


def test_the_corpus_of_the_readme_is_checked_and_run(home: Path, tmp_path: Path) -> None:
    _, check, command = commands(section("### A corpus"))
    passed(check)
    plan, report = reported([*command, "--models", "concat"], tmp_path / "out")
    assert plan["dataset"] == "my/talks.csv"
    assert "talks" in report
    info = json.loads((tmp_path / "out" / "run.json").read_text())["corpus"]
    assert info["classes"] == ["calm", "happy", "sad"]
    assert info["counts"] == {"train": 120, "validation": 60, "test": 60}
    assert info["notes"] == [], "no cluster and no speaker is in two parts"


@pytest.mark.usefixtures("no_figures")
def test_the_model_of_the_readme_is_checked_compared_and_trained_again_where_its_file_changes(
    home: Path, tmp_path: Path
) -> None:
    """With two processes, which have to make its settings anew."""
    example = section("### A model")
    write_examples(example)
    check, command = commands(example)
    passed(check)
    plan, report = reported(command, tmp_path / "out", jobs=2)
    assert plan["models"] == ["my.gate:build", "my.gate:build:width=8", "concat"]
    assert all(name in report for name in plan["models"])
    path = Path("my/gate.py")
    path.write_text(path.read_text() + "\n# changed\n")
    assert "belongs to another plan" in refused(*command[1:], *SMALL, tmp_path / "out")


def test_a_plain_function_is_a_file_of_thirty_lines() -> None:
    (code,) = blocks(section("### A model"), "python")
    assert len(code.splitlines()) <= 32


def test_the_table_of_models_names_each_with_its_parameters_on_the_embedded_corpus() -> None:
    widths = Widths(LogMel().width, FrameDCT().width, 384)
    task = Task("classification", load_corpus("synthetic:utterances=48", Path()).task.classes)
    sizes = {}
    for name in MODELS.entries:
        spec: ModelSpec = MODELS.load(name)
        sizes[name] = parameter_count(build(spec, spec.settings(), widths, task, "sizes"))
    told = {}
    for names, _, counts in re.findall(
        r"^\| (`.*?`) \| (.*) \| ([\d, ]+) \|$", section("## Models"), flags=re.MULTILINE
    ):
        told |= dict(zip(re.findall(r"`(.*?)`", names), counts.split(", "), strict=True))
    assert told == {name: f"{count:,}" for name, count in sizes.items()}


def test_the_groups_of_entry_points_are_those_of_the_readme() -> None:
    text = section("### A model")
    (snippet,) = blocks(text, "toml")
    (others,) = re.findall(r"^The groups .*?\n\n", text, flags=re.DOTALL | re.MULTILINE)
    groups = {*tomllib.loads(snippet)["project"]["entry-points"], *re.findall(r"`(dual_bench\.\w+)`", others)}
    assert groups == {catalog.group for catalog in CATALOGS.values() if catalog.group}


def test_the_readme_names_every_layout_and_every_encoder() -> None:
    text = section("## From videos to a benchmark")
    told = set(re.findall(r"^\| `([\w-]+)` \|", text, flags=re.MULTILINE))
    assert told == {*CATALOGS["layouts"].entries, *CATALOGS["encoders"].entries}
    built = {"log-mel": audio_encoder(), "egemaps": audio_encoder("egemaps"), "frame-dct": picture_encoder()}
    for name, encoder in built.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        assert f"{encoder.width} " in row
        assert f"{encoder.rate:g} steps" in row


@pytest.mark.usefixtures("no_figures")
def test_the_corruption_of_the_readme_is_checked_previewed_and_run(home: Path, tmp_path: Path) -> None:
    example = section("### A corruption")
    write_examples(example)
    check, preview, run = commands(example)
    passed(check)
    shown = invoke(*preview[1:], "--rate", "1")
    assert shown.exit_code == 0
    assert "SO BE IT" in shown.output
    assert "1.00" in shown.output, "its word error rate"
    plan, report = reported(run, tmp_path / "out")
    assert plan["corruptions"] == ["word-drop", "my.shout:SHOUT"]
    assert "my.shout:SHOUT" in report


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("my.gate:Gate", "'my.gate:Gate' is no model: expected a function build(widths, task, setting=default, …)"),
        ("my.gate:biuld", "has no attribute 'biuld'; did you mean 'build'?"),
        ("my.gate:build:widht=8", "model 'my.gate:build': unknown setting 'widht'; did you mean 'width'?"),
        ("my.gate:build:width=wide", "model 'my.gate:build': width: "),
    ],
)
def test_what_is_no_model_or_a_slip_is_refused_in_a_sentence(home: Path, name: str, sentence: str) -> None:
    write_examples(section("### A model"))
    assert sentence in refused("run", "--model", name)


@pytest.mark.parametrize("page", ["README.md", "reports/README.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_points_at_is_there(page: str, checkout: Path) -> None:
    text = (checkout / page).read_text(encoding="utf-8")
    named = re.findall(r"\]\(([^)#:]+)\)|`((?:reports|ablations|dual_bench|tests)/[\w./]*\w\.?\w*)`", text)
    paths = [link or code for link, code in named]
    missing = [path for path in paths if not (checkout / path).exists()]
    assert not missing
    assert page != "README.md" or len(paths) > 5
