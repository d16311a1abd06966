"""Names, settings and seeds: what can be asked for by name, and that a name always means the same."""

from __future__ import annotations

import ast
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from dual_bench.catalog import (
    CATALOGS,
    DATASETS,
    METRICS,
    MODELS,
    Catalog,
    did_you_mean,
    format_settings,
    parse_spec,
    split_specs,
    validated,
)
from dual_bench.plan import load_corpus
from dual_bench.seeding import generator, seed_of, torch_stream
from dual_bench.types import SPLITS, UserError

ENTRIES = [pytest.param(catalog, name, id=name) for catalog in CATALOGS.values() for name in catalog.entries]


# ------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(("catalog", "name"), ENTRIES)
def test_every_entry_loads_and_says_what_it_is(catalog: Catalog, name: str) -> None:
    part = catalog.load(name)
    assert callable(part) if catalog is DATASETS else part.name == name
    assert catalog.entries[name].summary


@pytest.mark.parametrize(("catalog", "name"), ENTRIES)
def test_a_slip_of_the_pen_is_offered_the_right_name(catalog: Catalog, name: str) -> None:
    wrong = name[0] + name[2] + name[1] + name[3:] if name[1] != name[2] else name + "s"
    assert wrong not in catalog.entries
    with pytest.raises(UserError, match=f"unknown {catalog.kind} '{wrong}'; did you mean '{name}'"):
        catalog.load(wrong)


