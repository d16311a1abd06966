"""What ``docs/security.md`` says: every line of it names the test that attacks it, here or elsewhere."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from calling import PLAIN, invoke, refused
from made_run import Made, write
from tiny import write_corpus

import dual_bench

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
HERE = Path(dual_bench.__file__).parent
PACKAGE = sorted(HERE.rglob("*.py"))
SMALL = ["--seeds", "2", "--regimes", "clean", "--rates", "0,1", "--draws", "1", "--epochs", "2", "--no-dependency"]

# ----------------------------------------------------------------------------------------------- the page


def defined(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_line_of_the_page_names_a_test_that_is_there() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| who", "|--"))]
    assert len(lines) > 15
    for line in lines:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", line.split(" | ")[-1])
        assert named, f"no test in: {line}"
        for file, name in named:
            assert name in defined(file), f"{file} has no {name}"


def test_the_page_gives_the_bounds_that_the_code_has() -> None:
    from dual_bench import limits
    from dual_bench.features import formats, media

    told = dict(re.findall(r"^\* `(\w+)`, ([\d,]+)", PAGE, flags=re.MULTILINE))
    found = {name: value for name, value in vars(limits).items() if name.isupper() and isinstance(value, int)}
    found |= {"LONGEST": media.LONGEST, "ROOM": media.ROOM, "DECODED": media.DECODED, "CHANNELS": media.CHANNELS}
    found |= {"PIXELS": formats.PIXELS}
    found.pop("TYPE_CHECKING", None)
    assert {name: int(value.replace(",", "")) for name, value in told.items()} == found


# ------------------------------------------------------------------------------------------ what code names

FREE = {
    *(
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",
        "marshal.load",
        "marshal.loads",
        "shelve.open",
        "eval",
        "exec",
    ),
    *("pd.read_pickle", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load", "joblib.load", "compile", "dill.load"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "subprocess.Popen"),
}
"""What runs code that a file holds, or a shell."""
ALLOWED = {
    ("datasets/safe_pickle.py", "pickle.Unpickler"),  # the reader that names its classes
    ("contract/models.py", "pickle.loads"),  # of what was pickled in the same line
}


def named(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{named(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def keyword(call: ast.Call, name: str) -> object:
    return next((k.value.value for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None)


def dangers(tree: ast.AST) -> Iterator[str]:
    """Names of what would run what a file holds, or a shell."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in {"pickle", "marshal", "shelve", "joblib", "dill"}:
            yield f"from {node.module} import"
        if isinstance(node, ast.Import) and {a.name for a in node.names} & {"shelve", "marshal", "joblib", "dill"}:
            yield "import"
        if isinstance(node, ast.Attribute | ast.Name) and named(node) in FREE - {"eval", "exec", "compile"}:
            yield named(node)
        if not isinstance(node, ast.Call):
            continue
        function = named(node.func)
        if function in {"eval", "exec", "compile"}:
            yield function
        if function == "torch.load" and keyword(node, "weights_only") is not True:
            yield "torch.load without weights_only"
        if function == "np.load" and keyword(node, "allow_pickle") is not False:
            yield "np.load with pickles"
        if keyword(node, "trust_remote_code") is not None or keyword(node, "shell") is not None:
            yield "shell or trust_remote_code"
        if function.startswith("subprocess.") and not (node.args and isinstance(node.args[0], ast.List)):
            yield "subprocess with a text"


@pytest.mark.parametrize(
    "code",
    ["pickle.load(f)", "from pickle import loads", "torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f)",
     "np.load(f, allow_pickle=True)", "pd.read_pickle(f)", "import shelve", "eval('1')", "exec(x)", "os.system(x)",
     "subprocess.run('ls')", "subprocess.run(['ls'], shell=True)", "load = pickle.loads"],
)  # fmt: skip
def test_a_danger_would_be_seen(code: str) -> None:
    assert list(dangers(ast.parse(code)))


def test_nothing_unpickles_freely_evaluates_text_or_starts_a_shell() -> None:
    found = {(str(file.relative_to(HERE)), what) for file in PACKAGE for what in
             dangers(ast.parse(file.read_text(encoding="utf-8")))}  # fmt: skip
    assert found == ALLOWED


