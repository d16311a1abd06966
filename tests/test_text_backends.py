"""The words by each backend in each precision, in batches by tokens; and the cache that they lie in, with its limit."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from calling import refused
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from dual_bench.features import cache, text
from dual_bench.features.cache import cached, content_key
from dual_bench.features.encoder import text_encoder
from dual_bench.features.openvino_model import converted
from dual_bench.features.rows import FeatureStore, _Index
from dual_bench.features.text import MiniLM, encode_texts
from dual_bench.plan import TEXT_SETTINGS, Regimen, load_corpus, read_plan
from dual_bench.report.methods import _words_encoded
from dual_bench.types import Corpus, UserError
from dual_bench.words import encode, words_of

TEXTS = ["They were lzte, and vrey angry!", "", "no", " \n", "We opened the unbelievably heavy letter at noon."]


@pytest.fixture(scope="module")
def plain() -> list[NDArray[np.float32]]:
    return MiniLM()(TEXTS)


def cosines(found: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]]) -> NDArray[np.floating]:
    one, other = (np.concatenate(list(each)).astype(np.float64) for each in (found, expected))
    return np.asarray((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1))


# ---------------------------------------------------------------------------------------------- backends


def test_openvino_gives_the_numbers_of_torch(plain: list[NDArray[np.float32]]) -> None:
    encoder = MiniLM("cpu", "openvino")
    for _ in range(2):  # its results lie in memory that it uses again
        found = encoder(TEXTS)
        encoder(["something else of its own"])
        for one, expected in zip(found, plain, strict=True):
            assert one.dtype == np.float32
            assert one.shape == expected.shape
            np.testing.assert_allclose(one, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_bf16_is_rounding_and_no_more(backend: text.Backend, plain: list[NDArray[np.float32]]) -> None:
    encoder = MiniLM("cpu", backend, "bf16")
    if backend == "openvino" and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(UserError, match="expected OpenVINO to compute in bf16, found f32"):
            encoder(TEXTS)
        return
    found = encoder(TEXTS)
    assert {one.dtype for one in found} == {np.dtype(np.float32)}
    assert [one.shape for one in found] == [one.shape for one in plain]
    assert cosines(found, plain).min() > 0.9999


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_any_transformer_can_be_run_by_openvino(kind: str, networks: Path) -> None:
    spec = f"sentence-transformers:model={networks / kind}"
    texts = ["they were so angry", "late", "", "very " * 40]
    expected, found = text_encoder(spec)(texts), text_encoder(f"{spec},backend=openvino")(texts)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("precision", "other", "says"),
    [
        ("bf16", openvino.Type.f32, "compute in bf16, found f32, .*; use precision=fp32"),
        ("fp32", openvino.Type.bf16, "compute in f32, found bf16, .*; use backend=torch"),
    ],
)
def test_another_precision_than_was_asked_for_is_refused(
    precision: text.Precision, other: openvino.Type, says: str, networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = text_encoder(f"sentence-transformers:model={networks / 'bert'},backend=openvino,precision={precision}")
    monkeypatch.setattr(openvino.CompiledModel, "get_property", lambda model, name: other)
    with pytest.raises(UserError, match=f"^text encoder '.*bert': expected OpenVINO to {says}$"):
        encoder(["a word"])


class OfItsLength(nn.Module):
    """A network whose numbers depend on how many tokens there are, which a trace fixes."""

    def __init__(self, tokenizer: Callable[..., object]) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, read: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        ids = read["input_ids"]
        sign = torch.full((4,), 1.0 if ids.shape[1] > 5 else -1.0)
        return {"token_embeddings": (ids[..., None] + 1.0) * sign}


def test_a_network_that_a_trace_changes_is_refused() -> None:
    def tokenizer(texts: list[str], **given: object) -> dict[str, torch.Tensor]:
        longest = max(len(each.split()) for each in texts)
        ids = torch.arange(longest).repeat(len(texts), 1)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    with pytest.raises(UserError, match="mine gives other numbers when it is converted for OpenVINO"):
        converted(OfItsLength(tokenizer), "fp32", "mine")


def test_without_openvino_the_way_to_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"run `pip install 'dual-bench\[openvino\]'`, or use torch"):
        MiniLM("cpu", "openvino")(["a word"])


def test_openvino_reports_to_nobody(another_process: Callable[[str], str]) -> None:
    code = "from dual_bench.features.openvino_model import _openvino\n_openvino()\n"
    code += "import openvino.tools.ovc as ovc\nprint(type(ovc.telemetry).__module__)"
    assert another_process(code).strip() == "openvino.tools.ovc.telemetry_stub"


def test_openvino_computes_on_the_cpu_whatever_the_device_of_the_study() -> None:
    assert text_encoder("sentence-transformers:backend=openvino", "cuda").device == "cpu"
    assert text_encoder("sentence-transformers", "cuda").device == "cuda"


# ------------------------------------------------------------------------------------------------- flags


def test_backend_and_precision_are_in_the_name_which_cells_are_known_by() -> None:
    names = [
        text_encoder(f"sentence-transformers:backend={backend},precision={precision}").name
        for backend in ("torch", "openvino")
        for precision in ("fp32", "bf16")
    ]
    assert names == [f"all-MiniLM-L6-v2/v2/{how}" for how in ("fp32", "bf16", "openvino-fp32", "openvino-bf16")]
    assert text_encoder().name == names[0]


def test_flags_set_the_encoder_that_the_study_has(tmp_path: Path) -> None:
    study = tmp_path / "mine.toml"
    study.write_text('name = "mine"\ndataset = "synthetic"\nmodels = ["concat"]\n[encoders]\naudio = "egemaps"\n')
    chosen = {TEXT_SETTINGS: {"backend": "openvino", "precision": "bf16"}}
    default = "sentence-transformers:backend=openvino,precision=bf16"
    assert read_plan(str(study), chosen).encoders == {"audio": "egemaps", "text": default}
    study.write_text(study.read_text() + 'text = "sentence-transformers:model=other,precision=fp32"\n')
    found = read_plan(str(study), chosen).encoders["text"]
    assert found == "sentence-transformers:backend=openvino,model=other,precision=bf16"


@pytest.mark.parametrize(
    ("own", "same", "flags"),
    [
        (None, None, {"backend": "torch", "precision": "fp32"}),
        ("sentence-transformers", "sentence-transformers", {"backend": "torch"}),
        ("sentence-transformers:backend=torch", "sentence-transformers:backend=torch", {"backend": "torch"}),
        ("sentence-transformers:model=other", "sentence-transformers:model=other", {"precision": "fp32"}),
        ("sentence-transformers:precision=bf16", None, {"precision": "fp32"}),
        (
            "sentence-transformers:model=other,precision=bf16",
            "sentence-transformers:model=other",
            {"precision": "fp32"},
        ),
    ],
)
def test_flags_that_ask_for_the_default_make_no_other_plan(
    own: str | None, same: str | None, flags: dict[str, str], tmp_path: Path
) -> None:
    def plan(encoder: str | None, overrides: dict[str, dict[str, str]]) -> str:
        study = tmp_path / "mine.toml"
        table = "" if encoder is None else f'[encoders]\ntext = "{encoder}"\n'
        study.write_text(f'name = "mine"\ndataset = "synthetic"\nmodels = ["concat"]\n{table}')
        return read_plan(str(study), overrides).model_dump_json()

    assert plan(own, {TEXT_SETTINGS: flags}) == plan(same, {})


@pytest.mark.parametrize("command", [["run"], ["ablate", "components"], ["tune"]])
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--text-backend", "onnx"], "backend: Input should be 'torch' or 'openvino' (found 'onnx')"),
        (["--text-precision", "int8"], "precision: Input should be 'fp32' or 'bf16' (found 'int8')"),
        (
            ["--text-precision", "bf16", "--encoder", "text=sentence-transformers:precision=fp32"],
            "--text-precision bf16 contradicts --encoder text=sentence-transformers:precision=fp32; leave one of them",
        ),
    ],
)
def test_slips_about_backend_and_precision_are_explained(command: list[str], flags: list[str], says: str) -> None:
    assert says in " ".join(refused(*command, *flags).split())


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("", ""),
        ("sentence-transformers:model=other", ""),
        ("sentence-transformers:backend=openvino", " The words were encoded by OpenVINO on the CPU, in fp32."),
        ("sentence-transformers:precision=bf16", " The words were encoded by torch, with matrix products in bf16."),
    ],
)
def test_the_methods_say_what_encoded_the_words_where_it_is_not_the_default(spec: str, says: str) -> None:
    assert _words_encoded({"encoders": {"text": spec} if spec else {}}) == says


# ----------------------------------------------------------------------------------------------- batches


class Counting:
    """Encodes characters, counts them if ``tells``, and remembers the batches."""

    name, width, device, unknown = "counting", 2, "cpu", "?"

    def __init__(self, tells: bool) -> None:
        self.batches: list[list[str]] = []
        if tells:
            self.lengths = lambda texts: np.array([len(each) for each in texts], np.int64)

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        self.batches.append(list(texts))
        return [np.full((len(each), 2), len(each), np.float32) for each in texts]


words = st.lists(st.text("ab", max_size=12), max_size=30)


@given(given_texts=words, sealed=st.integers(0, 30), tells=st.booleans())
def test_batches_keep_to_their_tokens_and_depend_on_the_set_alone(
    given_texts: list[str], sealed: int, tells: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_TOKENS", 20)
        one, other = Counting(tells), Counting(tells)
        folder = tmp_path_factory.mktemp("words")
        found, count = encode_texts(given_texts, one, folder / "one", sealed=sealed)
        again = [*reversed(given_texts[:sealed]), *reversed(given_texts[sealed:])]
        encode_texts(again, other, folder / "other", sealed=sealed)
    assert one.batches == other.batches
    assert count == len(set(given_texts)) == sum(map(len, one.batches))
    assert [len(item) for item in found] == [len(each) for each in given_texts]
    for batch in one.batches:
        longest = max(len(each) if tells else len(each) // 4 + 1 for each in batch)
        assert len(batch) == 1 or len(batch) * longest <= 20
        assert len({each in set(given_texts[:sealed]) for each in batch}) == 1


class OfItsBatch(Counting):
    """Every number depends on all that is in the batch, as the last bits of a network's do."""

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        value = np.float32(zlib.crc32("|".join(texts).encode()))
        return [np.full((len(each), 2), value, np.float32) for each in texts]


