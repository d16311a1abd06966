"""Self-MM: the labels that it makes itself, against the paper's equations written out, and what becomes of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dual_bench.inputs import Inputs, Resident
from dual_bench.models.self_mm import SPEC, SelfMm, SelfMmSettings, UnimodalLabels, momentum, new_labels
from dual_bench.seeding import generator, torch_stream
from dual_bench.training import Examples, TrainingSettings, build, exact_repeats, fit
from dual_bench.types import MODALITIES, Batch, Lesson, Ragged, Task, Widths

WIDTHS = Widths(audio=3, vision=4, text=6)
VALUES = Task("regression", low=-3.0, high=3.0)
CLASSES = Task("classification", ("a", "b", "c"))
ROWS = np.arange(24)
TARGETS = {"regression": (ROWS % 5) - 2.0, "classification": (ROWS % 3).astype(float)}


def shifted(y_m: float, alpha_s: float, alpha_m: float) -> float:
    """The new label of a value, through the functions under test."""
    column = torch.tensor([[y_m]])
    s, m = torch.tensor([[[alpha_s]]]), torch.tensor([[alpha_m]])
    return new_labels(VALUES, column, s, m, torch.tensor([-3.0, 3.0])).item()


def taught(task: Task, targets: Tensor, spaces: Tensor, epochs: int) -> UnimodalLabels:
    """The labels after some epochs in which all utterances come at once and lie where ``spaces`` (4, n, d) says."""
    generation = UnimodalLabels(task, spaces.shape[2])
    for epoch in range(1, epochs + 1):
        lesson = Lesson(targets, targets, torch.arange(len(targets)), epoch)
        generation.of(lesson)
        generation.learn(lesson, spaces)
    return generation


# ---------------------------------------------------------------------------------------------- equations


@pytest.mark.parametrize(("y_m", "alpha_s", "alpha_m"), [(1.0, 0.5, 0.4), (-2.0, 0.1, -0.3), (0.5, -0.2, 0.8)])
def test_a_new_label_is_the_mean_of_equal_ratios_and_of_equal_differences(
    y_m: float, alpha_s: float, alpha_m: float
) -> None:
    by_ratio, by_difference = alpha_s * y_m / alpha_m, y_m + alpha_s - alpha_m
    assert shifted(y_m, alpha_s, alpha_m) == pytest.approx((by_ratio + by_difference) / 2, abs=1e-5)


def test_a_new_label_of_a_distribution_is_half_the_difference_away_cut_and_normalised() -> None:
    y_m, alpha_s, alpha_m = [1.0, 0.0, 0.0], [0.2, 0.7, 0.1], [0.5, 0.1, 0.4]
    cut = [max(0.0, y + (s - m) / 2) for y, s, m in zip(y_m, alpha_s, alpha_m, strict=True)]
    found = new_labels(
        CLASSES, torch.tensor([y_m]), torch.tensor([[alpha_s]]), torch.tensor([alpha_m]), torch.tensor([0.0, 1.0])
    )
    torch.testing.assert_close(found[0, 0], torch.tensor([c / sum(cut) for c in cut]))
    assert cut[2] == 0.0


def test_where_a_space_says_what_the_multimodal_one_says_the_label_stays() -> None:
    assert shifted(1.5, 0.3, 0.3) == 1.5
    same = torch.tensor([[0.2, 0.5, 0.3]])
    y_m = torch.tensor([[0.0, 1.0, 0.0]])
    assert torch.equal(new_labels(CLASSES, y_m, same[None], same, torch.tensor([0.0, 1.0]))[0], y_m)


def test_where_both_alphas_are_zero_the_label_stays() -> None:
    assert shifted(1.5, 0.0, 0.0) == 1.5


def test_momentum_is_the_papers_running_mean_in_which_epoch_i_weighs_i() -> None:
    """(i - 1)/(i + 1) and 2/(i + 1), unrolled: the mean of y_m and the new labels, of weights 1, 2, ..., i."""
    found, seen = torch.tensor(5.0), [5.0]
    for epoch, new in enumerate([1.0, -2.0, 0.5, 4.0], start=2):
        found = momentum(found, torch.tensor(new), epoch)
        seen.append(new)
        expected = sum(i * y for i, y in enumerate(seen, start=1)) / sum(range(1, epoch + 1))
        assert found.item() == pytest.approx(expected, abs=1e-5)


def test_a_label_converges_to_a_shift_that_stays() -> None:
    """Half of the first label's weight of 2 / (i (i + 1)) is left after i epochs, and nothing else of the way."""
    label = torch.tensor(1.0)
    for epoch in range(2, 101):
        label = momentum(label, torch.tensor(3.0), epoch)
    assert label.item() == pytest.approx(3.0 - 2.0 * 2 / (100 * 101), abs=1e-4)