# ------------------------------------------------------------------------------------------- code in files

EVIL = "open({ran!r}, 'w').close()\ndef model(widths, task):\n    raise RuntimeError\n"
MENTIONS = {
    "models": ("run", 'dataset = "synthetic:utterances=48"\nmodels = ["concat", "evil:model"]', "model 'evil:model'"),
    "settings": ("run", 'dataset = "synthetic:utterances=48"\nmodels = ["evil:model:width=3"]', "model 'evil:model'"),
    "corruptions": (
        "run",
        'dataset = "synthetic:utterances=48"\nmodels = ["concat"]\ncorruptions = ["evil:NOISE"]',
        "corruption 'evil:NOISE'",
    ),
    "corpus": ("run", 'dataset = "evil:corpus:a=1"\nmodels = ["concat"]', "corpus 'evil:corpus'"),
    "encoders": (
        "run",
        'dataset = "synthetic:utterances=48"\nmodels = ["concat"]\n[encoders]\ntext = "evil:SPEC"',
        "encoder 'evil:SPEC'",
    ),
    "baseline": (
        "ablate",
        'dataset = "synthetic:utterances=48"\nquestion = "?"\nmetric = "accuracy"\nmargin = 0.1\n'
        'baseline = "evil:model"\n'
        "[[variants]]\nchange = { a = 1 }",
        "model 'evil:model'",
    ),
    "corruption that looks set": (
        "run",
        'dataset = "synthetic:utterances=48"\nmodels = ["concat"]\ncorruptions = ["evil:NOISE=1"]',
        "corruption 'evil:NOISE=1'",
    ),
    "transcript": (
        "run",
        'dataset = "synthetic:utterances=48"\nmodels = ["concat"]\ncorruptions = ["transcript:evil"]',
        "corruption 'transcript:evil'",
    ),
    "corpus that looks like a file": (
        "run",
        'dataset = "evil:x.csv:a=1"\nmodels = ["concat"]',
        "corpus 'evil:x.csv'",
    ),
    "encoder of pictures": (
        "run",
        'dataset = "synthetic:utterances=48"\nmodels = ["concat"]\n[encoders]\nvision = "evil:SPEC:a=1"',
        "encoder 'evil:SPEC'",
    ),
    "baseline with settings": (
        "ablate",
        'dataset = "synthetic:utterances=48"\nquestion = "?"\nmetric = "accuracy"\nmargin = 0.1\n'
        'baseline = "evil:model:width=8"\n'
        '[[factors]]\nname = "f"\noff = { a = 1 }',
        "model 'evil:model'",
    ),
}
ABLATES = (
    'name = "sent"\ndataset = "synthetic:utterances=48"\nquestion = "?"\nmetric = "accuracy"\nmargin = 0.1\n'
    'baseline = "concat:width=8"\n'
)
RUNS = 'name = "sent"\ndataset = "synthetic:utterances=48"\nmodels = ["concat"]\n'
SMUGGLED = {
    "key of a change": ("ablate", ABLATES + '[[variants]]\nchange = { "evil:width" = 8 }', "setting of 'concat' has"),
    "value of a change": (
        "ablate",
        ABLATES + '[[variants]]\nchange = { width = "8,z:y=1" }',
        "setting of 'concat' has",
    ),
    "factor": ("ablate", ABLATES + '[[factors]]\nname = "f"\noff = { "evil:width" = 8 }', "setting of 'concat' has"),
    "escape in an encoder": (
        "run",
        RUNS + "[encoders]\ntext = 'sentence-transformers:model=\"m\\u003Aa\\u003D1\"'",
        "setting of 'sentence-transformers' has",
    ),
    "preset": ("run", RUNS + 'presets = "evil:PRESET"', "no preset file 'evil:PRESET'"),
    "metric": ("run", RUNS + 'metric = "evil:METRIC"', "unknown metric 'evil:METRIC'"),
    "modality": ("run", RUNS + '[encoders]\n"evil:SPEC" = "log-mel"', "unknown modality 'evil:SPEC'"),
}


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in whose modules leave a file where they run; gives that file."""
    ran, modules = tmp_path / "ran", ("evil", "concat", "transcript", "sentence-transformers")
    for name in modules:
        (tmp_path / f"{name}.py").write_text(EVIL.format(ran=str(ran)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield ran
    for name in modules:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("field", MENTIONS)
@pytest.mark.parametrize("flags", [[], ["--text-precision", "bf16"]], ids=["plain", "text settings"])
def test_code_that_a_study_mentions_runs_only_where_the_command_line_names_it(
    trap: Path, field: str, flags: list[str]
) -> None:
    command, text, what = MENTIONS[field]
    Path("sent.toml").write_text(f'name = "sent"\n{text}\n')
    for each in [command, "plan", *(["tune"] if command == "run" else [])]:
        said = refused(each, "sent.toml", *flags)
        name = what.split("'")[1]
        assert f"study sent.toml mentions {what}" in said
        assert said.endswith(f"add --code {name}\n")
        assert not trap.exists()


@pytest.mark.parametrize("how", SMUGGLED)
def test_no_other_text_of_a_study_becomes_the_name_of_code(trap: Path, how: str) -> None:
    command, text, says = SMUGGLED[how]
    Path("sent.toml").write_text(f"{text}\n")
    said = refused(command, "sent.toml", *(["--text-precision", "bf16"] if "encoder" in how else []))
    assert says in said
    assert not trap.exists()


def test_a_part_is_found_in_the_folder_that_its_name_is_given_in(trap: Path) -> None:
    assert "part 'evil:nothing' cannot be loaded" in refused("check", "evil:nothing")
    assert trap.exists()


def test_code_that_is_named_too_runs(trap: Path) -> None:
    _, text, _ = MENTIONS["models"]
    Path("sent.toml").write_text(f'name = "sent"\n{text}\n')
    said = refused("run", "sent.toml", "--code", "evil:model")
    assert "model 'evil:model' cannot be built: RuntimeError" in said
    assert trap.exists()


def test_naming_a_part_in_another_flag_permits_it_and_replacing_it_needs_no_permission(trap: Path) -> None:
    from dual_bench.plan import read_plan

    Path("sent.toml").write_text('name = "sent"\ndataset = "synthetic:utterances=48"\nmodels = ["evil:model"]\n')
    assert read_plan("sent.toml", {"models": ["concat"]}).models == ("concat",)
    assert not trap.exists()
    assert "RuntimeError" in refused("plan", "sent.toml", "--model", "evil:model")
    for slip in ("evil", "evil:", ":model", "evil:model:width=3"):
        assert "--code: expected package.module:attribute" in refused("run", "sent.toml", "--code", slip)


def test_a_report_runs_no_code_that_a_record_mentions(trap: Path, no_figures: None) -> None:
    folder = trap.parent / "sent"
    write(folder, Made(models=("evil:model", "concat"), corruptions=("evil:NOISE",), regimes=("clean",), rates=(0.5,)))
    for command in ("report", "status"):
        assert invoke(command, folder).exit_code == 0
    record = folder / "run.json"
    record.write_text(record.read_text().replace('"metric":"accuracy"', '"metric":"evil:METRIC"').replace(
        '"metric": "accuracy"', '"metric": "evil:METRIC"'))  # fmt: skip
    assert "unknown metric 'evil:METRIC'" in refused("report", folder)
    assert not trap.exists()


@pytest.mark.parametrize("name", [".lock", ".lock.json", "log.jsonl", "cells", "figures", "tables", "index.html"])
def test_nothing_is_written_through_a_link_in_a_folder_of_results(name: str, tmp_path: Path, no_figures: None) -> None:
    mine = tmp_path / "mine"
    if "." in name:
        mine.write_text("dear diary")
    else:
        mine.mkdir()
        (mine / "old.csv").write_text("dear diary")
    sent, out = tmp_path / "sent", tmp_path / "out"
    write(sent, Made(models=("concat",), regimes=("clean",), rates=(0.5,)))
    out.mkdir()
    if name != "cells":
        (sent / name).symlink_to(mine)
        assert f"{sent / name} is a link to {mine}" in refused("report", sent)
    (out / name).symlink_to(mine)
    manifest = write_corpus(tmp_path)
    said = refused("run", "--dataset", manifest, "--models", "concat", *SMALL, "--out", out)
    assert f"{out / name} is a link to {mine}" in said
    there = [mine] if mine.is_file() else list(mine.iterdir())
    assert [file.read_text() for file in there] == ["dear diary"]
    assert [file.name for file in out.iterdir()] == [name]


# --------------------------------------------------------------------- what a whole run does, seen from below

HOOK = """
import os, sys
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request")
OTHERS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pty.spawn", "pickle.find_class")
def told(event, arguments):
    if event in NETWORK or event in OTHERS:
        what = arguments[-1] if event in NETWORK else arguments[1] if event == "subprocess.Popen" else arguments
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{event} {what!r}\\n")
    if event in NETWORK and getattr(arguments[0], "family", None) != 1:  # 1: a socket of this machine
        raise OSError("no network")
