"""The probe: what is taken away is gone, who gives to whom is fair, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import write_corpus
from torch import Tensor, nn

from dual_bench import cli, engine, runner
from dual_bench.catalog import MODELS, parse_spec, validated
from dual_bench.inputs import Inputs, Resident
from dual_bench.plan import Plan, cells, load_corpus, read_plan
from dual_bench.probe import Probe, conditions, distinct, drawn, probe, projected, settled
from dual_bench.seeding import generator, torch_stream
from dual_bench.store import Run, read_run
from dual_bench.training import Queries, build, exact_repeats, predict, scores_of, without
from dual_bench.types import ADDITIVE, MODALITIES, SUBSETS, Batch, Output, Ragged, Task, UserError, Widths, is_probe

CLASSES = Task("classification", ("a", "b", "c"))
VALUE = Task("regression", low=-3.0, high=3.0)
TASKS = pytest.mark.parametrize("task", [CLASSES, VALUE], ids=["classification", "regression"])
WIDTHS = Widths(audio=5, vision=7, text=6)
N, DRAWS = 21, 2
ROWS, TEXTS = np.arange(30, 30 + N), np.arange(N)[::-1].copy()
PROBE = drawn(ROWS, TEXTS, DRAWS, 0, "official")
NAMES = [c.corruption for c in conditions(DRAWS)]
DUAL = ("decoder", "early", "late", "concat", "none", "bounded")
SPECS = [*(f"dual:width=8,text_path={path}" for path in DUAL), "concat", "text-only", "audio-only", "audio-vision"]


def made(text: str, task: Task = CLASSES) -> Any:
    """A model with weights that are large enough for every modality to matter."""
    name, given = parse_spec(text)
    spec = MODELS.load(name)
    module = build(spec, validated(spec.settings, given, text), WIDTHS, task, "probe")
    with torch_stream("probe weights"), torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return module.eval()


def resident_of(module: Any) -> Resident:
    rng = generator("probe inputs")

    def sequences(width: int, longest: int) -> Ragged:
        lengths = rng.integers(1, longest + 1, 60)
        return Ragged.pack([rng.normal(size=(n, width)).astype(np.float32) for n in lengths])

    inputs = Inputs(sequences(5, 9), sequences(7, 5), sequences(6, 4))
    return Resident(inputs, np.arange(30), module.modalities, "cpu")


def asked(module: Any, task: Task = CLASSES, wanted: Probe = PROBE) -> dict[str, list[np.ndarray[Any, Any]]]:
    """The answers by condition, a list over draws."""
    with exact_repeats("cpu", 1):
        scores = probe(module, resident_of(module), task, wanted)
    found: dict[str, list[np.ndarray[Any, Any]]] = {}
    for condition, answers in zip(conditions(len(wanted.donors)), scores, strict=True):
        found.setdefault(condition.corruption, []).append(answers)
    return found


@torch.no_grad()
def answer(module: Any, batch: Batch, task: Task = CLASSES) -> np.ndarray[Any, Any]:
    return scores_of(task, module(batch).logits).numpy()


def clean(module: Any, task: Task = CLASSES) -> np.ndarray[Any, Any]:
    with exact_repeats("cpu", 1):
        return predict(module, resident_of(module), task, Queries(ROWS, TEXTS))


# --------------------------------------------------------------------------------------- what is asked


def test_every_choice_of_modalities_is_taken_away_and_exchanged() -> None:
    assert ["+".join(s) for s in SUBSETS] == [
        "audio", "vision", "text", "audio+vision", "audio+text", "vision+text", "audio+vision+text",
    ]  # fmt: skip
    assert len(set(conditions(5))) == len(conditions(5)) == 7 + 7 * 5 + 1
    assert all(is_probe(name) for name in NAMES)


@TASKS
@pytest.mark.parametrize("spec", SPECS)
def test_an_absent_modality_has_no_valid_step(spec: str, task: Task) -> None:
    module = made(spec, task)
    found, whole = asked(module, task), resident_of(module).batch(ROWS, TEXTS)
    for subset in SUBSETS:
        expected = answer(module, without(whole, dict.fromkeys(subset, np.ones(N, bool))), task)
        np.testing.assert_allclose(found[f"absent:{'+'.join(subset)}"][0], expected, atol=1e-5)


@TASKS
@pytest.mark.parametrize("spec", SPECS)
def test_permuted_modalities_are_together_those_of_the_donor(spec: str, task: Task) -> None:
    module = made(spec, task)
    found, resident = asked(module, task), resident_of(module)
    for subset in SUBSETS:
        for draw, donor in enumerate(PROBE.donors):
            voices, faces, texts = (
                rows[donor] if m in subset else rows for m, rows in zip(MODALITIES, (ROWS, ROWS, TEXTS), strict=True)
            )
            expected = answer(module, resident.batch(voices, texts, faces), task)
            np.testing.assert_allclose(found[f"permuted:{'+'.join(subset)}"][draw], expected, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_additive_scores_are_those_of_a_longhand_loop(spec: str) -> None:
    module, resident = made(spec), resident_of(made(spec))
    block = np.array([4, 0, 17, 9, 2])
    rest = np.setdiff1d(np.arange(N), block)
    found = asked(module, wanted=replace(PROBE, blocks=(rest, block)))[ADDITIVE][0]

    def logit(text: int, heard: int) -> Tensor:
        with torch.no_grad():
            return module(resident.batch(ROWS[[heard]], TEXTS[[text]])).logits[0].double()

    everything = sum(logit(j, k) for j in block for k in block) / 25
    for i in block:
        own_text = sum(logit(i, j) for j in block) / 5
        own_rest = sum(logit(j, i) for j in block) / 5
        expected = (own_text + own_rest - everything).softmax(dim=0)
        np.testing.assert_allclose(found[i], expected.numpy(), atol=1e-5)


@TASKS
@pytest.mark.parametrize("spec", ["dual:width=8,text_path=late", "dual:width=8,text_path=none", "text-only"])
def test_a_model_that_adds_up_is_its_own_additive_projection(spec: str, task: Task) -> None:
    module = made(spec, task)
    np.testing.assert_allclose(asked(module, task)[ADDITIVE][0], clean(module, task), atol=1e-5)


@pytest.mark.parametrize("spec", ["dual:width=8", "dual:width=8,text_path=early", "concat"])
def test_a_model_that_does_not_add_up_is_changed(spec: str) -> None:
    module = made(spec)
    assert np.abs(asked(module)[ADDITIVE][0] - clean(module)).max() > 1e-3


def test_sums_are_kept_and_of_other_interactions_the_share_shows_that_is_documented() -> None:
    rng = generator("interaction")
    text, rest = rng.normal(size=(2, 16, 4000))
    summed = text[:, None] + rest[None]
    np.testing.assert_allclose(projected(summed), text + rest, atol=1e-12)
    noise = rng.normal(size=(16, 16, 4000))
    left = np.einsum("iik->ik", noise) - projected(summed + noise) + text + rest
    assert left.var() == pytest.approx((1 - 1 / 16) ** 2, abs=0.02)


# -------------------------------------------------------------------------------------------- who gives


@given(st.integers(2, 70), st.integers(1, 4), st.integers(0, 5))
def test_nobody_gives_to_oneself_and_everybody_gives_once(n: int, draws: int, root_seed: int) -> None:
    found = drawn(np.arange(n), np.arange(n), draws, root_seed, "official")
    assert found.donors.shape == (draws, n)
    for donor in found.donors:
        assert (np.sort(donor) == np.arange(n)).all()
        assert (donor != np.arange(n)).all()
        assert (donor[donor] == np.arange(n)).sum() == (n if n % 2 == 0 else n - 3)
    assert (np.sort(np.concatenate(found.blocks)) == np.arange(n)).all()
    sizes = [len(block) for block in found.blocks]
    assert max(sizes) <= 16
    assert max(sizes) - min(sizes) <= 1


def test_an_utterance_alone_keeps_its_own() -> None:
    alone = drawn(ROWS[:1], TEXTS[:1], 2, 0, "official")
    assert alone.donors.tolist() == [[0], [0]]
    found = asked(made("concat"), wanted=alone)
    np.testing.assert_allclose(found["permuted:text"][0], found[ADDITIVE][0], atol=1e-6)


def test_draws_folds_and_root_seeds_have_exchanges_of_their_own() -> None:
    some = [drawn(ROWS, TEXTS, 2, *rest) for rest in ((0, "official"), (1, "official"), (0, "other"))]
    assert len({donor.tobytes() for one in some for donor in one.donors}) == 6
    again = drawn(ROWS, TEXTS, 3, 0, "official")
    np.testing.assert_array_equal(again.donors[:2], some[0].donors)  # more draws leave the first as they were


def test_every_other_utterance_is_equally_likely_to_give() -> None:
    donors = drawn(np.arange(7), np.arange(7), 6000, 0, "official").donors
    counts = np.array([[(donors[:, i] == j).sum() for j in range(7)] for i in range(7)])
    assert not counts.diagonal().any()
    assert np.abs(counts[~np.eye(7, dtype=bool)] / 1000 - 1).max() < 0.15


# ------------------------------------------------------------------------------------------ what it costs


class Counter(nn.Module):
    """Counts the rows that it is shown."""

    def __init__(self, reads: frozenset[Any], late: bool) -> None:
        super().__init__()
        self.modalities, self.text_enters_late = reads, late
        self.rows, self.decoded = 0, 0

    def forward(self, batch: Batch) -> Output:
        self.rows += len(batch.audio)
        return Output(torch.zeros(len(batch.audio), 3))

    def trunk(self, batch: Batch) -> Tensor:
        self.rows += len(batch.audio)
        return torch.zeros(len(batch.audio), 1)

    def decode(self, state: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        self.decoded += len(text)
        return torch.zeros(len(text), 3)


def test_what_a_model_cannot_tell_apart_is_asked_once() -> None:
    for one in MODALITIES:
        module = Counter(frozenset({one}), late=False)
        asked(module)
        assert module.rows == N + 1
    both = Counter(frozenset({"audio", "vision"}), late=False)
    asked(both)
    exchanged = N + sum((donor[donor] != np.arange(N)).sum() for donor in PROBE.donors)
    assert both.rows <= 3 * N + 1 + DRAWS * N + exchanged


@pytest.mark.parametrize("spec", ["dual:width=8", "audio-vision", "text-only"])
def test_answers_are_the_same_just_where_the_same_is_asked(spec: str) -> None:
    module = made(spec)
    with exact_repeats("cpu", 1):
        scores = probe(module, resident_of(module), CLASSES, PROBE)[:-1].reshape(-1, 3)
    numbers = distinct(PROBE, module.modalities).ravel()
    both = {(number, *row) for number, row in zip(numbers.tolist(), scores.tolist(), strict=True)}
    assert len(both) == len(set(numbers.tolist())) == len(np.unique(scores, axis=0))


def test_a_trunk_is_paid_for_once_for_each_voice_with_a_face() -> None:
    module = Counter(frozenset(MODALITIES), late=True)
    asked(module)
    pairs = {(i, i) for i in range(N)} | {(-1, i) for i in range(N)} | {(i, -1) for i in range(N)} | {(-1, -1)}
    for donor in PROBE.donors:
        pairs |= set(zip(donor, range(N), strict=True)) | set(zip(range(N), donor, strict=True))
    assert module.rows == len(pairs)
    assert module.decoded > sum(len(block) ** 2 for block in PROBE.blocks)


def test_untouched_conditions_are_clean_to_the_bit() -> None:
    rng = generator("settled")
    answers, plain = rng.random((len(NAMES), 4, 3), np.float32), rng.random((4, 3), np.float32)
    found = dict(zip(NAMES, settled(answers, plain, frozenset({"audio", "vision"})), strict=True))
    same = {name for name, scores in found.items() if (scores == plain).all()}
    assert same == {"absent:text", "permuted:text", ADDITIVE}
    for name, scores in zip(NAMES, answers, strict=True):
        if name.startswith("absent") and name not in same:
            np.testing.assert_array_equal(found[name], scores)
    np.testing.assert_array_equal(settled(answers, plain, frozenset(MODALITIES)), answers)


# ---------------------------------------------------------------------------------------------- in a run

MODELS_RUN = ["dual:width=8", "dual:text_path=bounded,width=8", "concat:width=8", "text-only:width=8",
              "audio-vision:width=8"]  # fmt: skip
KEYS = ["model", "variant", "regime", "seed", "corruption", "rate", "draw", "utterance"]


def plan_of(folder: Path, **fields: Any) -> Plan:
    given = {
        "dataset": str(folder / "corpus.csv"),
        "models": MODELS_RUN,
        "regimes": ["clean", "matched"],
        "corruptions": ["word-drop"],
        "rates": [0.5, 1.0],
        "draws": 2,
        "seeds": 2,
        "metric": "",
        "training": {"epochs": 2},
    }
    return read_plan("default", {**given, **fields})


@pytest.fixture(scope="module", params=[False, True], ids=["classification", "regression"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probed")
    write_corpus(folder, regression=request.param)
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> tuple[Run, Run, list[runner.Job]]:
    """With and without the probe, and the jobs of the first."""
    jobs: list[runner.Job] = []
    work = engine.work
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "work", lambda job: jobs.append(job) or work(job))
        runner.run(plan_of(folder), Path(), folder / "cache", folder, folder / "with", "cpu", 1)
    plan = plan_of(folder, dependency=False)
    runner.run(plan, Path(), folder / "cache", folder, folder / "without", "cpu", 1)
    return read_run(folder / "with"), read_run(folder / "without"), jobs


def rows_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows in one order, without the digests of their cells."""
    plain = frame.drop(columns="cell").astype({k: str for k in KEYS if k not in ("seed", "rate", "draw")})
    return plain.sort_values([*KEYS, "wer", "score_0"]).reset_index(drop=True)


