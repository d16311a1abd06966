"""Do the tests notice when the code is wrong? Mutation testing of the parts that all numbers rest on.

    python benchmarks/mutants.py --sample 300
    python benchmarks/mutants.py stats --only '*.ranks.*' --seconds 20

mutmut writes the mutants, each with one small change: an operator, a number, a text, an argument. It leaves out what
has a decorator, and what is outside functions. pytest collects the tests once and runs each on the code as it is, to
see which functions it calls and how long it takes; then each mutant gets a process of its own, which is forked from
there and runs tests that call the changed function until one fails: first those that killed others of this function,
then the quickest. (mutmut's own runner begins pytest anew for each mutant, which takes longer than the tests do.)

A mutant is killed where a test fails, and survives where none does, or where none calls the function. One that runs ten
times as long as its tests is timed out, and does not count as killed. Tests that start processes of their own test
the code as it is in these, and hypothesis draws few examples, so that a share found here is a lower bound.
"""

from __future__ import annotations

import argparse
import difflib
import gc
import math
import os
import random
import resource
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib import import_module
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

import mutmut.mutation.trampoline as trampoline
import pytest
from mutmut.mutation.file_mutation import mutate_file_contents
from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parents[1]
GROUPS = {  # the code, and the tests that say what it promises
    "seeding": (("seeding.py",), ("test_noise",)),
    "metrics": (("metrics.py",), ("test_metrics", "test_confidence")),
    "store": (("store.py",), ("test_store",)),
    "corruptions": (
        ("corruptions/*.py",),
        (
            "contract/test_corruptions",
            "test_corruptions",
            "test_measure",
            "test_noise",
            "test_recogniser",
            "test_speech",
        ),
    ),
    "stats": (
        ("stats/*.py",),
        (
            *("test_dependency", "test_effects", "test_intervals", "test_paired", "test_ranks", "test_resampling"),
            *("test_stats", "test_variance"),
        ),
    ),
}
SLOWEST = 1.0
"""Seconds of a test above which it is not run on mutants."""
EXAMPLES = 10
"""What hypothesis draws for a test that does not say how many it wants."""


@dataclass(frozen=True)
class Mutated:
    """A module with all its mutants in it; which one is at work is said by ``trampoline.set_mutant_under_test``."""

    name: str
    path: Path
    code: str
    mutants: tuple[str, ...]
    spans: dict[str, Any]

    @classmethod
    def of(cls, path: Path) -> Mutated:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        made = mutate_file_contents(str(path), path.read_text("utf-8"))
        return cls(name, path, made.code, tuple(made.mutant_names), dict(made.line_span_by_function_name))

    def change(self, mutant: str) -> str:
        """``line: what was there -> what the mutant has``."""
        original = f"{mutant.partition('__mutmut_')[0]}__mutmut_orig"
        before, after = self._lines(original), self._lines(mutant)
        before[0], after[0] = (lines[0].replace(name, "") for lines, name in ((before, original), (after, mutant)))
        steps = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        _, i, j, k, m = next(step for step in steps if step[0] != "equal")
        old, new = (" ".join(line.strip() for line in lines) for lines in (before[i:j], after[k:m]))
        source = self.path.read_text("utf-8").splitlines()
        line = next(n for n in range(len(source)) if source[n + 1 : n + len(before)] == before[1:]) + 1 + i
        return f"{self.path.relative_to(ROOT)}:{line}: {old} -> {new}"

    def _lines(self, name: str) -> list[str]:
        span = self.spans[name]
        lines = self.code.splitlines()[span.start - 1 : span.end]
        return lines[next(n for n, line in enumerate(lines) if f"def {name}(" in line) :]


class Loader(SourceFileLoader):
    """Gives the mutated code for the source."""

    def __init__(self, module: Mutated) -> None:
        super().__init__(module.name, str(module.path))
        self.module = module

    def get_code(self, fullname: str) -> Any:
        return compile(self.module.code, self.path, "exec", dont_inherit=True)


