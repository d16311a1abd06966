"""What people ask for in text: studies, plans, presets, and flags."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

from fuzz.base import Target, damaged, place, refusing, text
from hypothesis import strategies as st

from dual_bench import catalog, preset
from dual_bench.ablation import read_study
from dual_bench.catalog import CATALOGS, CORRUPTIONS, DATASETS, MODELS, format_settings, parse_spec, split_specs
from dual_bench.corruptions.recogniser import parsed_rate
from dual_bench.features.encoder import by_modality, encoders_of
from dual_bench.plan import TEXT_SETTINGS, read_fields, read_plan
from dual_bench.preset import _toml
from dual_bench.shards import Shard
from dual_bench.study import _packaged, is_ablation

_OURS = {entry.target for kind in CATALOGS.values() for entry in kind.entries.values()}
_resolve = catalog._resolve


def _only_ours(target: str) -> Any:
    if target not in _OURS:
        raise ImportError("nothing else is imported here")
    return _resolve(target)


@contextmanager
def no_imports() -> Iterator[None]:
    """Whatever an input names, no module but those of the catalogue is imported."""
    with patch.object(catalog, "_resolve", _only_ours):
        yield


# ------------------------------------------------------------------------------------------------ studies

_scalar = st.one_of(st.integers(), st.floats(), st.booleans(), text, st.just(20_000).map(lambda bits: 2**bits))
_value = st.recursive(
    _scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=6
)
_model = (
    st.sampled_from([*MODELS.entries, "dual:sdm=off", "dual:width=32", "concat:dropout=0.1", "dual:vdm=plain"]) | text
)
_noise = st.sampled_from(list(CORRUPTIONS.entries)) | text
_change = st.dictionaries(
    st.sampled_from(("sdm", "vdm", "width", "dropout", "time_mixing")) | text,
    st.booleans() | st.integers(0, 64) | st.sampled_from(("plain", "on", "off")) | _scalar,
    max_size=2,
)
_expected = st.sampled_from(("loss", "gain", "none")) | text
_DESIGN: dict[str, st.SearchStrategy[Any]] = {
    "question": text,
    "dataset": st.sampled_from(list(DATASETS.entries)) | text,
    "regimes": st.lists(st.sampled_from(("clean", "matched", "mixed", "modality-dropout")) | text, max_size=3),
    "corruptions": st.lists(_noise, max_size=3),
    "rates": st.lists(st.floats(0, 1) | st.sampled_from(("10 dB", "0.3", "-infdB", "nan dB")) | _scalar, max_size=3),
    "severities": st.lists(st.integers(0, 6) | _scalar, max_size=3),
    "draws": st.integers(1, 3) | _scalar,
    "seeds": st.integers(1, 3) | _scalar,
    "root_seed": _scalar,
    "dependency": st.booleans() | _scalar,
    "metric": st.sampled_from(("accuracy", "mae", "")) | text,
    "presets": st.sampled_from(("auto", "none")) | text,
    "training": st.dictionaries(st.sampled_from(("epochs", "pack", "bucketing", "clip")) | text, _scalar, max_size=3),
    "encoders": st.dictionaries(
        st.sampled_from(("audio", "vision", "text")) | text, st.just("log-mel") | text, max_size=2
    ),
}
_PLAN = _DESIGN | {"models": st.lists(_model, max_size=4)}
_variant = st.fixed_dictionaries(
    {}, optional={"name": text, "change": _change, "regime": _expected, "expected": _expected}
)
_factor = st.fixed_dictionaries({}, optional={"name": text, "off": _change, "expected": _expected})


def _one_factor(number: int) -> dict[str, Any]:
    return {"name": f"f{number}", "off": {f"s{number}": 1}}


_STUDY = _DESIGN | {
    "margin": st.floats(1e-3, 1) | _scalar,
    "expected": _expected,
    "primary": st.lists(st.just("clean") | text, max_size=3),
    "baseline": _model,
    "variants": st.lists(_variant, max_size=4),
    "factors": st.lists(_factor, max_size=4)
    | st.integers(1, 40).map(lambda count: [_one_factor(i) for i in range(count)]),
    "interactions": _expected,
}
_BARE = {"name": "x", "dataset": "synthetic"}


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of a study: mostly such as are known, of the right kind; some of any."""
    ablation = draw(st.booleans())
    known = _STUDY if ablation else _PLAN
    fields: dict[str, Any] = {
        **_BARE,
        **({"question": "?", "metric": "accuracy", "margin": 0.02} if ablation else {"models": ["dual"]}),
    }
    for name in draw(st.lists(st.sampled_from(list(known)), max_size=4, unique=True)):
        fields[name] = draw(known[name] if draw(st.integers(0, 5)) else _value)
    if ablation and "factors" not in fields:
        fields.setdefault("variants", [{"change": {"sdm": False}}])
    if not draw(st.integers(0, 9)):
        fields[draw(text)] = draw(_value)
    if not draw(st.integers(0, 9)):
        fields.pop(draw(st.sampled_from(list(fields))))
    return fields