def test_probing_changes_no_other_row(runs: tuple[Run, Run, list[runner.Job]]) -> None:
    with_probe, without_probe, _ = runs
    for kind in ("predictions", "certified"):
        found, expected = rows_of(getattr(with_probe, kind)), rows_of(getattr(without_probe, kind))
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
        assert not found.empty
        assert not found["corruption"].map(is_probe).any()
    pd.testing.assert_frame_equal(with_probe.texts, without_probe.texts)
    assert without_probe.probes.empty
    for frame in (with_probe.predictions, with_probe.certified, with_probe.probes):
        assert frame.index.equals(pd.RangeIndex(len(frame)))


def test_the_rows_of_the_probe_stand_apart(runs: tuple[Run, Run, list[runner.Job]]) -> None:
    run = runs[0]
    probes = run.probes.astype({"corruption": str, "regime": str})
    trained_on_clean_text = [c for c in run.cells if c.regime == "clean" or c.corruption == "clean"]
    assert len(trained_on_clean_text) == 2 * 2 * len(MODELS_RUN)
    assert len(probes) == len(trained_on_clean_text) * (7 + 7 * 2 + 1) * 32
    assert set(probes["cell"]) == {c.digest for c in trained_on_clean_text}
    assert set(probes["corruption"]) == set(NAMES)
    assert set(probes.loc[probes["corruption"].str.startswith("permuted"), "draw"]) == {0, 1}
    assert (probes["rate"] == 1.0).all()
    assert (probes["severity"] == 0).all()
    assert probes[["wer", "cer", "dropped", "cosine", "text", "certified"]].isna().all(axis=None)
    assert np.isfinite(probes.filter(like="score_")).all(axis=None)
    truth = run.predictions.astype({"utterance": str}).drop_duplicates("utterance").set_index("utterance")["truth"]
    np.testing.assert_array_equal(probes["truth"], truth.loc[probes["utterance"].astype(str)])