sys.addaudithook(told)
"""
"""Network calls fail; they, programs that are started and classes that pickles name are written down."""
ABLATION = """
name = "parts"
question = "Does width matter?"
dataset = "corpus/corpus.csv"
metric = "accuracy"
margin = 0.1
regimes = ["clean"]
corruptions = ["word-drop"]
rates = [0, 1]
draws = 1
seeds = 1
dependency = false
baseline = "concat:width=8"
training = { epochs = 2 }
[[variants]]
change = { width = 4 }
"""
BY_CHANCE = ("pickle", "multiprocessing", "numpy", "torch", "dual_bench", "numexpr", "bottleneck", "flax", "av")
"""Modules of Python's own, that are installed, and that some package looks for where they are not."""


@dataclass(frozen=True)
class Seen:
    """What was written down of each command, and the modules of the folder that ran."""

    events: Mapping[str, list[tuple[str, str]]]
    ran: tuple[str, ...]

    def of(self, event: str, *commands: str) -> set[str]:
        return {what for name in commands or self.events for one, what in self.events[name] if one.startswith(event)}


def started(home: Path, name: str, *arguments: str | Path) -> list[tuple[str, str]]:
    """What is written down of Python in a process of its own, to which nothing says that there is no network."""
    keep = {key: value for key, value in os.environ.items() if key not in ("HF_HUB_OFFLINE", "PYTHONSAFEPATH")}
    keep |= {"PYTHONPATH": os.pathsep.join([str(home / "hook"), str(ROOT)]), "WATCHED": str(home / f"{name}.log")}
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=home, env=keep, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    log = home / f"{name}.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(event, what) for event, _, what in (line.partition(" ") for line in lines)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A run in two processes, an ablation in one and a report, by the command line as a user has it, in a folder that
    somebody filled with modules."""
    home = tmp_path_factory.mktemp("watched")
    for folder in ("hook", "corpus"):
        (home / folder).mkdir()
    (home / "hook" / "sitecustomize.py").write_text(HOOK)
    for name in BY_CHANCE:
        (home / f"{name}.py").write_text(f"open({str(home / 'ran')!r}, 'a').write('{name}\\n')\n")
    corpus = write_corpus(home / "corpus")
    (home / "parts.toml").write_text(ABLATION)
    program = ("-P", "-c", PLAIN)  # what the installed program does, which has no folder of its own on the path either
    report = ["report", "run", "--format", "csv"]
    commands: dict[str, list[str | Path]] = {
        "run": [
            "run",
            "--dataset",
            corpus,
            "--models",
            "concat:width=8",
            *SMALL,
            "--corruptions",
            "word-drop",
            "--jobs",
            "2",
            "--out",
            "run",
        ],
        "ablate": ["ablate", "parts.toml", "--jobs", "1", "--out", "parts"],
        "report": report,
    }
    events = {name: started(home, name, *program, *command) for name, command in commands.items()}
    events["hook"] = started(home, "hook", "-P", "-c", TRIES)
    return Seen(events, tuple((home / "ran").read_text().split()) if (home / "ran").exists() else ())


TRIES = """
import pickle, socket, subprocess
from collections import OrderedDict
pickle.loads(pickle.dumps(OrderedDict()))
subprocess.run(["true"])
for call in (lambda: socket.create_connection(("127.0.0.1", 9)), lambda: socket.getaddrinfo("example.org", 80)):
    try:
        call()
    except OSError as error:
        assert str(error) == "no network"