@pytest.mark.parametrize("space", [1, 2, 3])
def test_labels_of_values_follow_from_centres_and_distances_written_out(space: int) -> None:
    targets = torch.tensor([2.0, 1.0, 0.0, -1.0, -3.0])
    with torch_stream("spaces", 0):
        spaces = torch.rand(4, 5, 2)
    found = taught(VALUES, targets, spaces, epochs=2).labels[space - 1, :, 0]
    for i in range(5):
        alpha = []
        for points in (spaces[space].tolist(), spaces[0].tolist()):
            positive = [(points[0][k] + points[1][k]) / 2 for k in range(2)]
            negative = [(points[3][k] + points[4][k]) / 2 for k in range(2)]  # the label 0 is on neither side
            near, far = (
                sum((points[i][k] - centre[k]) ** 2 for k in range(2)) / math.sqrt(2) for centre in (positive, negative)
            )
            alpha.append((far - near) / (near + 1e-6))
        y_m = targets[i].item()
        new = min(2.0, max(-3.0, y_m + (alpha[0] - alpha[1]) / 2 * (y_m + alpha[1]) / alpha[1]))
        assert found[i].item() == pytest.approx(y_m / 3 + 2 * new / 3, abs=1e-4)


def test_labels_of_classes_follow_from_centres_and_distances_written_out() -> None:
    targets = torch.tensor([0.0, 0.0, 1.0, 2.0])
    with torch_stream("spaces", 1):
        spaces = torch.rand(4, 4, 2)
    found = taught(CLASSES, targets, spaces, epochs=2).labels
    for i in range(4):
        alpha = []
        for points in (spaces[2], spaces[0]):
            centres = [(points[0] + points[1]) / 2, points[2], points[3]]
            away = [((points[i] - c) ** 2).sum().item() / math.sqrt(2) for c in centres]
            near = [math.exp(-3 * a / sum(away)) for a in away]
            alpha.append([n / sum(near) for n in near])
        sure = [float(k == targets[i]) for k in range(3)]
        cut = [max(0.0, y + (s - m) / 2) for y, s, m in zip(sure, *alpha, strict=True)]
        expected = [y / 3 + 2 * c / sum(cut) / 3 for y, c in zip(sure, cut, strict=True)]
        assert found[1, i].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_space_has_its_centres_by_its_own_labels() -> None:
    """Where a space has moved a label over 0, the utterance counts on the other side there, and there alone."""
    targets = torch.tensor([1.0, 1.0, -1.0])
    with torch_stream("spaces", 2):
        spaces = torch.rand(4, 3, 2)
    generations = [taught(VALUES, targets, spaces, epochs=1) for _ in range(2)]
    generations[1].labels[2, 0] = -0.5
    lesson = Lesson(targets[1:], targets, torch.tensor([1, 2]), 2)
    for generation in generations:
        generation.learn(lesson, spaces[:, 1:])
    moved = generations[0].labels[:, 1:] != generations[1].labels[:, 1:]
    assert moved.flatten(1).any(dim=1).tolist() == [False, False, True]


def test_an_utterance_that_is_nearer_to_the_positive_ones_in_a_space_gets_a_higher_label_there() -> None:
    targets = torch.tensor([1.0, -1.0, 0.5])
    spaces = torch.tensor([[0.0], [1.0], [0.4]]).repeat(4, 1, 1)
    spaces[1, 2], spaces[3, 2] = 0.2, 0.45
    label = taught(VALUES, targets, spaces, epochs=2).labels[:, 2, 0]
    assert label[0] > 0.5
    assert label[1] == 0.5
    assert label[2] < 0.5


@pytest.mark.parametrize("task", [VALUES, CLASSES], ids=["values", "classes"])
def test_the_size_of_a_space_does_not_matter(task: Task) -> None:
    targets = torch.from_numpy(TARGETS[task.kind]).float()
    with torch_stream("spaces", 3):
        spaces = torch.randn(4, 24, 2)
    larger = spaces * torch.tensor([30.0, 1.0, 20.0, 10.0]).view(4, 1, 1)
    one, other = (taught(task, targets, given, epochs=3).labels for given in (spaces, larger))
    torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