def test_no_bit_of_what_is_trained_on_depends_on_the_words_of_the_test_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "_TOKENS", 300)
    own = {"corruptions": ["word-drop"], "rates": [0.5], "regimes": ["clean", "matched"]}
    plan = read_plan("default", {"dataset": "synthetic:utterances=40", **own})
    corpus = load_corpus(plan.dataset, tmp_path)
    (fold,) = corpus.folds
    others = list(corpus.utterances)
    others[fold.test[0]] = replace(others[fold.test[0]], text="Nothing of the kind was ever said before, or so late.")
    regimens = [Regimen("clean"), Regimen("matched", "word-drop", 0.5)]

    def learnt(corpus: Corpus) -> list[bytes]:
        words = words_of(plan, corpus, plan.conditions(corpus), regimens)
        assert (words.training[regimens[0]][0] >= 0).all()
        embedded, _ = encode(words, encoder, tmp_path / "cache", lambda done, total: None)
        read = [
            row
            for regimen in regimens
            for rows, part in ((words.training, fold.train), (words.validation, fold.validation))
            for row in rows[regimen][0][:, part].ravel().tolist()
        ]
        assert max(read) < words.sealed
        return [embedded[row].tobytes() for row in read]

    encoder = OfItsBatch(True)
    assert learnt(corpus) == learnt(replace(corpus, utterances=tuple(others)))