def test_matched_to_clean_text_is_probed_like_clean(runs: tuple[Run, Run, list[runner.Job]]) -> None:
    probes = rows_of(runs[0].probes)
    halves = [probes[probes["regime"] == r].drop(columns="regime").reset_index(drop=True) for r in ("clean", "matched")]
    pd.testing.assert_frame_equal(*halves)


def test_all_models_exchange_with_the_same_utterances(runs: tuple[Run, Run, list[runner.Job]]) -> None:
    probes = [job.probe for job in runs[2] if job.probe is not None]
    assert len(probes) == 2 * len(MODELS_RUN)
    for one in probes:
        np.testing.assert_array_equal(one.donors, probes[0].donors)
        assert [b.tolist() for b in one.blocks] == [b.tolist() for b in probes[0].blocks]
    assert not hasattr(probes[0], "targets")


def test_what_is_not_read_is_worth_exactly_nothing(runs: tuple[Run, Run, list[runner.Job]]) -> None:
    run = runs[0]
    everything = pd.concat([run.predictions, run.probes]).astype({"model": str, "corruption": str, "regime": str})
    keys, scores = ["seed", "utterance"], list(everything.filter(like="score_").columns)

    def under(model: str, corruption: str) -> pd.DataFrame:
        chosen = everything[(everything["model"] == model) & (everything["corruption"] == corruption)]
        chosen = chosen[(chosen["regime"] == "clean") & (chosen["draw"] == 0)]
        return chosen.sort_values(keys)[scores].reset_index(drop=True)

    nothing = {
        "audio-vision": ["absent:text", "permuted:text", "additive"],
        "text-only": ["absent:audio+vision", "permuted:vision", "additive"],
    }
    for model, names in nothing.items():
        for name in names:
            pd.testing.assert_frame_equal(under(model, name), under(model, "clean"), check_exact=True)
    pd.testing.assert_frame_equal(
        under("audio-vision", "absent:audio+text"), under("audio-vision", "absent:audio"), check_exact=True
    )
    assert (under("text-only", "absent:text").nunique() == 2).all()  # one answer a seed


