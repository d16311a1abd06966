"""Parts from elsewhere: plain functions as models, and what installed packages bring by entry points."""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
import torch
from calling import invoke, refused
from pydantic import Field
from torch import nn

from dual_bench import runner
from dual_bench.catalog import CATALOGS, CORRUPTIONS, DATASETS, MODELS
from dual_bench.models.spec import spec_of
from dual_bench.plan import Plan, cells, load_corpus, sources, variants
from dual_bench.provenance import gather
from dual_bench.training import TrainingSettings, build, settings_for
from dual_bench.types import Task, UserError, Widths

WIDTHS, TASK = Widths(audio=3, vision=4, text=5), Task("classification", ("a", "b"))

# ------------------------------------------------------------------------------------------- plain functions


class Layer(nn.Linear):
    """A module that reads what it is told to."""

    def __init__(self, widths: Widths, task: Task, modalities: Any = frozenset({"text"})) -> None:
        super().__init__(widths.text, task.outputs)
        self.modalities = modalities


def sized(widths: Widths, task: Task, depth: Annotated[int, Field(ge=1)] = 2, *, shape: str = "plain") -> nn.Module:
    layers = [nn.Linear(widths.text, widths.text) for _ in range(depth)]
    return nn.Sequential(*layers, nn.Linear(widths.text, task.outputs))


def reading(widths: Widths, task: Task, face: bool = False) -> nn.Module:
    return Layer(widths, task, {"text", "vision"} if face else {"text"})


def learning(widths: Widths, task: Task, learning_rate: float = 3e-3) -> nn.Module:
    return Layer(widths, task)


def test_the_parameters_of_a_function_are_settings_with_their_types_and_bounds() -> None:
    spec = spec_of("own", sized)
    chosen = variants(Plan(name="p", dataset="d", models=("test_own_parts:sized:depth=3",)))[0]
    assert (chosen.changed, chosen.settings.model_dump(exclude_none=True)) == (
        "depth=3",
        {"depth": 3, "shape": "plain"},
    )
    assert len(build(spec, chosen.settings, WIDTHS, TASK, "own")) == 4
    with pytest.raises(UserError, match=r"depth: .*greater than or equal to 1"):
        variants(Plan(name="p", dataset="d", models=("test_own_parts:sized:depth=0",)))
    with pytest.raises(UserError, match="unknown setting 'dept'; did you mean 'depth'"):
        variants(Plan(name="p", dataset="d", models=("test_own_parts:sized:dept=3",)))


def test_what_a_function_reads_is_seen_on_what_it_makes() -> None:
    spec = spec_of("own", reading)
    assert spec.reads(spec.settings()) == {"text"}
    assert spec.reads(spec.settings(face=True)) == {"text", "vision"}
    before = torch.random.get_rng_state()
    assert spec_of("other", sized).reads(spec_of("other", sized).settings()) == {"audio", "vision", "text"}
    assert torch.equal(torch.random.get_rng_state(), before), "looking draws nothing"


def test_a_function_that_brings_a_learning_rate_is_trained_with_it() -> None:
    settings = spec_of("own", learning).settings()
    assert settings_for(settings, TrainingSettings()).learning_rate == 3e-3
    assert settings_for(spec_of("own", sized).settings(learning_rate=0.5), TrainingSettings()).learning_rate == 0.5


def test_record_and_settings_of_a_function_cross_to_another_process() -> None:
    spec = spec_of("own", sized)
    other, settings = pickle.loads(pickle.dumps((spec, spec.settings(depth=5))))
    assert (other.name, settings) == ("own", spec.settings(depth=5))
    assert len(build(other, settings, WIDTHS, TASK, "own")) == 6


def without_task(widths: Widths) -> nn.Module:
    return nn.Linear(widths.text, 2)


def without_default(widths: Widths, task: Task, width: int) -> nn.Module:
    return nn.Linear(width, 2)


def with_a_list(widths: Widths, task: Task, sizes: Any = (8, 8)) -> nn.Module:
    return nn.Linear(sizes[0], 2)


def with_a_reserved_name(widths: Widths, task: Task, model_config: int = 1) -> nn.Module:
    return nn.Linear(model_config, 2)


def with_an_unknown_annotation(widths: Widths, task: Task, width: Unknown = 8) -> nn.Module:  # type: ignore[name-defined] # noqa: F821
    return nn.Linear(width, 2)