# ------------------------------------------------------------------------------------------------- limit

ROW = 4 * 256
"""Bytes of one row of the stores below."""


def filled(root: Path, name: str, rows: int = 8, kind: str = "text") -> Path:
    """A store, of the words, with so many rows, each of which says which store it is of."""
    folder = root / kind / name
    value = np.float32(int(name[-1]))
    cached(folder, 256, [content_key(name)], lambda positions: ((p, np.full((rows, 256), value)) for p in positions))
    return folder


ELSEWHERE = """
import sys
import numpy as np
from pathlib import Path
from dual_bench.features.cache import cached, content_key
root, *names = sys.argv[1:]
for name in names:
    rows = np.full((8, 256), int(name[-1]), np.float32)
    cached(Path(root) / "text" / name, 256, [content_key(name)], lambda positions: ((p, rows) for p in positions))
"""
"""What another process does that fills stores as ``filled`` does."""


def left_by_another_process(root: Path, *names: str) -> list[Path]:
    """Stores that nobody uses any more, the first used first."""
    environment = {**os.environ, "DUAL_BENCH_CACHE_LIMIT": "1 GB"}
    subprocess.run([sys.executable, "-c", ELSEWHERE, str(root), *names], check=True, env=environment)
    return [root / "text" / name for name in names]