def test_cells_with_and_without_the_probe_have_digests_of_their_own(folder: Path) -> None:
    corpus = load_corpus(str(folder / "corpus.csv"), Path())

    def digests(**fields: Any) -> dict[tuple[object, ...], tuple[str, bool]]:
        plan = plan_of(folder, **fields)
        found = cells(plan, corpus, plan.conditions(corpus), {}, "cpu")
        return {(c.variant.model, c.variant.changed, *c.regimen, c.seed): (c.digest, c.probed) for c in found}

    asked_for, spared = digests(), digests(dependency=False)
    assert {name for name, found in asked_for.items() if found != spared[name]} == {
        name for name in asked_for if name[3] in ("", "clean")
    }
    assert all(probed == (name[3] in ("", "clean")) for name, (_, probed) in asked_for.items())
    assert not any(probed for _, probed in spared.values())
    plans = [plan_of(folder, corruptions=["word-drop"], rates=[0.0], regimes=["clean"], draws=n) for n in (2, 3)]
    alike = [{c.digest for c in cells(p, corpus, p.conditions(corpus), {}, "cpu")} for p in plans]
    assert not alike[0] & alike[1]  # nothing but the probe has draws here


@pytest.mark.parametrize("name", ["absent:text", "permuted:audio+vision", "additive"])
def test_a_plan_cannot_ask_for_what_the_probe_asks(folder: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"'{name.replace('+', '[+]')}'"):
        plan_of(folder, corruptions=[name])


@pytest.mark.parametrize(
    ("command", "study", "replaced"), [("run", "default", None), ("ablate", "components", {"dependency": "False"})]
)
def test_flags_decide_whether_models_are_probed(
    command: str, study: str, replaced: dict[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    seen: list[Any] = []
    monkeypatch.setattr(cli, "_carry_out", lambda plan, record, *rest: seen.append((plan, record)))
    for flag in ([], ["--no-dependency"], ["--dependency"]):
        result = CliRunner().invoke(cli.app, [command, study, *flag])
        assert result.exit_code == 0, result.output
    assert [plan.dependency for plan, _ in seen] == [True, False, True]
    if replaced is not None:
        assert seen[1][1].replaced == replaced
