"""The commands of ``dual-bench data``: raw media, from a download to a folder that a run can read."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dual_bench.screen import explained, progress, screen

if TYPE_CHECKING:
    from rich.progress import TaskID

    from dual_bench.inspection import Fault, Inspection

data_app = typer.Typer(name="data", help="Raw media: fetch, check, extract and export.", no_args_is_help=True)

Where = Annotated[Path, typer.Argument(help="The folder, manifest.csv or .pkl of a corpus, as its owners publish it.")]
LayoutSpec = Annotated[
    str | None, typer.Option("--layout", help="NAME or NAME:setting=value, where it cannot be told from the folder.")
]
Jobs = Annotated[int, typer.Option(min=0, help="Processes that decode side by side; 0: one a core.")]
_SHOWN = 10
_LOST = {"audio": "voice", "vision": "face"}


@data_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="meld.")],
    out: Annotated[Path, typer.Option(help="The folder to put it in; the archive takes as much room again.")] = Path(
        "corpora"
    ),
) -> None:
    """Download a corpus from its public address, and unpack it; goes on where it was stopped."""
    with explained():
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        from dual_bench.datasets.fetch import fetch, find

        remote = find(name)
        screen.print(f"{remote.licence}.", soft_wrap=True, highlight=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with Progress(*columns, console=screen) as shown:
            bars: dict[str, TaskID] = {}

            def report(done: int, total: int, what: str) -> None:
                if what not in bars:
                    bars[what] = shown.add_task(escape(what), total=None)
                shown.update(bars[what], completed=done, total=total or None)

            folder = fetch(remote, out, report)
        _next("data", "check", folder)


@data_app.command()
def check(
    path: Where,
    layout: LayoutSpec = None,
    fast: Annotated[bool, typer.Option("--fast", help="Only open every clip; do not decode it to its end.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write everything that was found to this file, too.")] = None,
    jobs: Jobs = 0,
) -> None:
    """Say what is there, missing, broken, or twice; exit code 1 where a clip is missing or does not decode."""
    with explained():
        from dual_bench.datasets.source import find_layout
        from dual_bench.inspection import inspect
        from dual_bench.store import write_text

        found, settings = find_layout(path, layout)
        source = found.read(path, **settings)
        with progress() as report:
            inspection = inspect(source, found.name, not fast, jobs, report)
        if json is not None:
            write_text(json, inspection.model_dump_json(indent=1) + "\n")
        _show(inspection, path)
        if inspection.faults:
            sys.exit(1)


def _show(found: Inspection, root: Path) -> None:
    screen.print(f"{found.name}, layout {found.layout}: {found.utterances} utterances", highlight=False)
    parts = found.parts.values()
    table = _table("", *found.parts)
    for what in ("utterances", "clusters", "speakers"):
        table.add_row(what, *(str(getattr(part, what)) for part in parts))
    for name in next(iter(parts)).classes:
        table.add_row(escape(f"  {name}"), *(str(part.classes[name]) for part in parts))
    screen.print(table)
    media = found.media.values()
    table = _table("", *found.media)
    table.add_row("clips named", *(str(m.clips) for m in media))
    for what in ("missing", "broken", "silent"):
        table.add_row(f"  {what}", *(str(len(getattr(m, what))) for m in media))
    table.add_row("length in all", *(str(timedelta(seconds=round(3600 * m.hours))) for m in media))
    for place, what in enumerate(("shortest", "median", "longest")):
        table.add_row(f"  {what}, s", *("–" if m.seconds is None else f"{m.seconds[place]:.2f}" for m in media))
    screen.print(table)
    for modality, one in found.media.items():
        kinds = "; ".join(f"{count} {kind}" for kind, count in one.formats.items())
        screen.print(f"{modality}: {kinds or 'nothing that decodes'}", highlight=False)
    for heading, what in (("missing", "missing"), ("does not decode", "broken")):
        _listed(heading, _faults({m: getattr(one, what) for m, one in found.media.items()}, root))
    _listed("silent", (name for one in media for name in one.silent))
    _listed("asked for behind the end of the file", dict.fromkeys(name for one in media for name in one.beyond))
    _listed("not as expected", found.deviations)
    _listed("named by no row", (_relative(name, root) for name in found.unused))
    twice = sorted(found.duplicates, key=lambda d: -len(d.text))
    lines = (f"“{d.text}” ({d.speaker or 'unknown'}): {', '.join(d.utterances)}" for d in twice)
    _listed("the same words by the same speaker in two parts, longest first", lines)
    if not found.decoded:
        screen.print("Clips were only opened; without --fast each is decoded to its end.")


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(escape(heading), justify="right" if place else "left")
    return table


def _relative(file: str, root: Path) -> str:
    return str(Path(file).relative_to(root)) if Path(file).is_relative_to(root) else file


def _faults(by_modality: Mapping[str, Sequence[Fault]], root: Path) -> list[str]:
    """A line for each clip, whatever it lacks."""
    lacking: dict[Fault, list[str]] = {}
    for modality, faults in by_modality.items():
        for fault in faults:
            lacking.setdefault(fault, []).append(modality)
    return [
        f"{fault.utterance} ({' and '.join(modalities)}): {_relative(fault.file, root)} {fault.reason}"
        for fault, modalities in lacking.items()
    ]


def _listed(heading: str, lines: Iterable[str]) -> None:
    """The first of some lines, and how many more there are."""
    every = list(lines)
    if every:
        screen.print(f"[bold]{heading}[/bold] ({len(every)})", highlight=False)
        for line in every[:_SHOWN]:  # names of files are in it, and may hold anything
            shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
            screen.print(f"  {escape(shown)}", soft_wrap=True, highlight=False)
        if len(every) > _SHOWN:
            screen.print(f"  … and {len(every) - _SHOWN} more")


@data_app.command()
def extract(
    path: Where,
    layout: LayoutSpec = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(help="MODALITY=ENCODER, see `dual-bench list encoders`; may be repeated.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the features; by default PATH-features.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    jobs: Jobs = 0,
) -> None:
    """Decode every clip and make its features, once; what fails is named, and its utterance stays."""
    with explained():
        from dual_bench.datasets.source import find_layout
        from dual_bench.extraction import extract, made_by
        from dual_bench.features.encoder import by_modality, encoders_of
        from dual_bench.inspection import Fault
        from dual_bench.training import resolve_device
        from dual_bench.types import DualBenchError, UserError

        found, settings = find_layout(path, layout)
        named = by_modality(encoder or [])
        if "text" in named:
            raise UserError("words are encoded when models read them: dual-bench run --encoder text=… chooses how")
        chosen = encoders_of(named, resolve_device(device))
        home = path if path.name not in ("", "..") else path.resolve()
        folder = out or home.with_name(f"{home.stem if home.is_file() else home.name}-features")
        with progress() as report:
            source = found.read(path, **settings)
            for modality in named:
                if not any(m == modality for m, _, _ in source.clips()):
                    raise UserError(f"--encoder {modality}=…: {source.name} has no clips of {modality} to encode")
            spec = layout or found.name
            done = extract(source, spec, folder, chosen.audio, chosen.vision, made_by(), jobs, report)
        faults: dict[str, list[Fault]] = {}
        for p in done.problems:
            faults.setdefault(p.modality, []).append(Fault(utterance=p.utterance, file=p.file, reason=p.reason))
        _listed("absent; the utterance stays", _faults(faults, path))
        _listed("not as expected", source.deviations)
        lost = " and ".join(f"{len(faults.get(m, ()))} without {what}" for m, what in _LOST.items())
        screen.print(f"{done.utterances} utterances, {lost}; {done.decoded} decoded now.", highlight=False)
        for modality, what in _LOST.items():
            if modality in faults and len(faults[modality]) == sum(m == modality for m, _, _ in source.clips()):
                raise DualBenchError(f"not one clip gives a {what}; {folder / 'problems.csv'} says why")
        _next("run", "--dataset", folder)


def _next(*arguments: str | Path) -> None:
    command = shlex.join(["dual-bench", *map(str, arguments)])
    screen.print(f"next: {command}", soft_wrap=True, highlight=False, markup=False)


@data_app.command()
def export(
    corpus: Annotated[str, typer.Argument(help="A corpus with waveforms and frames, see `dual-bench list corpora`.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    layout: Annotated[str, typer.Option(help="How to arrange it: meld.")] = "meld",
    data: Annotated[Path, typer.Option(envvar="DUAL_BENCH_DATA", help="Folder of the real corpora.")] = Path("data"),
    jobs: Jobs = 0,
) -> None:
    """Render a corpus to media and tables, as if it had been recorded."""
    with explained():
        from dual_bench.catalog import did_you_mean
        from dual_bench.datasets.export import check_free, export_meld
        from dual_bench.plan import load_corpus
        from dual_bench.types import UserError

        if layout != "meld":
            raise UserError(f"--layout: expected meld, found '{layout}'{did_you_mean(layout, ['meld'])}")
        check_free(folder)  # before a minute is spent on the corpus
        with progress() as report:
            report("corpus", 0, 0, corpus)
            made = load_corpus(corpus, data)
            clips = export_meld(made, folder, jobs, lambda done, total: report("media", done, total, "rendering"))
        screen.print(f"{clips} clips of {len(made)} utterances.")
        _next("data", "extract", folder)