def test_what_was_not_used_for_longest_goes_first_and_nothing_that_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, middle, new = left_by_another_process(tmp_path, "a1", "a2", "a3")
    monkeypatch.setenv("DUAL_BENCH_CACHE_LIMIT", f"{36 * ROW}")  # four stores of eight rows, with their indexes
    mine = filled(tmp_path, "b4")
    assert all(folder.exists() for folder in (old, middle, new, mine))
    os.utime(old / "used")  # used again
    more = filled(tmp_path, "b5")
    assert [folder.exists() for folder in (old, middle, new, mine, more)] == [True, False, True, True, True]
    monkeypatch.setenv("DUAL_BENCH_CACHE_LIMIT", "1 B")
    filled(tmp_path, "b5")
    assert [folder.exists() for folder in (old, middle, new, mine, more)] == [False, False, False, True, True]
    assert (FeatureStore(mine, 256).find([content_key("b4")])[0] == 4).all()


def test_what_a_living_process_uses_stays_and_what_a_killed_one_used_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = ELSEWHERE + "print('there', flush=True)\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), "a1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "there\n"
        monkeypatch.setenv("DUAL_BENCH_CACHE_LIMIT", "1 B")
        filled(tmp_path, "b2")
        assert (FeatureStore(tmp_path / "text" / "a1", 256).find([content_key("a1")])[0] == 1).all()
        other.kill()
    filled(tmp_path, "b2")
    assert [folder.name for folder in (tmp_path / "text").iterdir()] == ["b2"]