"""


@pytest.mark.slow
def test_what_is_to_be_seen_is_seen(seen: Seen) -> None:
    assert {event for event, _ in seen.events["hook"]} >= {
        "pickle.find_class",
        "subprocess.Popen",
        "socket.getaddrinfo",
    }


@pytest.mark.slow
def test_run_ablate_and_report_need_no_network(seen: Seen) -> None:
    assert not seen.of("socket", "run", "ablate", "report") | seen.of("urllib", "run", "ablate", "report")


@pytest.mark.slow
def test_no_program_is_started_but_git_and_those_that_describe_the_machine(seen: Seen) -> None:
    """Of the worker processes of ``multiprocessing`` no audit event tells."""
    programs = seen.of("subprocess", "run", "ablate", "report")
    allowed = (
        "['git', '-C',",
        "['uname', '-p']",
        "['/sbin/ldconfig', '-p']",
    )  # the latter two by Python's own platform
    assert all(what.startswith(allowed) for what in programs), programs
    assert programs or not (ROOT / ".git").exists()
    assert not seen.of("os.", "run", "ablate", "report") | seen.of("pty", "run", "ablate", "report")


@pytest.mark.slow
def test_in_one_process_no_class_is_unpickled(seen: Seen) -> None:
    """With several, each unpickles what the other has pickled: no file has a part in that."""
    assert not seen.of("pickle", "ablate", "report")


@pytest.mark.slow
def test_no_module_of_the_folder_that_a_command_runs_in_is_found_by_chance(seen: Seen) -> None:
    """In worker processes neither."""
    assert seen.ran == ()


HOSTILE = """
import pickle, sys
from pathlib import Path
import numpy as np, torch
from dual_bench.datasets import manifest, safe_pickle
from dual_bench.features import weights
from dual_bench.types import UserError

