"""``dual-bench check`` names what is wrong: one broken part for each promise, in plain words."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calling import invoke, refused
from tiny import write_corpus
from torch import Tensor, nn

from dual_bench.contract import corpora, corruptions, models
from dual_bench.contract.checks import Finding, examined, findings
from dual_bench.models.layers import masked_mean
from dual_bench.models.spec import spec_of
from dual_bench.plan import load_corpus
from dual_bench.types import MODALITIES, Batch, Corpus, Corruption, Fold, Output, Signal, Task, Widths

# ------------------------------------------------------------------------------------------------ models


class Plain(nn.Module):
    """The mean of each modality, a layer, an answer: nothing is wrong with it."""

    def __init__(self, widths: Widths, task: Task) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({m: nn.Linear(getattr(widths, m), 16) for m in MODALITIES})
        self.head = nn.Linear(48, task.outputs)

    def pooled(self, sequence: Tensor, mask: Tensor) -> Tensor:
        return masked_mean(sequence, mask)

    def joined(self, batch: Batch) -> Tensor:
        means = {m: self.pooled(getattr(batch, m), getattr(batch, f"{m}_mask")) for m in MODALITIES}
        return torch.cat([torch.relu(layer(means[m])) for m, layer in self.layers.items()], dim=-1)

    def forward(self, batch: Batch) -> Any:
        return Output(self.head(self.joined(batch)))


class GivesATuple(Plain):
    def forward(self, batch: Batch) -> Any:
        return self.head(self.joined(batch)), None


class AveragesOverUtterances(Plain):
    def forward(self, batch: Batch) -> Any:
        return self.head(self.joined(batch)).mean(dim=0)


class TakesALog(Plain):
    def forward(self, batch: Batch) -> Any:
        return self.head(self.joined(batch)).log()


class FallsOver(Plain):
    def forward(self, batch: Batch) -> Any:
        return self.head(self.joined(batch)[:, :5])


class AveragesPadding(Plain):
    def pooled(self, sequence: Tensor, mask: Tensor) -> Tensor:
        return sequence.mean(dim=1)


class SeesTheOthers(Plain):
    def forward(self, batch: Batch) -> Any:
        logits = self.head(self.joined(batch))
        return logits - logits.mean(dim=0)


class IgnoresTheFace(Plain):
    def joined(self, batch: Batch) -> Tensor:
        return super().joined(replace(batch, vision=torch.zeros_like(batch.vision)))


class ReadsInSecret(Plain):
    modalities = frozenset({"audio", "vision"})


class DividesByNoStep(Plain):
    def pooled(self, sequence: Tensor, mask: Tensor) -> Tensor:
        return sequence.masked_fill(~mask[:, :, None], 0.0).sum(dim=1) / mask.sum(dim=1, keepdim=True)


class ReadsTheFirstStep(Plain):
    def pooled(self, sequence: Tensor, mask: Tensor) -> Tensor:
        return sequence[:, 0]


class RollsDice(Plain):
    def forward(self, batch: Batch) -> Any:
        logits = self.head(self.joined(batch))
        return logits + torch.rand_like(logits)


class HasTwoHeads(Plain):
    text_enters_late = True

    def trunk(self, batch: Batch) -> Tensor:
        return self.joined(replace(batch, text=torch.zeros_like(batch.text)))

    def decode(self, state: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.head(state)
        return logits


class ReadsWordsEarly(HasTwoHeads):
    def trunk(self, batch: Batch) -> Tensor:
        return self.joined(batch)


class HasDeadWeights(Plain):
    def __init__(self, widths: Widths, task: Task) -> None:
        super().__init__(widths, task)
        self.unused = nn.Linear(3, 3)


class SetsItsOwnSeed(Plain):
    def __init__(self, widths: Widths, task: Task) -> None:
        torch.manual_seed(1)
        super().__init__(widths, task)


class StartsAnywhere(Plain):
    def __init__(self, widths: Widths, task: Task) -> None:
        super().__init__(widths, task)
        nn.init.constant_(self.head.bias, random.random())


class LearnsByChance(Plain):
    def forward(self, batch: Batch) -> Any:
        return self.head(self.joined(batch)) * (random.random() if self.training else 1.0)


class IsTooNarrow(Plain):
    def forward(self, batch: Batch) -> Any:
        return self.head(self.joined(batch).mean(dim=1, keepdim=True).expand(-1, 48))


class ForgetsATensor(Plain):
    def __init__(self, widths: Widths, task: Task) -> None:
        super().__init__(widths, task)
        self.mixing = {"first": torch.randn(48, 48)}

    def joined(self, batch: Batch) -> Tensor:
        return super().joined(batch) @ self.mixing["first"]


class TakesTheLargest(Plain):
    time_bins = 3

    def pooled(self, sequence: Tensor, mask: Tensor) -> Tensor:
        return sequence.masked_fill(~mask[:, :, None], 0.0).amax(dim=1)


class SeesTheOtherSeeds(Plain):
    stackable = True

    def joined(self, batch: Batch) -> Tensor:
        found = super().joined(batch)
        return found if found.dim() == 2 else found.flip(0)


CASES: list[tuple[type[Plain], str, str]] = [
    (GivesATuple, "shapes", "expected forward to give an Output or bare logits, found tuple"),
    (AveragesOverUtterances, "shapes", "expected logits of shape (4, 4) for 4 utterances and 4 classes, found (4,)"),
    (FallsOver, "shapes", "raised RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x5 and 48x4) (test_"),
    (TakesALog, "finite", "expected finite logits, found NaN or infinity"),
    (AveragesPadding, "padding", "an utterance alone and in a padded batch gets different logits"),
    (SeesTheOthers, "padding", "a padded step leaks in, or another utterance"),
    (SeesTheOthers, "predicts", "get other scores than one by one"),
    (IgnoresTheFace, "reads", "it says that it reads vision, and answers the same whatever that is"),
    (ReadsInSecret, "reads", "it reads text, which its attribute `modalities` does not name"),
    (DividesByNoStep, "absent", "where audio has no valid step the logits are not finite"),
    (ReadsTheFirstStep, "absent", "where audio has no valid step the answer still depends on what stands there"),
    (TakesTheLargest, "bins", "voice and face averaged onto its 3 bins before it sees them give other logits"),
    (SeesTheOtherSeeds, "stacks", "trained stacked it gives other scores than alone"),
    (RollsDice, "repeats", "the same batch gets other logits the second time"),
    (HasTwoHeads, "trunk", "forward and decode(trunk(batch), text, text_mask) differ"),
    (ReadsWordsEarly, "trunk", "text changes what trunk gives; read it in decode alone"),
    (HasDeadWeights, "gradients", "no gradient reaches unused.weight, unused.bias"),
    (StartsAnywhere, "streams", "the same seed gives other first weights"),
    (SetsItsOwnSeed, "streams", "another seed gives the same first weights"),
    (LearnsByChance, "trains_alike", "two trainings from the same seed give different weights"),
    (IsTooNarrow, "overfits", "after 300 epochs on 32 utterances it knows"),
    (ForgetsATensor, "saves", "something random is neither a parameter nor a buffer"),
    (ForgetsATensor, "moves", "'mixing' is a tensor that .to(device) leaves behind"),
]  # fmt: skip


def subject(kind: Callable[[Widths, Task], nn.Module]) -> models.Subject:
    def build(widths: Widths, task: Task) -> nn.Module:
        return kind(widths, task)

    spec = replace(spec_of("broken", build), stackable=getattr(kind, "stackable", False))
    return models.Subject(spec, spec.settings())


def promised(module: Any) -> dict[str, str]:
    """The promises of a kind of part, by the name of the function that checks each."""
    return {check.__name__: promise for promise, check in module.PROMISES.items()}


def checked(module: Any, check: str, part: object) -> Finding:
    promise = promised(module)[check]
    return examined(promise, module.PROMISES[promise], part)


@pytest.mark.parametrize(("kind", "check", "sentence"), CASES)
def test_a_broken_model_is_told_what_is_wrong_with_it(kind: type[Plain], check: str, sentence: str) -> None:
    found = checked(models, check, subject(kind))
    assert found.verdict == "FAILS"
    assert sentence in found.detail


@pytest.mark.parametrize("check", promised(models))
def test_a_model_that_keeps_its_promises_fails_nothing(check: str) -> None:
    """But one: a function inside another cannot be found by other processes."""
    found = checked(models, check, subject(Plain))
    if check == "crosses":
        assert found.detail.startswith("other processes cannot train it: Can't ")
    else:
        assert found.verdict != "FAILS", found.detail


class Constant(nn.Module):
    """Reads nothing, and starts from nothing."""

    modalities = frozenset[str]()

    def __init__(self, widths: Widths, task: Task) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(task.outputs))

    def forward(self, batch: Batch) -> Tensor:
        return self.logits.expand(len(batch.text), -1)


def test_a_model_that_reads_nothing_need_not_learn_anything_by_heart() -> None:
    found = list(findings(models.PROMISES, subject(Constant)))
    assert [f.promise for f in found if f.verdict == "FAILS"] == ["can be sent to another process"]
    assert [f.detail for f in found if f.promise == "can learn 32 utterances by heart"] == ["it reads nothing"]


def test_every_promise_of_a_model_is_broken_here_by_some_model() -> None:
    assert {check for _, check, _ in CASES} | {"crosses", "on_gpu"} == set(promised(models))


def test_a_record_that_says_otherwise_than_its_module_is_found_out() -> None:
    spec = replace(subject(ReadsInSecret).spec, reads=lambda settings: frozenset({"audio"}))
    found = checked(models, "reads", models.Subject(spec, spec.settings()))
    assert "the record says that it reads audio, the module audio and vision" in found.detail


def falling_over(widths: Widths, task: Task) -> nn.Module:
    raise KeyError("width")


def test_what_ends_every_check_is_told_once() -> None:
    spec = spec_of("broken", falling_over)
    first, *rest = findings(models.PROMISES, models.Subject(spec, spec.settings()))
    assert first.detail.startswith("model 'broken' cannot be built: KeyError: 'width' (test_check.py, line ")
    assert {found.verdict for found in rest} == {"skipped"}


# ------------------------------------------------------------------------------------------- corruptions

Noise = Callable[[str, float, np.random.Generator], Any]


def dropped(text: str, rate: float, rng: np.random.Generator) -> str:
    """Nothing is wrong with it."""
    return " ".join(w for w, n in zip(text.split(" "), rng.random(text.count(" ") + 1), strict=True) if n >= rate)


def drops_some_first(text: str, rate: float, rng: np.random.Generator) -> str:
    rng.random(int(10 * rate))
    return dropped(text, rate, rng)


BROKEN: list[tuple[Noise, str, str]] = [
    (lambda text, rate, rng: dropped(text.strip(), rate, rng), "identity", "as it is at rate 0, found ''"),
    (lambda text, rate, rng: dropped(text, rate, rng).split(), "valid", "expected a text for 'We opened"),
    (lambda text, rate, rng: text[0] + dropped(text[1:], rate, rng), "valid", "raised IndexError: string index"),
    (lambda text, rate, rng: dropped(text, rate, rng) + "\ud83d" * (rate > 0), "valid", "half of a character"),
    (lambda text, rate, rng: text + random.choice("abcdefgh") * (rate > 0), "deterministic", "the same generator"),
    (drops_some_first, "draws", "it draws more numbers at one rate than at another"),
    (drops_some_first, "nested", "with the same generator not at"),
    (lambda text, rate, rng: dropped(text, min(rate, 1 - rate), rng), "grows", "nothing happens to any of 24"),
    (lambda text, rate, rng: text[1:] if rate else text, "grows", "it does as much at rate 0.1 as at 1"),
    (lambda text, rate, rng: dropped(text, rate if rate < 0.5 else rate / 2, rng), "grows", "it does less at rate 0.7"),
]  # fmt: skip


@pytest.mark.parametrize(("apply", "check", "sentence"), BROKEN)
def test_a_broken_corruption_is_told_what_is_wrong_with_it(apply: Noise, check: str, sentence: str) -> None:
    found = checked(corruptions, check, Corruption("broken", 1, apply, rate_is="words lost"))
    assert found.verdict == "FAILS"
    assert sentence in found.detail


def test_a_corruption_that_keeps_its_promises_fails_nothing_and_may_say_that_it_is_not_nested() -> None:
    good = Corruption("good", 1, dropped, rate_is="words lost")
    assert {found.verdict for found in findings(corruptions.PROMISES, good)} == {"ok"}
    assert checked(corruptions, "nested", replace(good, nested=False)).detail == "it says nested=False"


def test_a_corruption_has_to_say_what_its_rate_is() -> None:
    assert "rate_is is empty" in checked(corruptions, "record", Corruption("silent", 1, dropped, rate_is=" ")).detail
    assert {check for _, check, _ in BROKEN} | {"record"} == set(promised(corruptions))


# ----------------------------------------------------------------------------------------------- corpora


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("whole")
    return load_corpus(str(write_corpus(folder)), folder)


def first(corpus: Corpus, **changes: Any) -> Corpus:
    """With another first utterance, which trains."""
    return replace(corpus, utterances=(replace(corpus.utterances[0], **changes), *corpus.utterances[1:]))


def divided(corpus: Corpus, train: slice, validation: slice, test: slice) -> Corpus:
    rows = np.arange(len(corpus))
    return replace(corpus, folds=(Fold("own", rows[train], rows[validation], rows[test]),))


def alike(corpus: Corpus) -> Corpus:
    return replace(corpus, utterances=tuple(replace(u, target=1.0) for u in corpus.utterances))


def sounding(corpus: Corpus, change: Callable[[list[Any]], list[Any]]) -> Corpus:
    audio = corpus.signals["audio"]
    return replace(corpus, signals=corpus.signals | {"audio": Signal(audio.kind, change(list(audio.items)))})


UNSOUND: list[tuple[Callable[[Corpus], Any], str, str]] = [
    (lambda c: c.utterances, "readable", "expected load(data) to give a dual_bench.types.Corpus, found tuple"),
    (lambda c: first(c, id="u01"), "unique", "utterance id 'u01' stands 2 times"),
    (lambda c: divided(c, slice(48), slice(0), slice(64, 96)), "divided", "fold 'own' has no utterance in validation"),
    (lambda c: divided(c, slice(48), slice(44, 64), slice(64, 96)), "divided", "'u44' stands twice in fold 'own'"),
    (lambda c: first(c, cluster="talk16"), "clusters", "cluster 'talk16' is in train and test of fold 'official'"),
    (lambda c: first(c, target=4.0), "targets", "utterance 'u00' is of class 4, outside 0..3"),
    (lambda c: replace(c, task=Task("regression", low=0, high=2)), "targets", "has the value 3, outside [0, 2]"),
    (alike, "several", "all that train in fold 'official' have one class"),
    (lambda c: sounding(c, lambda items: items[1:]), "signals", "audio has 95 items for 96 utterances"),
    (lambda c: sounding(c, lambda items: [items[0] * np.nan, *items[1:]]), "signals", "'u00' holds NaN or infinity"),
    (lambda c: sounding(c, lambda items: [items[0][:, 1:], *items[1:]]), "signals", "have the widths [4, 5]"),
    (lambda c: sounding(c, lambda items: [items[0][0], *items[1:]]), "signals", "2 dimensions, found shape (5,)"),
    (lambda c: sounding(c, lambda items: [item[:0] for item in items]), "signals", "no utterance has audio"),
    (lambda c: replace(c, fingerprint=""), "stable", "its fingerprint is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "check", "sentence"), UNSOUND)
def test_a_broken_corpus_is_told_what_is_wrong_with_it(
    whole: Corpus, change: Callable[[Corpus], Any], check: str, sentence: str
) -> None:
    found = checked(corpora, check, corpora.Subject(lambda: change(whole)))
    assert found.verdict == "FAILS"
    assert sentence in found.detail


def test_a_corpus_that_is_another_each_time_it_is_read_is_found_out(whole: Corpus) -> None:
    numbers = count()
    subject = corpora.Subject(lambda: replace(whole, fingerprint=f"f{next(numbers)}"))
    assert "read a second time it has another fingerprint" in checked(corpora, "stable", subject).detail
    assert {check for _, check, _ in UNSOUND} == set(promised(corpora))


def test_what_cannot_be_read_is_looked_at_no_further() -> None:
    def load() -> Corpus:
        raise ZeroDivisionError("no rows")

    found = list(findings(corpora.PROMISES, corpora.Subject(load)))
    assert found[0].detail.startswith("raised ZeroDivisionError: no rows (test_check.py, line ")
    assert {(f.verdict, f.detail) for f in found[1:]} == {("skipped", "it cannot be read")}


# ------------------------------------------------------------------------------------------- the command

PARTS = """
from torch import nn
from dual_bench.types import Corruption

