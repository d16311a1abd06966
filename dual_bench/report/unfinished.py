"""What a run has not finished, or has lost, and which system each spec of its plan became."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from dual_bench.catalog import format_settings, parse_spec
from dual_bench.schema import RunInfo
from dual_bench.stats.frame import system_name
from dual_bench.store import Run

MATCHED = "matched"
"""The regime in which each corruption at each rate is met by a model that was trained on just that."""


_SHOWN = 4
"""Failures that are told in full."""


def unfinished(run: Run) -> tuple[str, ...]:
    """What is missing, damaged or made by different code, in plain words; nothing of a run that is whole."""
    said = [sentence for sentence in (_lacking(run), _failed(run), ended(run.info)) if sentence]
    codes = sorted({cell.code for cell in run.cells})
    if len(codes) > 1:
        said.append(f"The cells were made by different code: {'; '.join(codes)}.")
    return tuple(said)


def _lacking(run: Run) -> str:
    """Which cells are not there; nothing where all are."""
    info, missing = run.info, len(run.missing)
    if not missing:
        return ""
    gaps = " ".join(_gaps(run))
    if info.status == "partial":
        return (
            f"This folder holds a part of the plan, {len(info.cells) - missing} of {len(info.cells)} cells. {gaps} "
            "`dual-bench report` of the folders of all parts shows the whole."
        )
    return (
        f"{missing} of {len(info.cells)} cells {'is' if missing == 1 else 'are'} missing or damaged "
        f"({', '.join(digest[:12] for digest in run.missing[:8])}{', …' if missing > 8 else ''}). {gaps} Running the "
        "same command again computes what is missing."
    )


def _failed(run: Run) -> str:
    """Which of the missing cells were tried and came to nothing, and why."""
    if not run.failed:
        return ""
    whys = [
        f"{system_name(one.model, one.variant)}, trained {one.regime}, seed {one.seed}: {one.error}"
        for one in run.failed[:_SHOWN]
    ]
    more = len(run.failed) - len(whys)
    return f"{len(run.failed)} of them failed: {'; '.join(whys)}{f'; and {more} more' if more else ''}."


def ended(info: RunInfo) -> str:
    """How a run came to its end, where it did not do all that it set out to do."""
    if info.status in ("complete", "partial"):
        return ""
    what = "The run is not at its end yet, or was killed" if info.status == "running" else "The run came to no end"
    return f"{what}{f' ({info.problem})' if info.problem else ''}."


def _gaps(run: Run) -> Iterator[str]:
    """Which systems are short of cells."""
    info = run.info
    specs, regimes = list(dict.fromkeys(info.plan["models"])), info.plan["regimes"]
    each = int(info.plan["seeds"]) * info.corpus.folds
    # matched has a cell for each condition that it trains on, and the plan has the same for every model
    matched = len(info.cells) // len(specs) - each * sum(regime != MATCHED for regime in regimes)
    trained = [(system_name(c.model, c.variant), c.regime) for c in run.cells]
    systems = {system for system, _ in trained}
    for spec in specs:
        # a system that another spec names to the letter is not this one's
        system = find_system(spec, systems - {canonical(other) for other in specs if other != spec})
        for regime in regimes:
            done = trained.count((system or "", regime))
            expected = matched if regime == MATCHED else each
            if done < expected:
                yield f"{system or spec}, trained {regime}: {done} of {expected} done."


def canonical(spec: str) -> str:
    """The spec with its settings in the order of a system's name."""
    name, settings = parse_spec(spec)
    return system_name(name, format_settings(settings))


def find_system(spec: str, systems: Collection[str]) -> str | None:
    """The system that a spec of the plan became: a variant names only settings that differ from the model's own.

    >>> find_system("dual:sdm=off,width=64", ["dual", "dual:sdm=off"])
    'dual:sdm=off'
    """
    if spec in systems:
        return spec
    name, settings = parse_spec(spec)
    wanted = set(format_settings(settings).split(","))
    fitting = []
    for system in sorted(systems):
        model, own = parse_spec(system)
        if model == name and (not own or set(format_settings(own).split(",")) <= wanted):
            fitting.append(system)
    return max(fitting, key=len, default=None)