def with_anything(widths: Widths, task: Task, **settings: int) -> nn.Module:
    return nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (Layer, r"'own' is no model: expected a function build\(widths, task, .* it is the class Layer"),
        (3, "it is of type int"),
        (without_task, "found without_task.*; give it the parameters widths and task"),
        (without_default, "a parameter 'width: .*int.*' without a default; give it one"),
        (with_anything, r"a parameter '\*\*settings.*' without a default"),
        (with_a_list, r"found 'sizes.*\(8, 8\)'; a default is a number, a word, True, False or None"),
        (with_a_reserved_name, "a parameter called 'model_config', which no setting may be; rename it"),
        (with_an_unknown_annotation, "annotations of with_an_unknown_annotation that cannot be read .*'Unknown'"),
    ],
)
def test_what_cannot_be_a_model_is_refused_in_a_sentence(found: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        spec_of("own", found)


def returning_nothing(widths: Widths, task: Task) -> nn.Module:
    nn.Linear(widths.text, task.outputs)  # and no return


def returning_late(widths: Widths, task: Task, width: int = 3) -> nn.Module:
    raise KeyError("width")


def reading_the_mind(widths: Widths, task: Task) -> nn.Module:
    return Layer(widths, task, {"text", "mind"})


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (returning_nothing, "model 'own': expected returning_nothing to return a torch.nn.Module, found NoneType"),
        (returning_late, r"model 'own' cannot be built: KeyError: 'width' \(test_own_parts.py, line \d+\)"),
        (reading_the_mind, "expected modalities among audio, vision, text, found .*mind"),
    ],
)
def test_a_function_that_builds_no_model_is_refused_in_a_sentence(
    function: Callable[..., nn.Module], message: str
) -> None:
    spec = spec_of("own", function)
    with pytest.raises(UserError, match=message):
        spec.reads(spec.settings())


# ------------------------------------------------------------------------------------------ installed packages

MODULE = """
from dual_bench.datasets import synthetic
from dual_bench.models.fusion import Concat, ConcatSettings
from dual_bench.types import Corruption

def build(widths, task, width=8):
    return Concat(widths, task, ConcatSettings(width=width))

def hush(text, rate, rng):
    return "" if rng.random() < rate else text

HUSH = Corruption("hush", 1, hush, rate_is="texts lost")

def small(data, /, seed=0):
    return synthetic.load(data, utterances=48, seed=seed)
"""
POINTS = """
[dual_bench.models]
gated-sum = plugged_parts:build
[dual_bench.corruptions]
hush = plugged_parts:HUSH
[dual_bench.corpora]
small-talk = plugged_parts:small
"""


def install(site: Path, points: str, name: str = "plugged") -> None:
    """What an installer leaves of a package: its module, its name, its entry points."""
    about = site / f"{name}-1.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(points)
    (site / f"{name}_parts.py").write_text(MODULE)