def corpus(data):
    raise FileNotFoundError(data / "talks.csv")

class Sum(nn.Module):
    def __init__(self, widths, task):
        super().__init__()
        self.head = nn.Linear(widths.audio + widths.vision + widths.text, task.outputs)

    def forward(self, batch):
        return self.head(torch.cat([batch.audio.sum(1), batch.vision.sum(1), batch.text.sum(1)], dim=1))

def model(widths, task):
    return Sum(widths, task)

def noise(text, rate, rng):
    return text

NOISE = Corruption("noise", 1, noise, rate_is="words lost")
NUMBER = 3
"""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of parts; nothing but the command makes it importable."""
    (tmp_path / "checked_parts.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.delitem(sys.modules, "checked_parts", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "kind", "sentence"),
    [
        ("checked_parts:model", "model", "raised NameError: name 'torch' is not defined (checked_parts.py, line 14)"),
        ("checked_parts:NOISE", "corruption", "nothing happens to any of 24 sentences at rate 1"),
        ("checked_parts:corpus", "corpus", "raised FileNotFoundError"),
    ],
)
def test_a_part_in_this_folder_that_breaks_a_promise_ends_with_exit_code_1(
    parts: Path, target: str, kind: str, sentence: str
) -> None:
    result = invoke("check", target)
    assert result.exit_code == 1
    assert sentence in " ".join(result.output.split())
    assert f"{kind} {target}: " in result.output
    assert "checks fail" in result.output


