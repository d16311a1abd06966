"""How long a large report takes, and how much memory: 20 models x 200 noisy conditions x 2,610 utterances x 5 seeds.

The rows are made up, with class probabilities; the folder is written to a temporary place, or kept with ``--rows``.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from showing import Section, arguments, limit_table, tell
from timing import Limit

from dual_bench.report.render import FORMATS
from dual_bench.schema import SCHEMA_VERSION, CorpusInfo, Provenance, RunInfo
from dual_bench.store import RunFolder, prediction_table, text_table
from dual_bench.types import CLEAN, Condition, FloatArray, Utterance

MODELS, SEEDS, DRAWS, UTTERANCES, CLUSTERS = 20, 5, 5, 2_610, 280
CORRUPTIONS = ("typo", "ocr", "word-drop", "word-swap", "asr-model", "utterance-drop", "mismatch", "token-zero")
RATES = (0.2, 0.4, 0.6, 0.8, 1.0)
CLASSES = ("neutral", "joy", "anger", "sadness", "surprise", "fear", "disgust")
WORDS = ("well", "so", "we", "opened", "it", "at", "last", "and", "nobody", "said", "a", "word")
SECONDS, GIBIBYTES, PAGE_MEGABYTES = 60, 4.0, 10.0


def made(folder: Path) -> None:
    """Write the run: what the models answer gets worse with the rate, more so for some models."""
    rng = np.random.default_rng(0)
    corpus = [
        Utterance(f"u{i:04}", "test", f"dialogue{i % CLUSTERS:03}", "s", " ".join(rng.choice(WORDS, 8)), float(label))
        for i, label in enumerate(rng.integers(len(CLASSES), size=UTTERANCES))
    ]
    conditions = [CLEAN, *(Condition(n, r, d) for n in CORRUPTIONS for r in RATES for d in range(DRAWS))]
    run, rates = RunFolder(folder), np.array([c.rate for c in conditions])
    measured = _measured(np.repeat(rates, UTTERANCES))
    texts = [_noisy(u.text, c, rng) for c in conditions for u in corpus]
    run.write_texts(text_table(conditions, [u.id for u in corpus], texts, measured))
    digests = []
    for model in range(MODELS):
        for seed in range(SEEDS):
            who = {"model": f"model-{model:02}", "variant": "", "regime": "clean", "seed": seed, "fold": "official"}
            digests.append(f"{model * SEEDS + seed:04x}" * 16)
            rows = prediction_table(
                {"cell": digests[-1], **who}, conditions, corpus, _scores(corpus, rates, model, seed), measured
            )
            run.write_cell(
                rows, digest=digests[-1], **who, parameters=1_000, best_epoch=3, seconds_fit=1.0, seconds_predict=1.0,
                history=tuple({"validation": 1 / (e + 1)} for e in range(6)), device="cpu", threads=1, code="made",
            )  # fmt: skip
    run.write_info(_info(digests))


def _scores(corpus: list[Utterance], rates: FloatArray, model: int, seed: int) -> FloatArray:
    """Probabilities (conditions, N, K)."""
    rng = np.random.default_rng([model, seed])
    truth = np.array([u.target for u in corpus], int)
    own = rng.standard_normal((len(corpus), len(CLASSES)))
    strength = 2.0 - model / MODELS - rates * model / MODELS
    noise = 0.3 * rng.standard_normal((len(rates), len(corpus), len(CLASSES)), np.float32)
    logits = own + noise + strength[:, None, None] * np.eye(len(CLASSES))[truth]
    odds = np.exp(logits - logits.max(axis=2, keepdims=True))
    return np.asarray(odds / odds.sum(axis=2, keepdims=True))


def _measured(share: FloatArray) -> pd.DataFrame:
    errors = np.rint(8 * share)
    rate = errors / 8
    return pd.DataFrame({"wer": rate, "cer": rate, "dropped": rate, "cosine": rate / 2, "words": 8, "errors": errors})


def _noisy(text: str, condition: Condition, rng: np.random.Generator) -> str:
    words = text.split()
    gone = rng.random(len(words)) < condition.rate
    return " ".join(word[::-1] if lost else word for word, lost in zip(words, gone, strict=True))


def _info(digests: list[str]) -> RunInfo:
    plan = {
        "name": "large", "dataset": "made", "models": [f"model-{i:02}" for i in range(MODELS)], "regimes": ["clean"],
        "corruptions": list(CORRUPTIONS), "rates": [0.0, *RATES], "severities": [], "draws": DRAWS, "seeds": SEEDS,
        "root_seed": 0, "metric": "weighted-f1", "training": {"noisy_texts": 8},
    }  # fmt: skip
    corpus = CorpusInfo(
        name="made", task="classification", classes=CLASSES, low=None, high=None, folds=1, clusters=CLUSTERS,
        counts={"train": 1, "validation": 1, "test": UTTERANCES}, fingerprint="0" * 64, licence="CC0",
        notes=("The rows are made up.",), transcripts=(),
    )  # fmt: skip
    provenance = Provenance(
        dual_bench="0", commit=None, dirty=None, python="3", platform="any", packages={}, device="cpu", threads=1,
        jobs=1, command="benchmarks/rendering.py", started="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    return RunInfo(
        schema_version=SCHEMA_VERSION, status="complete", name="large", digest="0" * 64, plan=plan, corpus=corpus,
        cells=tuple(digests), floors={"weighted-f1": 0.04}, ceilings=(), encoders={}, provenance=provenance,
    )  # fmt: skip


def measure(keep: Path | None) -> Section:
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary) / "run"
        if not (folder / "run.json").is_file():
            made(folder)
        start = time.perf_counter()
        command = [sys.executable, "-m", "dual_bench.cli", "report", str(folder), "--format", ",".join(FORMATS)]
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        page = (folder / "index.html").stat().st_size / 1e6
        rows = sum(f.stat().st_size for f in folder.rglob("*.parquet")) / 1e9
    limits = (
        Limit("a large report, time", seconds, SECONDS, "s"),
        Limit("a large report, memory", memory, GIBIBYTES, "GiB"),
        Limit("a large report, index.html", page, PAGE_MEGABYTES, "MB"),
    )
    noisy = len(CORRUPTIONS) * len(RATES) * DRAWS
    about = (
        f"`dual-bench report`, all formats, of {MODELS} models x {noisy} noisy conditions x {UTTERANCES:,} utterances "
        f"x {SEEDS} seeds ({rows:.1f} GB of rows), once."
    )
    return Section("How long a large report takes", about, limits=limits, tables=(limit_table(limits),))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=Path, help="folder to keep the rows in")
    asked = parser.parse_args()
    tell(measure(asked.rows), asked)


if __name__ == "__main__":
    main()