@pytest.mark.parametrize("catalog", CATALOGS.values(), ids=CATALOGS)
def test_a_name_near_nothing_is_answered_with_all_names(catalog: Catalog) -> None:
    with pytest.raises(UserError) as caught:
        catalog.load("???")
    assert all(name in str(caught.value) for name in catalog.entries)


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own, in a package that nothing else has."""
    package = tmp_path / "users_own_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "parts.py").write_text("PART = ('mine', 1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "users_own_package.parts"


@pytest.mark.parametrize("catalog", [c for c in CATALOGS.values() if c.own], ids=lambda catalog: catalog.kind)
def test_a_part_of_the_users_own_loads_by_module_and_attribute(catalog: Catalog, users_module: str) -> None:
    assert catalog.load(f"{users_module}:PART") == ("mine", 1)


def test_nobody_adds_a_metric(users_module: str) -> None:
    with pytest.raises(UserError, match="unknown metric 'users_own_package"):
        METRICS.load(f"{users_module}:PART")


def test_a_part_of_the_users_own_that_is_not_there_is_the_users_error(users_module: str) -> None:
    with pytest.raises(UserError, match=r"model 'users_own_package\.parts:GONE' cannot be loaded.*GONE"):
        MODELS.load(f"{users_module}:GONE")
    with pytest.raises(UserError, match="cannot be loaded: No module named"):
        MODELS.load("no_such_package.parts:PART")


@pytest.mark.parametrize("name", ["./mine.py:SPEC", ".parts:SPEC", "..:x", "models/mine.py:SPEC"])
def test_a_file_path_in_place_of_a_module_is_the_users_error(name: str) -> None:
    with pytest.raises(UserError, match="cannot be loaded"):
        MODELS.load(name)


@given(st.text(max_size=12), st.lists(st.text(max_size=12), min_size=1, max_size=4))
def test_a_hint_names_something_that_exists(name: str, known: list[str]) -> None:
    hint = did_you_mean(name, known)
    assert any(hint in (f"; did you mean '{one}'?", f"; known: {', '.join(sorted(known))}") for one in known)


# ----------------------------------------------------------------------------------------------- settings

keys = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
spellings = st.from_regex(r"[A-Za-z][A-Za-z_|./-]{0,8}", fullmatch=True)
strings = spellings.filter(lambda text: text not in ("on", "off", "true", "false", "inf", "nan"))
scalars = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), strings)
settings_given = st.dictionaries(keys, scalars, min_size=1, max_size=4)
names = st.sampled_from(["dual", "text-only", "my.module:build", "mosi-752"])


@given(name=names, values=settings_given)
def test_settings_written_out_are_read_back_with_their_types(name: str, values: dict[str, bool | int | float]) -> None:
    found, read = parse_spec(f"{name}:{format_settings(values)}")
    assert (found, read) == (name, values)
    assert {k: type(v) for k, v in read.items()} == {k: type(v) for k, v in values.items()}


@given(values=settings_given)
def test_settings_have_one_spelling_whatever_their_order(values: dict[str, bool | int | float]) -> None:
    assert format_settings(dict(reversed(values.items()))) == format_settings(values)


@given(st.lists(st.tuples(names, st.dictionaries(keys, scalars, max_size=3)), max_size=5))
def test_a_list_of_specs_is_split_where_the_specs_end(wanted: list[tuple[str, dict[str, bool | int | float]]]) -> None:
    specs = [f"{name}:{format_settings(values)}" if values else name for name, values in wanted]
    assert split_specs(",".join(specs)) == specs
    assert split_specs(" , ".join(specs) + ", ") == specs


def test_a_name_without_settings_is_left_alone() -> None:
    assert parse_spec("dual") == ("dual", {})
    assert parse_spec("my.module:build") == ("my.module:build", {})


@pytest.mark.parametrize("spec", ["dual:width=", "dual:=3", "dual:sdm=off,width", "dual:a=1,,b=2"])
def test_settings_that_are_half_written_are_refused(spec: str) -> None:
    with pytest.raises(UserError, match="expected name:key=value"):
        parse_spec(spec)


def test_a_wrong_setting_is_named_with_the_nearest_and_with_what_was_found() -> None:
    class Wanted(BaseModel):
        model_config = ConfigDict(extra="forbid")
        width: int
        depth: int = 2

    assert validated(Wanted, {"width": 3}, "part").width == 3
    with pytest.raises(UserError, match="part: unknown setting 'widht'; did you mean 'width'"):
        validated(Wanted, {"width": 3, "widht": 4}, "part")
    with pytest.raises(UserError, match="part: the setting 'width' is missing"):
        validated(Wanted, {}, "part")
    with pytest.raises(UserError, match=r"part: depth: .*integer.* \(found 'deep'\)"):
        validated(Wanted, {"width": 3, "depth": "deep"}, "part")


@pytest.mark.parametrize("name", DATASETS.entries)
@pytest.mark.parametrize("setting", ["sed", "data", "settings", "self", "path_"])
def test_a_corpus_refuses_a_setting_that_it_does_not_have(name: str, setting: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{name}: .*unknown setting '{setting}'|{name}: the setting 'path' is missing"):
        load_corpus(f"{name}:{setting}=x", tmp_path)


def small_manifest(folder: Path) -> Path:
    lines = [f"u{i},{split},c{i},s,hello,{'ab'[i % 2]}" for i, split in enumerate(SPLITS * 2)]
    path = folder / "own.csv"
    path.write_text("\n".join(["id,split,cluster,speaker,text,label", *lines]))
    return path


@pytest.mark.parametrize("spec", ["manifest:path={}", "manifest:path={},licence=mine", "manifest:licence=mine,path={}"])
def test_a_manifest_can_be_named_by_its_path_or_as_a_setting(tmp_path: Path, spec: str) -> None:
    path = small_manifest(tmp_path)
    expected = load_corpus(str(path), tmp_path)
    found = load_corpus(spec.format(path), tmp_path)
    assert found.fingerprint == expected.fingerprint
    assert found.licence == ("mine" if "mine" in spec else expected.licence)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("composite:sed=1", "composite: unknown setting 'sed'; did you mean 'seed'"),
        ("ravdess:fold=6", "ravdess: unknown setting 'fold'; did you mean 'folds'"),
        ("ravdess:folds=19", "ravdess: folds: .*less than or equal to 18"),
        ("mosi-752:seed=1", "mosi-752: unknown setting 'seed'"),
        ("ravdes", "unknown corpus 'ravdes'; did you mean 'ravdess'"),
    ],
)
def test_a_slip_in_the_name_or_settings_of_a_corpus_is_named(tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_corpus(spec, tmp_path)


@pytest.mark.parametrize("name", ["mosi-752", "ravdess", "composite"])
def test_a_real_corpus_that_is_not_there_says_where_it_was_looked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path}/.* is missing; name the folder .* --data or DUAL_BENCH_DATA"):
        load_corpus(name, tmp_path)


# -------------------------------------------------------------------------------------------------- seeds

parts = st.one_of(st.text(max_size=6), st.integers())
streams = st.lists(parts, max_size=4)


@given(one=streams, other=streams)
@example(one=["a", "bc"], other=["ab", "c"])
@example(one=["1"], other=[1])
@example(one=["a", ""], other=["a"])
@example(one=["a\x1fstr:b"], other=["a", "b"])
def test_different_keys_have_different_seeds(one: list[str | int], other: list[str | int]) -> None:
    assume(one != other)
    assert seed_of(*one) != seed_of(*other)


@given(key=streams)
def test_a_key_names_one_stream_of_its_own(key: list[str | int]) -> None:
    assert 0 <= seed_of(*key) < 2**63
    expected = generator(*key).random(5)
    np.random.default_rng(0).random(9)
    np.testing.assert_array_equal(generator(*key).random(5), expected)


def test_another_process_draws_the_same_numbers(another_process: Callable[[str], str]) -> None:
    code = """
import torch
from dual_bench.seeding import generator, seed_of, torch_stream
key = ("noise", 0, "word-drop", -1, "Grüße\\ud800")
with torch_stream(*key):
    print([seed_of(*key), generator(*key).random(3).tolist(), torch.rand(3).tolist()])
"""
    key = ("noise", 0, "word-drop", -1, "Grüße\ud800")
    with torch_stream(*key):
        drawn = torch.rand(3).tolist()
    assert ast.literal_eval(another_process(code)) == [seed_of(*key), generator(*key).random(3).tolist(), drawn]


def test_a_torch_stream_leaves_the_global_generator_as_it_was() -> None:
    before = torch.random.get_rng_state()
    with torch_stream("weights", 1):
        first = torch.rand(4)
    with suppress(ZeroDivisionError), torch_stream("weights", 1):
        second = torch.rand(4)
        raise ZeroDivisionError
    with torch_stream("weights", 2):
        third = torch.rand(4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