def test_what_is_wrong_with_a_manifest_is_a_finding_and_a_manifest_that_is_not_there_a_mistake(parts: Path) -> None:
    path = write_corpus(parts)
    assert invoke("check", "corpus.csv").exit_code == 0
    path.write_text(path.read_text().replace("u01", "u02"))
    result = invoke("check", "corpus.csv")
    assert (result.exit_code, "'u02' stands twice" in " ".join(result.output.split())) == (1, True)
    assert "manifest corpse.csv is missing" in refused("check", "corpse.csv")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["duel"], "unknown model, corruption or corpus 'duel'; did you mean 'dual'?"),
        (["???"], "unknown model, corruption or corpus '???'; `dual-bench list` shows what there is"),
        (["dual:sdmm=off"], "model 'dual': unknown setting 'sdmm'; did you mean 'sdm'?"),
        (["word-drop:rate=1"], "corruption 'word-drop' has no settings"),
        (["synthetic:sed=1"], "unknown setting 'sed'; did you mean 'seed'?"),
        (["dual", "--as", "modell"], "--as: expected model, corruption, corpus, found 'modell'; did you mean 'model'?"),
        (["typo", "--as", "model"], "unknown model 'typo'"),
        (["checked_parts:Sum"], "'checked_parts:Sum' is the class Sum: expected a model"),
        (["checked_parts:Sum", "--as", "model"], "expected a function build(widths, task, setting=default, …)"),
        (["checked_parts:NUMBER"], "'checked_parts:NUMBER' is of type int: expected a model"),
        (["checked_parts:noise"], "looks like the function of a corruption; name the Corruption that holds it"),
        (["dual", "--as", "corpus"], "unknown corpus 'dual'; known: "),
        (["checked_parts:modell"], "has no attribute 'modell'; did you mean 'model'?"),
        (["checked_part:model"], "part 'checked_part:model' cannot be loaded: No module named 'checked_part'"),
    ],
)
def test_a_slip_ends_with_exit_code_2_and_the_nearest_name(parts: Path, arguments: list[str], sentence: str) -> None:
    assert sentence in refused("check", *arguments)