def looked_up(patch: pytest.MonkeyPatch) -> None:
    """Let the catalogues look at the installed packages again."""
    for catalog in CATALOGS.values():
        patch.setitem(vars(catalog), "plugins", replace(catalog).plugins)


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    install(tmp_path, POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    looked_up(monkeypatch)
    yield tmp_path
    sys.modules.pop("plugged_parts", None)


def test_parts_of_a_package_are_listed_and_loaded_by_name(plugged: Path) -> None:
    shown = invoke("list").output
    for name in ("gated-sum", "hush", "small-talk"):
        assert name in shown
    assert shown.count("from the package plugged 1.2") == 3
    assert CORRUPTIONS.load("hush").rate_is == "texts lost"
    assert len(load_corpus("small-talk:seed=1", plugged)) == 48
    (variant,) = variants(Plan(name="p", dataset="d", models=("gated-sum:width=4",)))
    assert (variant.model, variant.changed, len(variant.reads)) == ("gated-sum", "width=4", 3)


def test_a_slip_is_offered_the_name_of_a_part_of_a_package(plugged: Path) -> None:
    assert "unknown model 'gated-sun'; did you mean 'gated-sum'?" in refused("run", "--model", "gated-sun")
    assert "did you mean 'hush'?" in refused("check", "hsuh")


def test_all_models_include_those_of_packages_and_preview_shows_their_corruptions(
    plugged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr("dual_bench.cli._carry_out", lambda plan, *rest: asked.append(plan.models))
    assert invoke("run", "--model", "all").exit_code == 0
    assert asked == [(*MODELS.entries, "gated-sum")]
    assert "hush" in invoke("preview", "so be it", "--rate", "1").output


def test_parts_of_a_package_are_checked_by_name(plugged: Path) -> None:
    assert "corruption hush: nothing fails" in invoke("check", "hush").output
    assert "corpus small-talk: nothing fails" in invoke("check", "small-talk").output


def test_cells_of_a_part_from_elsewhere_depend_on_its_file_and_are_not_borrowed(plugged: Path) -> None:
    plan = Plan(name="p", dataset="small-talk", models=("gated-sum", "concat"), seeds=1, regimes=("clean",))
    corpus = load_corpus(plan.dataset, plugged)
    source = plugged / "plugged_parts.py"
    assert MODELS.source("concat") == ""
    assert MODELS.source("gated-sum") == hashlib.sha256(source.read_bytes()).hexdigest()
    plans = [plan, plan.model_copy(update={"corruptions": ("hush",)})]
    before, noisy = (cells(each, corpus, each.conditions(corpus), {}, "cpu") for each in plans)
    source.write_text(MODULE + "# changed\n")
    after, later = (cells(each, corpus, each.conditions(corpus), {}, "cpu") for each in plans)
    assert [one.digest == other.digest for one, other in zip(before, after, strict=True)] == [False, True]
    assert [one.digest == other.digest for one, other in zip(noisy, later, strict=True)] == [False, False]
    assert sources(plan) == dict.fromkeys(["gated-sum", "small-talk"], hashlib.sha256(source.read_bytes()).hexdigest())

    def left(**fields: Any) -> list[str]:
        folder = SimpleNamespace(path=plugged / "run", borrow=lambda *_: True)
        ready: Any = SimpleNamespace(plan=plan.model_copy(update=fields), folder=folder)
        clean = gather("cpu", 1, 1).model_copy(update={"dirty": False})
        return [cell.variant.model for cell in runner._borrow(ready, after, plugged, clean, False)]

    assert left() == ["gated-sum"]
    assert left(corruptions=("word-drop", "hush")) == ["gated-sum", "concat"]


@pytest.mark.parametrize(
    ("catalog", "points", "sentence"),
    [
        (MODELS, "dual = plugged_parts:build", "package plugged 1.2 brings a model 'dual', a name that dual-bench has"),
        (CORRUPTIONS, "typo = plugged_parts:HUSH", "package plugged 1.2 brings a corruption 'typo'"),
        (DATASETS, "ravdess = plugged_parts:small", "package plugged 1.2 brings a corpus 'ravdess'"),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_a_package_that_takes_a_name_of_dual_bench_is_refused_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalog: Any, points: str, sentence: str
) -> None:
    install(tmp_path, f"[{catalog.group}]\n{points}\n")
    monkeypatch.syspath_prepend(tmp_path)
    fresh, name = replace(catalog), points.split(" ")[0]
    assert fresh.load(name) is catalog.load(name)
    for look in (lambda: fresh.parts, lambda: fresh.load("anything")):
        with pytest.raises(UserError, match=sentence):
            look()


def test_two_packages_that_bring_one_name_are_both_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plugged", "plucked"):
        install(tmp_path, "[dual_bench.models]\nown = plugged_parts:build\n", name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"plu.*ed 1\.2 brings a model 'own', a name that plu.*ed 1\.2 has already"):
        assert replace(MODELS).plugins


def test_a_part_of_a_package_that_cannot_be_loaded_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "[dual_bench.models]\nlost = no_such_parts:build\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"model 'lost' from the package plugged 1\.2 cannot be loaded: No module"):
        replace(MODELS).load("lost")


def test_a_fresh_process_finds_what_packages_bring(another_process: Callable[[str], str], tmp_path: Path) -> None:
    install(tmp_path, POINTS)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from dual_bench.catalog import CATALOGS
print([*CATALOGS["models"].plugins, *CATALOGS["corpora"].plugins], CATALOGS["metrics"].plugins, "torch" in sys.modules)
"""
    assert another_process(code).split("\n")[0] == "['gated-sum', 'small-talk'] {} False"
