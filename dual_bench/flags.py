"""The flags that several commands have, in groups. A command takes a group as one argument (``with_flags``)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_type_hints

import typer

Many = list[str] | None
Data = Annotated[Path, typer.Option(envvar="DUAL_BENCH_DATA", help="Folder of the real corpora.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


Code = Annotated[
    Many,
    typer.Option(
        help="Parts of your own, package.module:attribute, that the file may mention; may be repeated. Such code runs "
        "only where the command line names it."
    ),
]


def listed(text: str) -> Any:
    return typer.Option(help=f"{text}; comma-separated, may be repeated.")


@dataclass(frozen=True)
class DesignFlags:
    """Fields of a study that can be replaced, in tuning too."""

    PANEL: ClassVar = "In place of what the study says"

    dataset: Annotated[str | None, typer.Option(help="A corpus from `dual-bench list`, or your manifest.csv.")] = None
    regimes: Annotated[Many, listed("What the model sees in training: clean, matched, mixed, modality-dropout")] = None
    corruptions: Annotated[Many, listed("What happens to the test words, see `dual-bench list corruptions`")] = None
    rates: Annotated[Many, listed("Nominal rates in [0, 1], or signal-to-noise ratios such as 10dB")] = None
    severities: Annotated[Many, listed("In place of rates, 1 to 5: word error rates .10 .20 .35 .50 .70")] = None
    epochs: Annotated[int | None, typer.Option(help="Epochs at most.")] = None
    bucketing: Annotated[
        bool | None,
        typer.Option("--bucketing/--no-bucketing", help="Whether utterances of like length share a batch in training."),
    ] = None
    root_seed: Annotated[int | None, typer.Option(help="Seed of all noise and all training.")] = None
    encoder: Annotated[
        Many,
        typer.Option(
            "--encoder",
            help="MODALITY=NAME or MODALITY=NAME:setting=value, see `dual-bench list encoders`; may be repeated.",
        ),
    ] = None
    text_backend: Annotated[
        str | None, typer.Option(help="What encodes the words: torch, or openvino, which is faster on a CPU.")
    ] = None
    text_precision: Annotated[str | None, typer.Option(help="In which precision: fp32, or bf16, which is faster.")] = (
        None
    )
    code: Code = None

    def permitted(self) -> frozenset[str]:
        """The code that a study file may mention; UserError where a name is none of code."""
        return permitted(self.code)

    def fields(self) -> dict[str, Any]:
        """What they put in place of a study's own."""
        from dual_bench.features.encoder import by_modality

        training = {"epochs": self.epochs, "bucketing": self.bucketing}
        return (
            _given(
                dataset=self.dataset,
                regimes=joined(self.regimes),
                corruptions=joined(self.corruptions),
                rates=joined(self.rates),
                severities=joined(self.severities),
                root_seed=self.root_seed,
                encoders=None if self.encoder is None else by_modality(self.encoder),
                training=_given(**training) or None,
            )
            | self._text_settings()
        )

    def _text_settings(self) -> dict[str, dict[str, str]]:
        """What is set of the text encoder, whichever the study has."""
        from dual_bench.catalog import parse_spec
        from dual_bench.features.encoder import by_modality
        from dual_bench.plan import TEXT_SETTINGS
        from dual_bench.types import UserError

        chosen = _given(backend=self.text_backend, precision=self.text_precision)
        spec = by_modality(self.encoder or ()).get("text", "")
        for key, value in parse_spec(spec)[1].items():
            if chosen.get(key, value) != value:
                raise UserError(f"--text-{key} {chosen[key]} contradicts --encoder text={spec}; leave one of them out")
        return {TEXT_SETTINGS: chosen} if chosen else {}