def toml(fields: dict[str, Any]) -> bytes:
    return "\n".join(f"{json.dumps(name)} = {_written(value)}" for name, value in fields.items()).encode(
        "utf-8", "replace"
    )


def _written(value: Any) -> str:
    """Whole numbers as hexadecimal where they are large: so a file can hold what Python does not print."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)} = {_written(each)}' for key, each in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, int) and not isinstance(value, bool) and value > 2**64:
        return hex(value)
    return _toml(value).replace("\x7f", "\\u007f")


_DEEP = b"x = " + b"[" * 5000
_LONG = b"x = " + b"1" * 5000
_FLAGS = st.fixed_dictionaries(
    {},
    optional={
        "metric": st.sampled_from(("accuracy", "uar")) | text,
        "models": st.lists(_model, max_size=2),
        "rates": st.lists(text, max_size=2),
        "severities": st.lists(st.integers(1, 5).map(str) | text, max_size=2),
        "training": st.just({"epochs": 2}),
        "encoders": st.just({"text": "sentence-transformers"}) | st.dictionaries(text, text, max_size=2),
        TEXT_SETTINGS: st.just({"precision": "bf16"}) | st.dictionaries(st.just("backend"), text),
        "margin": st.floats(),
    },
)
_PACKAGED = tuple(content.encode() for content in _packaged().values())
_files = st.one_of(studies().map(toml), studies().map(toml), damaged([*_PACKAGED, _DEEP, _LONG]))


def _study_of(content: bytes) -> tuple[bytes, dict[str, Any]]:
    """A file, and flags where its length is odd."""
    return content, {"rates": ["10 dB"], "training": {"epochs": 2}} if len(content) % 2 else {}


def read_study_file(drawn: tuple[bytes, dict[str, Any]]) -> None:
    """As the command line reads it, with or without flags."""
    content, flags = drawn
    path = place() / "study.toml"
    path.write_bytes(content)
    with refusing(), no_imports():
        ablation = is_ablation(read_fields(str(path), {})[0])
        (read_study if ablation else read_plan)(str(path), flags)


_PRESET = b"""commands = ["dual-bench tune"]
digest = "d"
trials = "t"
[asked]
corpus = "synthetic"
fingerprint = "f"
trials = 3
root_seed = 0
device = "cpu"
regimes = ["clean"]
corruptions = { "word-drop" = 1.0 }
encoders = {}
training = { "epochs" = 60, "clip" = 1.0 }
code = "c"
[models."dual"."official"]
spent = 3
default = 0.7
best = 0.6
settings = { "width" = 32 }
"""


def read_preset_file(content: bytes) -> None:
    with refusing():
        preset.parsed(content.decode("utf-8", "replace"), "mine.toml")


# -------------------------------------------------------------------------------------------------- flags


def _flags_of(content: bytes) -> tuple[str, list[str]]:
    first, *rest = content.decode("utf-8", "replace").split("\n")
    return first, rest


_spec = st.builds("{}:{}={},{}={}".format, _model, text, text, text, text) | _model | text


def read_flags(drawn: tuple[str, list[str]]) -> None:
    """Specs, rates, shards and encoders, as the command line has them."""
    one, several = drawn
    with refusing():
        Shard.parse(one)
    for spec in split_specs(one):
        with refusing():
            name, settings = parse_spec(spec)
            assert (
                parse_spec(f"{name}:{format_settings(settings)}")[0] == name
                or not settings
                or ":" in name
                or "=" in name
            )
    with suppress(ValueError):  # which pydantic takes for its own
        parsed_rate(one)
    with refusing(), no_imports():
        encoders_of(by_modality(several))


TARGETS = (
    Target("study TOML", st.tuples(_files, _FLAGS | st.just({})), read_study_file, 6_000, 40_000, _PACKAGED, _study_of),
    Target("preset TOML", damaged([_PRESET, _DEEP, _LONG]), read_preset_file, 3_000, 145_000, (_PRESET,)),
    Target(
        "flags",
        st.tuples(
            _spec,
            st.lists(st.builds("{}={}".format, st.sampled_from(("audio", "vision", "text")), _spec) | text, max_size=3),
        ),
        read_flags,
        6_000,
        60_000,
        (b"dual:sdm=off,width=32\naudio=log-mel:hop=9\ntext=x", b"2/3", b"10 dB"),
        _flags_of,
    ),
)
