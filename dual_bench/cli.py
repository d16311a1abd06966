"""The command line: parses, calls, prints. Exit code 2 is the user's mistake, 1 ours, 130 an interrupt.

Each command imports what it needs when it is called, so that none waits for the libraries of another.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dual_bench.cli_data import data_app
from dual_bench.screen import explained, progress, screen, tell_time

if TYPE_CHECKING:
    import pandas as pd

    from dual_bench.plan import Plan
    from dual_bench.profile import Stopwatch
    from dual_bench.report.render import Rendered
    from dual_bench.schema import StudyInfo

app = typer.Typer(
    name="dual-bench",
    help="How much does an emotion model lean on the words, and what happens when they are noisy, wrong or gone?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app)

Many = list[str] | None


def _listed(text: str) -> Any:
    return typer.Option(help=f"{text}; comma-separated, may be repeated.")


Dataset = Annotated[str | None, typer.Option(help="A corpus from `dual-bench list`, or your manifest.csv.")]
Regimes = Annotated[Many, _listed("What the model sees in training: clean, matched, mixed, modality-dropout")]
Corruptions = Annotated[Many, _listed("What happens to the test words, see `dual-bench list corruptions`")]
Rates = Annotated[Many, _listed("Nominal rates in [0, 1], or signal-to-noise ratios such as 10dB")]
Severities = Annotated[Many, _listed("In place of rates, 1 to 5: word error rates .10 .20 .35 .50 .70")]
Draws = Annotated[int | None, typer.Option(help="Noise draws at each rate.")]
Seeds = Annotated[int | None, typer.Option(help="Trainings of each model.")]
Epochs = Annotated[int | None, typer.Option(help="Epochs at most.")]
Pack = Annotated[
    str | None,
    typer.Option(help="How many seeds of a model are trained stacked, or 'auto': all or 1, whichever is faster here."),
]
Bucketing = Annotated[
    bool | None,
    typer.Option("--bucketing/--no-bucketing", help="Whether utterances of like length share a batch in training."),
]
RootSeed = Annotated[int | None, typer.Option(help="Seed of all noise and all training.")]
Dependency = Annotated[
    bool | None,
    typer.Option(
        "--dependency/--no-dependency",
        help="Whether every model is also asked what it says with modalities taken away or exchanged.",
    ),
]
Presets = Annotated[
    str | None, typer.Option(help="Settings that `tune` chose: auto (those that come along), none, or a FILE of yours.")
]
Encoding = Annotated[
    Many,
    typer.Option(
        "--encoder",
        help="MODALITY=NAME or MODALITY=NAME:setting=value, see `dual-bench list encoders`; may be repeated.",
    ),
]
TextBackend = Annotated[
    str | None, typer.Option(help="What encodes the words: torch, or openvino, which is faster on a CPU.")
]
TextPrecision = Annotated[str | None, typer.Option(help="In which precision: fp32, or bf16, which is faster.")]
MetricName = Annotated[str | None, typer.Option(help="The primary metric.")]
Name = Annotated[str | None, typer.Option(help="Name of the run and of its folder.")]
Out = Annotated[Path | None, typer.Option(help="Folder of results; by default reports/NAME-DIGEST.")]
Data = Annotated[Path, typer.Option(envvar="DUAL_BENCH_DATA", help="Folder of the real corpora.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Jobs = Annotated[int, typer.Option(min=0, help="Processes side by side; 0: one a core.")]
Profiled = Annotated[bool, typer.Option("--profile", help="Show where the time went, and keep it in profile.json.")]


@app.command()
def run(
    study: Annotated[str, typer.Argument(help="A study file, or the name of one that comes along.")] = "default",
    dataset: Dataset = None,
    models: Annotated[
        Many,
        typer.Option(
            "--model",
            "--models",
            help="Models, NAME or NAME:setting=value, or 'all'; compared with dual, or else with the first; "
            "comma-separated, may be repeated.",
        ),
    ] = None,
    regimes: Regimes = None,
    corruptions: Corruptions = None,
    rates: Rates = None,
    severities: Severities = None,
    draws: Draws = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    pack: Pack = None,
    bucketing: Bucketing = None,
    root_seed: RootSeed = None,
    dependency: Dependency = None,
    encoder: Encoding = None,
    text_backend: TextBackend = None,
    text_precision: TextPrecision = None,
    metric: MetricName = None,
    presets: Presets = None,
    name: Name = None,
    out: Out = None,
    data: Data = Path("data"),
    device: Device = "auto",
    jobs: Jobs = 0,
    profile: Profiled = False,
) -> None:
    """Train the models of a study, corrupt the test words, score, compare, and write a report."""
    with explained():
        from dual_bench.profile import Stopwatch

        watch = Stopwatch() if profile else None
        from dual_bench.plan import read_plan

        given = _overrides(
            dataset, regimes, corruptions, rates, severities, draws, seeds, root_seed, dependency, encoder
        ) | _training(epochs, pack, bucketing)
        given |= _text_settings(encoder, text_backend, text_precision)
        named = {"models": _models(models), "metric": metric, "presets": presets, "name": name}
        given |= {key: value for key, value in named.items() if value is not None}
        if dataset is not None and metric is None:
            given["metric"] = ""  # the study's own may not suit this corpus
        _carry_out(read_plan(study, given), None, data, out, device, jobs, watch)


@app.command()
def ablate(
    study: Annotated[str, typer.Argument(help="A study file, or the name of one that comes along.")],
    dataset: Dataset = None,
    regimes: Regimes = None,
    corruptions: Corruptions = None,
    rates: Rates = None,
    severities: Severities = None,
    draws: Draws = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    pack: Pack = None,
    bucketing: Bucketing = None,
    root_seed: RootSeed = None,
    dependency: Dependency = None,
    encoder: Encoding = None,
    text_backend: TextBackend = None,
    text_precision: TextPrecision = None,
    metric: MetricName = None,
    presets: Presets = None,
    margin: Annotated[
        float | None, typer.Option(help="The smallest difference that matters, in the unit of the metric.")
    ] = None,
    primary: Annotated[
        Many, _listed("The quantities that the expectation is about: clean, 'word-drop area', 'word-drop 1.0'")
    ] = None,
    name: Name = None,
    out: Out = None,
    data: Data = Path("data"),
    device: Device = "auto",
    jobs: Jobs = 0,
    profile: Profiled = False,
) -> None:
    """Train a baseline and its variants, and say which part makes a difference, which does not, and what is open."""
    with explained():
        from dual_bench.profile import Stopwatch

        watch = Stopwatch() if profile else None
        from dual_bench.ablation import read_study

        given = _overrides(
            dataset, regimes, corruptions, rates, severities, draws, seeds, root_seed, dependency, encoder
        ) | _training(epochs, pack, bucketing)
        given |= _text_settings(encoder, text_backend, text_precision)
        named = {"metric": metric, "margin": margin, "primary": _joined(primary), "presets": presets, "name": name}
        given |= {key: value for key, value in named.items() if value is not None}
        plan, record = read_study(study, given)
        screen.print(f"study: {record.where}", soft_wrap=True, highlight=False)
        _carry_out(plan, record, data, out, device, jobs, watch)


@app.command()
def tune(
    study: Annotated[str, typer.Argument(help="A study file, or the name of one that comes along.")] = "default",
    dataset: Dataset = None,
    models: Annotated[Many, _listed("Models, NAME or NAME:setting=value (which stays as it is), or 'all'")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Settings that each model may try, its default first.")] = 8,
    regimes: Regimes = None,
    corruptions: Corruptions = None,
    rates: Rates = None,
    severities: Severities = None,
    epochs: Epochs = None,
    bucketing: Bucketing = None,
    root_seed: RootSeed = None,
    encoder: Encoding = None,
    text_backend: TextBackend = None,
    text_precision: TextPrecision = None,
    out: Annotated[
        Path | None, typer.Option(help="The preset file; by default reports/tuning-CORPUS.toml, its trials beside it.")
    ] = None,
    data: Data = Path("data"),
    device: Device = "auto",
    jobs: Jobs = 0,
) -> None:
    """Choose the settings of every model on validation data, with as many trials for each, for --presets of a run."""
    with explained():
        from dual_bench import tuning
        from dual_bench.features.cache import default_folder
        from dual_bench.plan import read_plan

        given = _overrides(
            dataset, regimes, corruptions, rates, severities, None, None, root_seed, None, encoder
        ) | _training(epochs, None, bucketing)
        given |= _text_settings(encoder, text_backend, text_precision)
        given |= {"metric": ""} | ({} if models is None else {"models": _models(models)})
        with progress() as report:
            found = tuning.tune(read_plan(study, given), trials, data, default_folder(), out, device, jobs, report)
        screen.print(f"{found.trained} trials trained, {found.known} found finished.")
        screen.print(_summary(found.summary()))
        screen.print(f"presets: {found.file}", soft_wrap=True, highlight=False)


def _overrides(
    dataset: str | None,
    regimes: Many,
    corruptions: Many,
    rates: Many,
    severities: Many,
    draws: int | None,
    seeds: int | None,
    root_seed: int | None,
    dependency: bool | None,
    encoders: Many,
) -> dict[str, Any]:
    """The fields of a study that flags replace."""
    from dual_bench.features.encoder import by_modality

    chosen = {
        "dataset": dataset,
        "regimes": _joined(regimes),
        "corruptions": _joined(corruptions),
        "rates": _joined(rates),
        "severities": _joined(severities),
        "draws": draws,
        "seeds": seeds,
        "root_seed": root_seed,
        "dependency": dependency,
        "encoders": None if encoders is None else by_modality(encoders),
    }
    return {key: value for key, value in chosen.items() if value is not None}


def _training(epochs: int | None, pack: str | None, bucketing: bool | None) -> dict[str, Any]:
    """The table ``training`` of a study, as far as flags replace it."""
    given = {"epochs": epochs, "pack": pack, "bucketing": bucketing}
    chosen = {key: value for key, value in given.items() if value is not None}
    return {"training": chosen} if chosen else {}


def _text_settings(encoders: Many, backend: str | None, precision: str | None) -> dict[str, dict[str, str]]:
    """What flags set of the text encoder, whichever a study has."""
    from dual_bench.catalog import parse_spec
    from dual_bench.features.encoder import by_modality
    from dual_bench.plan import TEXT_SETTINGS
    from dual_bench.types import UserError

    chosen = {key: value for key, value in (("backend", backend), ("precision", precision)) if value is not None}
    spec = by_modality(encoders or ()).get("text", "")
    for key, value in parse_spec(spec)[1].items():
        if chosen.get(key, value) != value:
            raise UserError(f"--text-{key} {chosen[key]} contradicts --encoder text={spec}; leave one of them out")
    return {TEXT_SETTINGS: chosen} if chosen else {}


def _carry_out(
    plan: Plan,
    study: StudyInfo | None,
    data: Path,
    out: Path | None,
    device: str,
    jobs: int,
    watch: Stopwatch | None,
) -> None:
    """Do what is still to do, render the report, and say where the time went if there is a watch on it."""
    from dual_bench import runner
    from dual_bench.features.cache import default_folder

    with progress() as report:
        if watch is not None:
            report = watch.watching(report)
        result = runner.run(plan, data, default_folder(), Path("reports"), out, device, jobs, report, study)
    elsewhere = f", {result.found} taken from other runs" if result.found else ""
    screen.print(
        f"{result.trained} models trained, {result.skipped} found finished{elsewhere}; "
        f"{result.encoded} items encoded now."
    )
    if watch is None:
        _render(result.folder)
        return
    watch.begin("report")
    _render(result.folder)
    tell_time(watch.stages(), result)


@app.command()
def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders that `run` or `ablate` wrote; several are merged into one comparison.", show_default=False
        ),
    ] = None,
    formats: Annotated[
        Many,
        typer.Option("--format", help="html, md, csv (these by default), latex; comma-separated, may be repeated."),
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(help="A .csv or .parquet file of predictions made elsewhere; several are compared by ranks."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="The primary metric of --predictions.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the report; by default that of the run, or a new one in reports/."),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Show the page when it is done.")] = False,
) -> None:
    """Render the report of a run, or one of several, from stored rows alone; or of predictions of another toolkit."""
    with explained():
        from dual_bench.catalog import did_you_mean
        from dual_bench.report.render import FORMATS, USUAL, render, render_predictions
        from dual_bench.types import UserError

        chosen = _joined(formats) or list(USUAL)
        for name in chosen:
            if name not in FORMATS:
                raise UserError(
                    f"expected formats among {', '.join(FORMATS)}, found '{name}'{did_you_mean(name, FORMATS)}"
                )
        if show and "html" not in chosen:
            raise UserError(f"--open shows the page, but --format asks for {', '.join(chosen)} alone; add html")
        if bool(folders) == bool(predictions):
            found = "both" if folders else "neither"
            raise UserError(f"expected a FOLDER or --predictions, found {found}; name one of them")
        if metric is not None and not predictions:
            raise UserError("--metric goes with --predictions; a run has its own metric")
        with screen.status("rendering the report"):
            if predictions:
                rendered = render_predictions(predictions, metric, out, Path("reports"), chosen)
            else:
                rendered = render(*(folders or ()), out=out, formats=chosen)
        _told(rendered)
        if show:
            typer.launch(str(rendered.files[0]))


@app.command()
def preview(
    text: Annotated[str, typer.Argument(help="A sentence.")],
    corruption: Annotated[Many, _listed("Which corruptions; by default all")] = None,
    rate: Annotated[str, typer.Option(help="Nominal rate in [0, 1], or a signal-to-noise ratio such as 10dB.")] = "0.3",
    seed: Annotated[int, typer.Option(help="Another seed, another noise.")] = 0,
) -> None:
    """Show what each corruption makes of a sentence, and how much of it was hit."""
    with explained():
        from dual_bench.preview import previews

        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for heading in ("corruption", "text", "WER", "CER", "dropped"):
            table.add_column(heading, justify="right" if heading.isupper() or heading == "dropped" else "left")
        for found in previews(text, _joined(corruption) or (), rate, seed):
            if found.measured is None:
                table.add_row(found.name, Text(found.why_not, style="dim"))
                continue
            shown = (found.measured.wer, found.measured.cer, found.measured.dropped)
            numbers = ("–" if isnan(share) else f"{share:.2f}" for share in shown)
            table.add_row(found.name, _coloured(found.words), *numbers)
        screen.print(table)
        screen.print(f"nominal rate {rate}; {_LEGEND if screen.color_system else 'lost words are not shown'}")


_STYLES = {"same": "", "changed": "yellow", "added": "green", "lost": "red strike"}
_LEGEND = "[yellow]changed[/yellow], [green]added[/green], [red strike]lost[/red strike]"


def _coloured(words: Sequence[tuple[str, str]]) -> Text:
    """The words with what became of them; those that are lost are shown where they can be struck out."""
    shown = [(word, _STYLES[kind]) for word, kind in words if kind != "lost" or screen.color_system]
    return Text(" ").join(Text(word, style=style) for word, style in shown)


@app.command()
def check(
    target: Annotated[str, typer.Argument(help="A name, package.module:attribute, or your manifest.csv.")],
    kind: Annotated[
        str | None, typer.Option("--as", help="model, corruption or corpus, where TARGET leaves that open.")
    ] = None,
    data: Data = Path("data"),
) -> None:
    """Find out whether a model, corruption or corpus keeps what its kind promises; exit code 1 where it does not."""
    with explained():
        from dual_bench.contract.target import examine

        with screen.status(f"checking {escape(target)}"):
            found, each = examine(target, kind, data)
            results = list(each)
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        styles = {"ok": "green", "FAILS": "bold red", "skipped": "dim"}
        for result in results:
            detail = {"ok": "", "FAILS": f":\n{result.detail}", "skipped": f" ({result.detail})"}[result.verdict]
            table.add_row(Text(result.verdict, styles[result.verdict]), Text(result.promise + detail))
        screen.print(table)
        failed = sum(result.verdict == "FAILS" for result in results)
        verdict = f"{failed} of {len(results)} checks fail" if failed else "nothing fails"
        screen.print(f"{found} {escape(target)}: {verdict}", highlight=False)
        if failed:
            sys.exit(1)


@app.command("list")
def list_parts(
    kind: Annotated[
        str | None,
        typer.Argument(help="corpora, models, corruptions, metrics, encoders, layouts, studies or ablations."),
    ] = None,
) -> None:
    """Show the corpora, models, corruptions, metrics, encoders, layouts, studies and ablations there are."""
    with explained():
        from dual_bench.catalog import CATALOGS, did_you_mean
        from dual_bench.study import questions
        from dual_bench.types import UserError

        shelves = {title: {n: e.summary for n, e in catalog.parts.items()} for title, catalog in CATALOGS.items()}
        shelves |= {"studies": questions(ablations=False), "ablations": questions(ablations=True)}
        if kind is not None and kind not in shelves:
            raise UserError(f"nothing to list under '{kind}'{did_you_mean(kind, shelves)}")
        for title, parts in shelves.items():
            if kind in (None, title):
                table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
                for part, summary in parts.items():
                    table.add_row(f"[bold]{escape(part)}[/bold]", escape(summary))
                screen.print(table, "")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        screen.print(metadata.version("dual-bench"))
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """How much does an emotion model lean on the words, and what happens when they are noisy, wrong or gone?"""
    # so that my.module:attribute is found here, also by worker processes, which inherit the path; last, so that no file
    # in this folder hides an installed package
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)


def _joined(values: Many) -> list[str] | None:
    from dual_bench.catalog import split_specs
    from dual_bench.types import UserError

    if values is None:
        return None
    joined = [part for value in values for part in split_specs(value)]
    if not joined:
        raise UserError("expected names or numbers separated by commas, found an empty list; leave the flag out")
    return joined


def _models(values: Many) -> list[str] | None:
    from dual_bench.catalog import CATALOGS

    joined = _joined(values)
    return list(CATALOGS["models"].parts) if joined == ["all"] else joined


def _render(folder: Path) -> None:
    from dual_bench.report.render import render

    with screen.status("rendering the report"):
        rendered = render(folder)
    _told(rendered)


def _told(rendered: Rendered) -> None:
    screen.print(_summary(rendered.summary))
    screen.print(f"report: {rendered.files[0]}", soft_wrap=True, highlight=False)


def _summary(frame: pd.DataFrame) -> Table:
    # narrow enough for 80 columns
    table = Table(title="Summary", title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in frame.columns:
        table.add_column(str(column), justify="left" if frame[column].dtype.kind not in "fi" else "right")
    for row in frame.itertuples(index=False):
        table.add_row(*(escape(str(value)) for value in row))
    return table


if __name__ == "__main__":
    app()