@dataclass(frozen=True)
class StudyFlags:
    """More of them, of a study that is to be run."""

    PANEL: ClassVar = DesignFlags.PANEL

    draws: Annotated[int | None, typer.Option(help="Noise draws at each rate.")] = None
    seeds: Annotated[int | None, typer.Option(help="Trainings of each model.")] = None
    pack: Annotated[
        str | None,
        typer.Option(
            help="How many seeds of a model are trained stacked, or 'auto': all or 1, whichever is faster here."
        ),
    ] = None
    dependency: Annotated[
        bool | None,
        typer.Option(
            "--dependency/--no-dependency",
            help="Whether every model is also asked what it says with modalities taken away or exchanged.",
        ),
    ] = None
    metric: Annotated[str | None, typer.Option(help="The primary metric.")] = None
    presets: Annotated[
        str | None,
        typer.Option(help="Settings that `tune` chose: auto (those that come along), none, or a FILE of yours."),
    ] = None
    name: Annotated[str | None, typer.Option(help="Name of the run and of its folder.")] = None

    def fields(self, design: DesignFlags) -> dict[str, Any]:
        """What both groups put in place of a study's own."""
        found = design.fields()
        if self.pack is not None:
            found["training"] = {**found.get("training", {}), "pack": self.pack}
        return found | _given(
            draws=self.draws,
            seeds=self.seeds,
            dependency=self.dependency,
            metric=self.metric,
            presets=self.presets,
            name=self.name,
        )


@dataclass(frozen=True)
class PlaceFlags:
    """Where data and results lie, and what computes."""

    PANEL: ClassVar = "Where"

    out: Annotated[Path | None, typer.Option(help="Folder of results; by default reports/NAME-DIGEST.")] = None
    data: Data = Path("data")
    device: Device = "auto"
    jobs: Annotated[
        int, typer.Option(min=0, help="Trainings side by side; 0: one a core, or all that a cluster has room for.")
    ] = 0


@dataclass(frozen=True)
class WorkFlags:
    """How a run goes about it. No number depends on it."""

    PANEL: ClassVar = "How; no number depends on it"

    engine: Annotated[str, typer.Option(help="Who trains: local, processes of this machine, or ray, a cluster.")] = (
        "local"
    )
    address: Annotated[
        str | None,
        typer.Option(help="The Ray cluster, HOST:PORT or auto; by default one is started on this machine."),
    ] = None
    gpu_share: Annotated[
        float | None, typer.Option(min=0.01, max=1, help="Which part of a GPU each training of --engine ray takes.")
    ] = None
    shard: Annotated[
        str | None, typer.Option(help="Do a part of the plan, such as 2/3; `dual-bench report` merges the folders.")
    ] = None
    keep_weights: Annotated[
        bool, typer.Option("--keep-weights", help="Store the weights of every trained model (safetensors).")
    ] = False
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first model that fails; by default the rest goes on.")
    ] = False
    track: Annotated[
        str | None, typer.Option(help="Tell tensorboard, mlflow or wandb of every model that is done.")
    ] = None
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the time went, and keep it in profile.json.")
    ] = False


def permitted(code: Many) -> frozenset[str]:
    """The code that a file may mention; UserError where a name is none of code."""
    from dual_bench.types import UserError

    names = [name.strip() for value in code or () for name in value.split(",")]
    for name in names:
        module, colon, attribute = name.partition(":")
        if not (module and colon and attribute) or ":" in attribute:
            raise UserError(f"--code: expected package.module:attribute without settings, found '{name}'")
    return frozenset(names)


def joined(values: Many) -> list[str] | None:
    """What was given in one flag or several; UserError where that is nothing."""
    from dual_bench.catalog import split_specs
    from dual_bench.types import UserError

    if values is None:
        return None
    found = [part for value in values for part in split_specs(value)]
    if not found:
        raise UserError("expected names or numbers separated by commas, found an empty list; leave the flag out")
    return found


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer is to see it: for each argument that is a group, all flags of the group."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if is_dataclass(kind) and isinstance(kind, type)}
    parameters = [
        parameter
        for own in inspect.signature(command).parameters.values()
        for parameter in (_flags(groups[own.name]) if own.name in groups else [_flag(own, hints[own.name])])
    ]

    def flat(**given: Any) -> None:
        made = {
            name: kind(**{each.name: given.pop(each.name) for each in fields(kind)}) for name, kind in groups.items()
        }
        command(**given, **made)

    flat.__name__, flat.__doc__ = command.__name__, command.__doc__
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


def _flags(kind: Any) -> Iterable[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for each in fields(kind):
        option = copy(hints[each.name].__metadata__[0])
        option.rich_help_panel = kind.PANEL
        kind_of = hints[each.name].__origin__
        annotation: Any = Annotated[kind_of, option]
        yield inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=annotation)


def _flag(own: inspect.Parameter, hint: Any) -> inspect.Parameter:
    return own.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)