@pytest.mark.parametrize(("kind", "stays"), [("text", False), ("bins", False), ("audio", True), ("vision", True)])
def test_the_limit_is_for_what_is_soon_made_again(
    kind: str, stays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, words = left_by_another_process(tmp_path, "a1", "a2")
    if kind != "text":
        (tmp_path / kind).mkdir()
        old = old.rename(tmp_path / kind / "a1")
    with (old / "rows.f32").open("ab") as file:
        file.truncate(100 * ROW)
    monkeypatch.setenv("DUAL_BENCH_CACHE_LIMIT", f"{36 * ROW}")
    filled(tmp_path, "b3")
    assert (old.exists(), words.exists()) == (stays, True)  # what stays does not count
    monkeypatch.setenv("DUAL_BENCH_CACHE_LIMIT", "1 B")
    mine = filled(tmp_path, "b4", kind="audio")
    assert sorted(path.name for path in mine.iterdir() if path.name != "lock") == ["index.npz", "rows.f32"]
    filled(tmp_path, "b3")
    assert (old.exists(), words.exists(), mine.exists()) == (stays, False, True)


def test_nothing_of_dead_processes_piles_up(tmp_path: Path) -> None:
    for _ in range(2):
        (folder,) = left_by_another_process(tmp_path, "a1")
    left_by_another_process(tmp_path, "a2")
    assert len(list(folder.glob("*.user"))) == 1
    assert len(list((tmp_path / "users").iterdir())) == 1
    filled(tmp_path, "a1")
    (mine,) = (tmp_path / "users").iterdir()
    assert [mark.stem for mark in folder.glob("*.user")] == [mine.stem]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_cache_that_cannot_be_written_to_can_be_read(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_by_another_process(tmp_path, "a1", "a2")
    monkeypatch.setenv("DUAL_BENCH_CACHE_LIMIT", "1 B")
    opened = os.open

    def refuse(path: str, flags: int, *rest: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(code, os.strerror(code), str(path))
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    before = sorted(tmp_path.rglob("*"))

    def never(positions: list[int]) -> list[tuple[int, NDArray[np.float32]]]:
        raise AssertionError(positions)

    found, encoded = cached(tmp_path / "text" / "a1", 256, [content_key("a1")], never)
    assert (found[0] == 1).all()
    assert encoded == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be_removed_stays_and_the_rest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, gone = left_by_another_process(tmp_path, "a1", "a2")
    monkeypatch.setenv("DUAL_BENCH_CACHE_LIMIT", "1 B")
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path == kept:
            raise PermissionError(errno.EACCES, "it is open", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    filled(tmp_path, "b3")
    assert (kept.exists(), gone.exists()) == (True, False)


def test_a_lock_is_removed_when_it_is_held_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by_another_process(tmp_path, "a1")
    (lock,) = (tmp_path / "users").iterdir()
    unlink = Path.unlink

    def watched(path: Path, missing_ok: bool = False) -> None:
        with FileLock(path, timeout=0):
            pass
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", watched)
    filled(tmp_path, "b2")
    assert not lock.exists()


def test_a_store_that_was_half_removed_is_removed_and_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = left_by_another_process(tmp_path, "a1")
    monkeypatch.setenv("DUAL_BENCH_CACHE_LIMIT", "1 B")

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            filled(tmp_path, "b2")
    assert not folder.exists()
    assert (FeatureStore(filled(tmp_path, "a1"), 256).find([content_key("a1")])[0] == 1).all()
    assert sorted(each.name for each in (tmp_path / "text").iterdir()) == ["a1", "b2"]


def test_features_that_somebody_keeps_elsewhere_are_no_part_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = FeatureStore(tmp_path / "corpus" / "audio-1234", 256)
    own.ensure([content_key("x")], lambda positions: ((p, np.ones((9, 256), np.float32)) for p in positions))
    monkeypatch.setenv("DUAL_BENCH_CACHE_LIMIT", "1 B")
    filled(tmp_path, "b1")
    assert (own.find([content_key("x")])[0] == 1).all()


@pytest.mark.parametrize("limit", ["lots", "-1 GB", "1 parsec"])
def test_a_limit_that_is_no_size_is_the_users_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setenv("DUAL_BENCH_CACHE_LIMIT", limit)
    with pytest.raises(UserError, match=f"DUAL_BENCH_CACHE_LIMIT: expected a size such as '20 GB', found '{limit}'"):
        filled(tmp_path, "b1")
    assert not (tmp_path / "text").exists()


indexed = st.dictionaries(st.binary(min_size=32, max_size=32), st.integers(0, 99), max_size=9)


@given(indexed, st.lists(st.binary(min_size=32, max_size=32), max_size=5), st.data())
def test_an_index_finds_what_a_dictionary_finds_also_where_keys_are_stored_again(
    known: dict[bytes, int], others: list[bytes], data: st.DataObject
) -> None:
    index = _Index(np.empty(0, "S32"), np.empty((0, 3), np.int64))
    index = index.with_more({key.hex(): (value, 1, 0) for key, value in known.items()})
    again = data.draw(st.dictionaries(st.sampled_from(sorted(known)), st.integers(0, 99))) if known else {}
    index = index.with_more({key.hex(): (value, 1, 0) for key, value in again.items()})
    known = known | again
    asked = data.draw(st.permutations([*known, *others]))
    assert index.find([key.hex() for key in asked])[:, 0].tolist() == [known.get(key, -1) for key in asked]
