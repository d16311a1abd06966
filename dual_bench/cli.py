"""The command line: parses, calls, prints. Exit code 2 is the user's mistake, 1 ours, 130 an interrupt.

Each command imports what it needs when it is called, so that none waits for the libraries of another.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dual_bench.cli_data import data_app
from dual_bench.flags import (
    Code,
    Data,
    DesignFlags,
    Device,
    Many,
    PlaceFlags,
    StudyFlags,
    WorkFlags,
    joined,
    listed,
    permitted,
    with_flags,
)
from dual_bench.screen import explained, progress, screen, tell_time

if TYPE_CHECKING:
    import pandas as pd

    from dual_bench.contract.checks import Finding
    from dual_bench.plan import Plan
    from dual_bench.profile import Stopwatch
    from dual_bench.report.render import Rendered
    from dual_bench.runner import Manner
    from dual_bench.schema import StudyInfo

app = typer.Typer(
    name="dual-bench",
    help="How much does an emotion model lean on the words, and what happens when they are noisy, wrong or gone?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app)

Study = Annotated[str, typer.Argument(help="A study file, or the name of one that comes along.")]
Models = Annotated[
    Many,
    typer.Option(
        "--model",
        "--models",
        help="Models, NAME or NAME:setting=value, or 'all'; compared with dual, or else with the first; "
        "comma-separated, may be repeated.",
        rich_help_panel=DesignFlags.PANEL,
    ),
]
Part = Annotated[
    str | None, typer.Option(help="A part of the plan, such as 2/3; `dual-bench report` merges the folders.")
]
ENGINES = ("local", "ray")


@app.command()
@with_flags
def run(
    study: Study = "default",
    models: Models = None,
    *,
    design: DesignFlags,
    more: StudyFlags,
    place: PlaceFlags,
    work: WorkFlags,
) -> None:
    """Train the models of a study, corrupt the test words, score, compare, and write a report."""
    with explained():
        watch = _watch(work)
        from dual_bench.plan import read_plan

        plan = read_plan(study, _compared(models, design, more), design.permitted())
        _carry_out(plan, None, place, work, watch)


@app.command()
@with_flags
def ablate(
    study: Annotated[str, typer.Argument(help="A study file, or the name of one that comes along.")],
    margin: Annotated[
        float | None, typer.Option(help="The smallest difference that matters, in the unit of the metric.")
    ] = None,
    primary: Annotated[
        Many, listed("The quantities that the expectation is about: clean, 'word-drop area', 'word-drop 1.0'")
    ] = None,
    *,
    design: DesignFlags,
    more: StudyFlags,
    place: PlaceFlags,
    work: WorkFlags,
) -> None:
    """Train a baseline and its variants, and say which part makes a difference, which does not, and what is open."""
    with explained():
        watch = _watch(work)
        from dual_bench.ablation import read_study

        named = {"margin": margin, "primary": joined(primary)}
        given = more.fields(design) | {key: value for key, value in named.items() if value is not None}
        plan, record = read_study(study, given, design.permitted())
        screen.print(f"study: {record.where}", soft_wrap=True, highlight=False)
        _carry_out(plan, record, place, work, watch)


@app.command("plan")
@with_flags
def foresee(
    study: Study = "default",
    models: Models = None,
    *,
    design: DesignFlags,
    more: StudyFlags,
    place: PlaceFlags,
    shard: Part = None,
) -> None:
    """Say what a run or an ablation would take, before anything runs: time, disk, memory, and what is done already."""
    with explained():
        began = time.perf_counter()
        from dual_bench.estimate import estimate, rows
        from dual_bench.features.cache import default_folder
        from dual_bench.prepare import ask
        from dual_bench.runner import folder_of
        from dual_bench.shards import Shard
        from dual_bench.training import resolve_device

        part = None if shard is None else Shard.parse(shard)
        plan, record = _any_study(study, models, design, more)
        with progress() as report:
            asked = ask(plan, record, place.data, default_folder(), resolve_device(place.device), report)
            folder = folder_of(asked, Path("reports"), place.out, part)
            before = time.perf_counter() - began
            found = estimate(asked, folder, default_folder(), place.jobs, part, before, report)
        table = Table(title=f"{plan.name}, to {folder.path}", title_justify="left", show_header=False, box=None)
        for what, how_much in rows(found):
            table.add_row(what, escape(how_much))
        screen.print(table)


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, at work or not.")],
) -> None:
    """Say how far a run is: who works on it, how long it will take, what failed, what was damaged."""
    with explained():
        from dual_bench import status as progress_of

        found = progress_of.status(folder)
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for heading in progress_of.HEADINGS:
            table.add_column(heading, justify="left" if heading in ("system", "regime") else "right")
        for row in progress_of.rows(found):
            table.add_row(*map(escape, row))
        screen.print(table)
        for sentence in progress_of.sentences(found):
            screen.print(sentence, markup=False, highlight=False, soft_wrap=True)


@app.command()
@with_flags
def tune(
    study: Study = "default",
    models: Annotated[Many, listed("Models, NAME or NAME:setting=value (which stays as it is), or 'all'")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Settings that each model may try, its default first.")] = 8,
    *,
    design: DesignFlags,
    out: Annotated[
        Path | None, typer.Option(help="The preset file; by default reports/tuning-CORPUS.toml, its trials beside it.")
    ] = None,
    data: Data = Path("data"),
    device: Device = "auto",
    jobs: Annotated[int, typer.Option(min=0, help="Processes side by side; 0: one a core.")] = 0,
) -> None:
    """Choose the settings of every model on validation data, with as many trials for each, for --presets of a run."""
    with explained():
        from dual_bench import tuning
        from dual_bench.features.cache import default_folder
        from dual_bench.plan import read_plan

        given = design.fields() | {"metric": ""} | ({} if models is None else {"models": _models(models)})
        with progress() as report:
            plan = read_plan(study, given, design.permitted())
            found = tuning.tune(plan, trials, data, default_folder(), out, device, jobs, report)
        screen.print(f"{found.trained} trials trained, {found.known} found finished.")
        screen.print(_summary(found.summary()))
        screen.print(f"presets: {found.file}", soft_wrap=True, highlight=False)


def _any_study(study: str, models: Many, design: DesignFlags, more: StudyFlags) -> tuple[Plan, StudyInfo | None]:
    """The plan of a comparison, or of an ablation with what it asks."""
    from dual_bench.ablation import read_study
    from dual_bench.plan import read_plan
    from dual_bench.study import is_ablation, read_file
    from dual_bench.types import UserError

    if not is_ablation(read_file(study)[0]):
        return read_plan(study, _compared(models, design, more), design.permitted()), None
    if models is not None:
        raise UserError(f"{study} is an ablation, which has its own models; leave --models out")
    return read_study(study, more.fields(design), design.permitted())


def _compared(models: Many, design: DesignFlags, more: StudyFlags) -> dict[str, Any]:
    """What flags put in place of the fields of a comparison."""
    given = more.fields(design) | ({} if models is None else {"models": _models(models)})
    if design.dataset is not None and more.metric is None:
        given["metric"] = ""  # the study's own may not suit this corpus
    return given


def _watch(work: WorkFlags) -> Stopwatch | None:
    """A watch on the time, if one is asked for: before anything large is imported."""
    from dual_bench.profile import Stopwatch

    return Stopwatch() if work.profile else None


def _carry_out(
    plan: Plan, study: StudyInfo | None, place: PlaceFlags, work: WorkFlags, watch: Stopwatch | None
) -> None:
    """Do what is still to do, render the report, and say where the time went if there is a watch on it."""
    from dual_bench import runner
    from dual_bench.features.cache import default_folder
    from dual_bench.types import DualBenchError

    with _manner(place, work) as how, progress() as report:
        if watch is not None:
            report = watch.watching(report)
        result = runner.run(
            plan,
            place.data,
            default_folder(),
            Path("reports"),
            place.out,
            place.device,
            place.jobs,
            report,
            study,
            how,
        )
    elsewhere = f", {result.found} taken from other runs" if result.found else ""
    screen.print(
        f"{result.trained} models trained, {result.skipped} found finished{elsewhere}; "
        f"{result.encoded} items encoded now."
    )
    if watch is not None:
        watch.begin("report")
    if result.trained + result.skipped + result.found:
        _render(result.folder)
    if watch is not None:
        tell_time(watch.stages(), result)
    if result.failed:
        more = f"; and {len(result.failed) - 1} more" if len(result.failed) > 1 else ""
        raise DualBenchError(
            f"{result.failed[0]}{more}; the same command tries again, and {result.folder}/cells/*.failed.json tells "
            "where in the code it went wrong"
        )


@contextmanager
def _manner(place: PlaceFlags, work: WorkFlags) -> Iterator[Manner]:
    """How the run is to go about it; a cluster is connected to as long as the block lasts."""
    from dual_bench.catalog import did_you_mean
    from dual_bench.runner import Manner
    from dual_bench.shards import Shard
    from dual_bench.types import UserError

    if work.engine not in ENGINES:
        raise UserError(f"unknown engine '{work.engine}'{did_you_mean(work.engine, ENGINES)}")
    idle = [flag for flag, value in (("--address", work.address), ("--gpu-share", work.gpu_share)) if value is not None]
    if work.engine == "local" and idle:
        raise UserError(f"{idle[0]} is for a cluster; add --engine ray, or leave it out")
    how = Manner(
        shard=None if work.shard is None else Shard.parse(work.shard),
        weights=work.keep_weights,
        fail_fast=work.fail_fast,
        track=work.track or "",
    )
    if work.engine == "local":
        yield how
        return
    from dual_bench.cluster import connected
    from dual_bench.training import resolve_device

    on_gpu = resolve_device(place.device) == "cuda"
    if work.gpu_share is not None and not on_gpu:
        raise UserError("--gpu-share is for models that are trained on a GPU, and there is none here; leave it out")
    with connected(work.address or "", place.jobs, (work.gpu_share or 1.0) if on_gpu else 0.0) as engine:
        yield replace(how, engine=engine)


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

        chosen = joined(formats) or list(USUAL)
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
    corruption: Annotated[Many, listed("Which corruptions; by default all")] = None,
    rate: Annotated[str, typer.Option(help="Nominal rate in [0, 1], or a signal-to-noise ratio such as 10dB.")] = "0.3",
    seed: Annotated[int, typer.Option(help="Another seed, another noise.")] = 0,
) -> None:
    """Show what each corruption makes of a sentence, and how much of it was hit."""
    with explained():
        from dual_bench.preview import previews

        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for heading in ("corruption", "text", "WER", "CER", "dropped"):
            table.add_column(heading, justify="right" if heading.isupper() or heading == "dropped" else "left")
        for found in previews(text, joined(corruption) or (), rate, seed):
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
        _judged(f"{found} {escape(target)}", results)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    retrain: Annotated[
        str, typer.Option(metavar="N", help="How many trainings, drawn at random, are done again, or 'all'.")
    ] = "1",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Draws them; by default another each time, which is told.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Where the corpus lies here; by default where the plan has it.")
    ] = None,
    code: Code = None,
    data: Data = Path("data"),
    jobs: Annotated[int, typer.Option(min=0, help="Trainings side by side; 0: one a core.")] = 0,
) -> None:
    """Find out whether a run holds: its digests, labels, texts, predictions and report, made again; exit code 1 where
    one does not, 3 where something could not be checked."""
    with explained():
        import secrets

        from dual_bench.features.cache import default_folder
        from dual_bench.types import UserError
        from dual_bench.verification import verify

        if retrain != "all" and not retrain.isdecimal():
            raise UserError(f"--retrain: expected a whole number from 0, or all, found '{retrain}'")
        sample = None if retrain == "all" else int(retrain)
        drawn_by = secrets.randbelow(1_000_000) if seed is None else seed
        with progress() as report:
            found = verify(folder, data, default_folder(), drawn_by, sample, dataset, permitted(code), jobs, report)
            results = list(found)
        _judged(f"run {escape(str(folder))}", results)


def _judged(what: str, results: Sequence[Finding]) -> None:
    """Show the findings; exit code 1 where a check fails, 3 where one could not be made that ought to be."""
    from dual_bench.shown import legible

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    styles = {"ok": "green", "FAILS": "bold red", "skipped": "dim", "unable": "yellow"}
    for result in results:
        start = ":\n{}" if result.verdict == "FAILS" else " ({})"
        detail = start.format(result.detail) if result.detail else ""
        table.add_row(
            Text(result.verdict, styles[result.verdict]), Text(legible(result.promise + detail), overflow="fold")
        )
    screen.print(table)
    failed, unable = (sum(result.verdict == one for result in results) for one in ("FAILS", "unable"))
    found = [f"{failed} of {len(results)} checks fail"] if failed else []
    found += [f"{unable} of {len(results)} checks could not be made"] if unable else []
    screen.print(f"{what}: {', '.join(found) or 'nothing fails'}", highlight=False, soft_wrap=True)
    if found:
        sys.exit(1 if failed else 3)


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


def _models(values: Many) -> list[str] | None:
    from dual_bench.catalog import CATALOGS

    named = joined(values)
    return list(CATALOGS["models"].parts) if named == ["all"] else named


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