class Finder:
    """Finds the mutated modules before anything else does."""

    def __init__(self, modules: dict[str, Mutated]) -> None:
        self.modules = modules

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        module = self.modules.get(name)
        return spec_from_file_location(name, module.path, loader=Loader(module)) if module else None


@dataclass(eq=False)
class Hunt:
    """A plugin of pytest, which in place of the tests runs the mutants."""

    modules: dict[str, Mutated]
    wanted: dict[str, list[str]]
    """The names of mutants to run, by group."""
    seconds: float
    found: dict[str, str]
    names: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each doctest can name: it forgets that when it has run."""
    inside: bool = False
    """Whether this is the process of a mutant."""

    def pytest_configure(self, config: pytest.Config) -> None:
        from hypothesis import Phase, settings  # not before its plugin

        phases = (Phase.explicit, Phase.reuse, Phase.generate)  # a failure is enough, the smallest need not be found
        settings.register_profile("mutants", settings.default, max_examples=EXAMPLES, phases=phases)
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if "__mutmut_" not in item.nodeid]  # each mutant has the docstring too
        self.names = {item.nodeid: dict(item.dtest.globs) for item in items if isinstance(item, pytest.DoctestItem)}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if isinstance(item, pytest.DoctestItem):
            item.dtest.globs = dict(self.names[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.inside:
            os._exit(1)
        if report.failed:
            raise pytest.UsageError(f"{report.nodeid} fails on the code as it is:\n{report.longreprtext}")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        calls, cost = self.tried(session.items)
        gc.freeze()  # what a collection touches is copied in every process
        kills: dict[tuple[str, str], int] = defaultdict(int)
        for group, mutants in self.wanted.items():
            files = set(tests(group))
            for mutant in mutants:
                function = mutant.partition("__mutmut_")[0]
                fit = [i for i in session.items if function in calls[i.nodeid] and cost[i.nodeid] <= SLOWEST]
                fit = [i for i in fit if i.path in files]
                fit.sort(key=lambda item: (-kills[function, item.nodeid], cost[item.nodeid]))
                self.found[mutant] = self.fate(mutant, fit, cost, kills)
                print(f"{self.found[mutant]:9} {mutant}", flush=True)
        return True

    def tried(self, items: Sequence[pytest.Item]) -> tuple[dict[str, set[str]], dict[str, float]]:
        """Which functions each test calls, and its seconds of work, processes included; every test has to pass."""
        calls: dict[str, set[str]] = {}
        cost: dict[str, float] = {}
        called: set[str] = set()
        trampoline.record_trampoline_hit = lambda name, caller=None: called.add(name)
        trampoline.set_mutant_under_test("stats")
        for item, following in zip(items, [*items[1:], None], strict=True):
            called.clear()
            start = sum(os.times()[:4])
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            calls[item.nodeid], cost[item.nodeid] = set(called), sum(os.times()[:4]) - start
        return calls, cost

    def fate(
        self,
        mutant: str,
        items: Sequence[pytest.Item],
        cost: dict[str, float],
        kills: dict[tuple[str, str], int],
    ) -> str:
        """What becomes of a mutant: killed, survived, timed out, or uncalled."""
        chosen: list[pytest.Item] = []
        total = 0.0
        for item in items:
            if chosen and total + cost[item.nodeid] > self.seconds:
                break
            chosen.append(item)
            total += cost[item.nodeid]
        if not chosen:
            return "uncalled"
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            self.alone(mutant, chosen, 10 * total + 5, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as told:
            begun = len(told.read())
        _, status = os.waitpid(child, 0)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what its tests started
        code = os.waitstatus_to_exitcode(status)
        if code in (-signal.SIGXCPU, -signal.SIGALRM, -signal.SIGKILL):
            return "timed out"
        if code:
            kills[mutant.partition("__mutmut_")[0], chosen[begun - 1].nodeid] += 1
        return "killed" if code else "survived"

    def alone(self, mutant: str, items: Sequence[pytest.Item], seconds: float, told: int) -> None:
        """Run ``items`` on a mutant, and leave with 0 if all pass; ``told`` gets a byte for each that is begun."""
        self.inside = True
        os.setsid()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 1))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(math.ceil(10 * seconds))  # of one that waits for what never comes
        module = sys.modules[mutant.rpartition(".")[0]]
        for thing in list(vars(module).values()):
            if hasattr(thing, "cache_clear"):
                thing.cache_clear()  # what the code as it is has put there
        trampoline.set_mutant_under_test(mutant)
        try:
            for item, following in zip(items, [*items[1:], None], strict=True):
                os.write(told, b".")
                item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        except BaseException:
            os._exit(1)
        os._exit(0)


def paths(group: str) -> list[Path]:
    """The files of a group."""
    return sorted(path for pattern in GROUPS[group][0] for path in (ROOT / "dual_bench").glob(pattern))


def tests(group: str) -> list[Path]:
    """The files with its tests, and itself, for the examples in it."""
    return [*(ROOT / "tests" / f"{file}.py" for file in GROUPS[group][1]), *paths(group)]


def drawn(names: Sequence[str], sample: int, seed: str) -> list[str]:
    """All ``names``, or a random ``sample`` of so many."""
    return list(names) if not 0 < sample < len(names) else sorted(random.Random(seed).sample(names, sample))


def table(names: dict[str, list[str]], fates: dict[str, str], sizes: dict[str, int]) -> Iterator[str]:
    """A row for each group."""
    yield f"{'group':12}{'mutants':>8}{'tried':>7}{'killed':>8}{'timed out':>11}{'survived':>10}{'share':>8}  95 %"
    for group, each in names.items():
        killed, slow = (sum(fates[name] == fate for name in each) for fate in ("killed", "timed out"))
        share = killed / len(each)
        ends = binomtest(killed, len(each)).proportion_ci(0.95, "wilson")
        interval = "all" if sizes[group] == len(each) else f"{ends.low:.1%} to {ends.high:.1%}"
        rest = len(each) - killed - slow
        yield f"{group:12}{sizes[group]:8}{len(each):7}{killed:8}{slow:11}{rest:10}{share:8.1%}  {interval}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", help=f"of {', '.join(GROUPS)}; all without")
    parser.add_argument("--only", nargs="+", default=["*"], help="names of mutants, with * and ?")
    parser.add_argument("--sample", type=int, default=0, help="so many of each group, drawn by --seed; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3.0, help="tests of a mutant that none kills take so long")
    asked = parser.parse_args()
    os.chdir(ROOT)
    os.environ["DUAL_BENCH_DATA"] = os.devnull  # tests of real corpora take too long
    groups = {group: [Mutated.of(path) for path in paths(group)] for group in asked.groups or GROUPS}
    modules = {module.name: module for each in groups.values() for module in each}
    all_names = {
        group: sorted(f"{m.name}.{name}" for m in each for name in m.mutants) for group, each in groups.items()
    }
    names = {group: drawn(each, asked.sample, f"{asked.seed} {group}") for group, each in all_names.items()}
    names = {group: [n for n in each if any(fnmatch(n, only) for only in asked.only)] for group, each in names.items()}
    chosen = sorted({str(path) for group in groups for path in tests(group)})
    sys.meta_path.insert(0, Finder(modules))
    for name in modules:
        import_module(name)  # pytest would look for those with examples by itself
    hunt = Hunt(modules, names, asked.seconds, {})
    with tempfile.TemporaryDirectory() as folder:
        plain = [
            "-q",
            "-p",
            "no:cacheprovider",
            "--tb=native",
            "-o",
            "addopts=--import-mode=importlib --doctest-modules",
            f"--basetemp={folder}/tests",
        ]
        code = pytest.main([*plain, *chosen], plugins=[hunt])
    if len(hunt.found) < sum(map(len, names.values())):
        sys.exit(code)
    for each in names.values():
        for name in each:
            if hunt.found[name] != "killed":
                module, _, mutant = name.rpartition(".")
                print(f"{hunt.found[name]:9} {name} {modules[module].change(mutant)}")
    print(*table(names, hunt.found, {group: len(each) for group, each in all_names.items()}), sep="\n")


if __name__ == "__main__":
    main()