@given(st.integers(0, 10_000), st.sampled_from([VALUES, CLASSES]))
def test_labels_stay_in_the_range_of_the_targets_or_are_distributions(seed: int, task: Task) -> None:
    with torch_stream("any", seed):
        spaces = 3 * torch.randn(4, 24, 2)
    labels = taught(task, torch.from_numpy(TARGETS[task.kind]).float(), spaces, epochs=4).labels
    if task is VALUES:
        assert labels.min() >= -2.0
        assert labels.max() <= 2.0
    else:
        assert labels.min() >= 0.0
        torch.testing.assert_close(labels.sum(dim=2), torch.ones(3, 24))


@pytest.mark.parametrize("targets", [[1.0, 2.0, 0.5], [-1.0, -2.0, 0.0]])
def test_where_all_values_are_on_one_side_no_label_moves(targets: list[float]) -> None:
    with torch_stream("one side", 0):
        spaces = torch.randn(4, 3, 2)
    labels = taught(VALUES, torch.tensor(targets), spaces, epochs=5).labels
    torch.testing.assert_close(labels, torch.tensor(targets)[:, None].expand(3, 3, 1))


def test_a_class_that_nobody_has_gets_no_share_of_a_label() -> None:
    with torch_stream("no class", 0):
        spaces = torch.randn(4, 4, 2)
    labels = taught(CLASSES, torch.tensor([0.0, 1.0, 1.0, 0.0]), spaces, epochs=5).labels
    assert not labels[:, :, 2].any()
    assert ((labels > 0) & (labels < 1)).any()


# ------------------------------------------------------------------------------------------------- model


def made(task: Task, **settings: object) -> SelfMm:
    model = build(SPEC, SelfMmSettings(**{"width": 8, "steps": 4, "dropout": 0.0, **settings}), WIDTHS, task, "self-mm")
    assert isinstance(model, SelfMm)
    return model


def resident() -> Resident:
    rng = generator("self-mm inputs")

    def sequences(width: int) -> Ragged:
        return Ragged.pack([rng.normal(size=(n, width)).astype(np.float32) for n in rng.integers(1, 5, 24)])

    return Resident(Inputs(sequences(3), sequences(4), sequences(6)), ROWS, frozenset(MODALITIES), "cpu")


def trained(model: SelfMm, epochs: int) -> SelfMm:
    examples = Examples(ROWS, ROWS[None], TARGETS[model.task.kind])
    settings = TrainingSettings(epochs=epochs, patience=epochs, batch_size=10, learning_rate=1e-2)
    with exact_repeats("cpu", 1):
        fit(model, resident(), examples, examples, model.task, settings, "self-mm")
    return model


def lesson_of(task: Task, epoch: int) -> tuple[Batch, Lesson]:
    everyone = torch.from_numpy(TARGETS[task.kind]).float()
    places = torch.tensor([3, 0, 17])
    lesson = Lesson(everyone[places], everyone, places, epoch)
    given = resident().batch(places.numpy(), places.numpy())
    return Batch(**{**vars(given), "lesson": lesson}), lesson


@pytest.mark.parametrize("task", [VALUES, CLASSES], ids=["values", "classes"])
def test_labels_of_the_modalities_part_in_training(task: Task) -> None:
    labels = trained(made(task), epochs=4).generation.labels
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (labels[one] - labels[other]).abs().max() > 0.01
    assert labels.isfinite().all()


@pytest.mark.parametrize("task", [VALUES, CLASSES], ids=["values", "classes"])
def test_in_the_first_epoch_labels_are_the_multimodal_ones_and_the_unimodal_loss_is_zero(task: Task) -> None:
    given, lesson = lesson_of(task, epoch=1)
    model = made(task).train()
    assert model(given).auxiliary["unimodal"][1] == 0
    expected = lesson.everyone[:, None] if task is VALUES else torch.eye(3)[lesson.everyone.long()]
    assert torch.equal(model.generation.labels, expected.expand(3, -1, -1))


def test_the_unimodal_loss_weighs_an_utterance_by_how_far_its_label_has_moved() -> None:
    answers, labels, y_m = (torch.tensor(v).view(-1, 2, 1) for v in ([1.0, 2.0] * 3, [0.5, -1.0] * 3, [0.5, 1.0]))
    found = made(VALUES).unimodal_loss(answers, labels, y_m[0])
    assert found.item() == pytest.approx(3 * math.tanh(2.0) * 3.0 / 2, abs=1e-5)