class Evil:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)

Path("a.pkl").write_bytes(pickle.dumps(Evil()))
Path("a.pth").write_bytes(pickle.dumps(Evil(), 2))
torch.save({"w": Evil()}, "b.pth")
np.save("a.npy", np.array([Evil()], object), allow_pickle=True)
Path("a.csv").write_text("id,fold,cluster,speaker,text,label,audio_file,audio_row\\nu,a,c,s,t,x,a.npy,0\\n")
Path(sys.argv[1]).unlink(missing_ok=True)
for read in (lambda: safe_pickle.load(Path("a.pkl")), lambda: weights.read(Path("a.pth"), "w"),
             lambda: weights.read(Path("b.pth"), "w"), lambda: manifest.load(Path(), path="a.csv")):
    try:
        read()
    except UserError:
        continue
    raise AssertionError("was read")
"""


def test_hostile_files_name_no_class_that_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    events = started(tmp_path, "hostile", "-c", HOSTILE, tmp_path / "hostile.log")
    assert not [what for event, what in events if event.startswith("pickle")]
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------------ spreadsheets


def test_numbers_of_a_table_stay_numbers_and_problems_are_no_formulas(tmp_path: Path) -> None:
    from recordings import write_recordings

    from dual_bench.report.table import Table

    table = Table("t", "T", pd.DataFrame({"=name": ["@x", "-y", "z"], "value": [-1.5, 2.0, -3e-5]}), None)
    assert table.csv() == "'=name,value\n'@x,-1.5\n'-y,2.0\nz,-3e-05\n"
    manifest = write_recordings(tmp_path, {0: "text"}, count=12)
    manifest.write_text(manifest.read_text().replace("u00,", '"=HYPERLINK(1)",'))
    invoke("data", "extract", tmp_path, "--jobs", "1", "--out", tmp_path / "out")
    rows = pd.read_csv(tmp_path / "out" / "problems.csv")
    assert set(rows["utterance"]) == {"'=HYPERLINK(1)"}