def test_class_weights_weigh_the_unimodal_losses_of_classes_too() -> None:
    labels = torch.tensor([[[0.2, 0.8, 0.0]]]).repeat(3, 1, 1)
    answers, y_m = torch.zeros(3, 1, 3), torch.tensor([[1.0, 0.0, 0.0]])
    model, weights = made(CLASSES), torch.tensor([3.0, 0.5, 1.0])
    plain, weighed = (float(model.unimodal_loss(answers, labels, y_m, given)) for given in (None, weights))
    assert weighed / plain == pytest.approx(0.2 * 3.0 + 0.8 * 0.5)


def test_the_unimodal_loss_of_classes_is_a_weighted_cross_entropy_with_the_labels() -> None:
    labels = torch.tensor([[[0.7, 0.2, 0.1]]]).repeat(3, 1, 1)
    answers = torch.tensor([[[1.0, 0.0, -1.0]]]).repeat(3, 1, 1)
    found = made(CLASSES).unimodal_loss(answers, labels, torch.tensor([[1.0, 0.0, 0.0]]))
    total = math.log(math.e + 1 + 1 / math.e)
    entropy = 0.7 * (total - 1) + 0.2 * total + 0.1 * (total + 1)
    assert found.item() == pytest.approx(3 * math.tanh(0.3 + 0.2 + 0.1) * entropy, abs=1e-5)


def test_a_batch_is_taught_the_labels_of_before_and_moves_only_its_own() -> None:
    model = trained(made(VALUES), epochs=3).train()
    given, lesson = lesson_of(VALUES, epoch=4)
    before = model.generation.labels.clone()
    with torch.no_grad():
        found = model(given).auxiliary["unimodal"][1]
        features = model._features(model.trunk(given), given.text, given.text_mask)
        answers = torch.stack([head(f)[1] for head, f in zip(model.unimodal, features, strict=True)])
    expected = model.unimodal_loss(answers, before[:, lesson.places], lesson.targets[:, None])
    torch.testing.assert_close(found, expected)
    moved = (model.generation.labels != before).any(dim=2).any(dim=0)
    assert moved.nonzero().flatten().tolist() == sorted(lesson.places.tolist())


def test_no_gradient_goes_through_labels_or_what_they_are_made_of() -> None:
    generation = trained(made(CLASSES), epochs=2).generation
    assert not generation.labels.requires_grad
    assert not generation.representations.requires_grad


def test_labels_are_no_part_of_what_is_saved() -> None:
    model = made(CLASSES)
    assert set(trained(model, epochs=2).state_dict()) == {name for name, _ in model.named_parameters()}


def test_a_second_training_starts_with_fresh_labels() -> None:
    """The module trained twice, with its first weights put back, ends where a fresh one ends."""
    model, fresh = made(VALUES), made(VALUES)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    trained(model, epochs=3)
    model.load_state_dict(first)
    again, once = trained(model, epochs=3), trained(fresh, epochs=3)
    assert torch.equal(again.generation.labels, once.generation.labels)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), once.parameters(), strict=True))


def test_without_a_lesson_the_unimodal_heads_learn_the_multimodal_answer_which_stays_as_it_is() -> None:
    given, _ = lesson_of(VALUES, epoch=1)
    model = made(VALUES).train()
    model(Batch(**{**vars(given), "lesson": None})).auxiliary["unimodal"][1].backward()
    assert all(p.grad is not None and p.grad.any() for p in model.unimodal.parameters())
    assert all(p.grad is None for p in model.multimodal.parameters())


def test_without_weight_there_are_no_unimodal_heads_and_no_labels() -> None:
    given, _ = lesson_of(VALUES, epoch=1)
    model = made(VALUES, lambda_unimodal=0.0).train()
    assert model(given).auxiliary == {}
    assert not [name for name, _ in model.named_parameters() if "unimodal" in name]
    assert model.generation.labels.shape[1] == 0


def test_in_evaluation_forward_is_exactly_decode_of_trunk_and_has_no_other_loss() -> None:
    given, _ = lesson_of(CLASSES, epoch=1)
    model = made(CLASSES).eval()
    output = model(given)
    assert torch.equal(output.logits, model.decode(model.trunk(given), given.text, given.text_mask))
    assert output.auxiliary == {}
