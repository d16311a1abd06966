"""Self-MM: a multimodal task and three unimodal ones, whose labels the model makes itself.

Source: Yu, Xu, Yuan, Wu 2021, AAAI 35:10790, "Learning Modality-Specific Representations with Self-Supervised
Multi-Task Learning for Multimodal Sentiment Analysis". Symbols (s one of audio, vision, text; m all of them):

    representations    F*_m = relu(W [F_a; F_v; F_t]),  F*_s = relu(W F_s);  each with a linear head that answers y^
    centres            C^p, C^n: mean F* of the training utterances with a positive label, and with a negative one
    distances          D^p = |F* - C^p|^2 / sqrt(d), and so D^n;  alpha = (D^n - D^p) / (D^p + eps)
    new label          y_m + (alpha_s - alpha_m) / 2 (y_m + alpha_m) / alpha_m: the mean of what follows from equal
                       ratios, alpha_s y_m / alpha_m, and from equal differences, y_m + alpha_s - alpha_m
    label of epoch i   y_s(1) = y_m;  y_s(i) = (i - 1) / (i + 1) y_s(i - 1) + 2 / (i + 1) new label
    loss               |y^_m - y_m| + lambda sum_s W_s |y^_s - y_s|,  W_s = tanh |y_s - y_m|

As in the paper's algorithm a batch is taught the labels that it has, then gets new ones, then leaves its F* behind; a
space has its centres by its own labels. Labels and F* of the training part are no weights and are not saved with them.

Departures.

* The paper is on regression. For K classes labels are distributions over them, the true class at first. A space has a
  centre for each class, of the utterances whose label favours it; alpha is the softmax over classes of -D, relative
  to the mean D of the utterance, so that, as in the paper, the size of a space does not matter; the new label is
  y_m + (alpha_s - alpha_m) / 2, cut at 0 and normalised: the equal ratios are left out. Cross-entropy takes the place
  of the distance of answer and label, and |y_s - y_m| is the sum over classes.
* Labels stay within the range of the training targets, and alpha_m is kept from 0 in the quotient. Where no training
  utterance is on one side of 0, alpha is 0 and no label moves.
* F_t is the mean token embedding through a dense layer, for the first token of a BERT that is trained along: the
  encoder of words is frozen here, and made for means. An absent text is a mean of zeros.
* Voice and face are averaged onto a clock of ``steps`` bins (``time_grid``; zeros where absent) before their LSTMs.
* All F* have one width; the paper's differ and are larger. The paper's lambda is 1.
* Without a lesson there are no labels: the unimodal heads then learn the multimodal answer, all with weight 1.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from dual_bench.models.layers import ModelSettings, Tried, masked_mean, on_clock
from dual_bench.models.spec import ModelSpec, always
from dual_bench.types import MODALITIES, Batch, Lesson, Output, Task, Widths

_EPSILON = 1e-6


class SelfMmSettings(ModelSettings):
    width: Annotated[int, Field(ge=1), Tried(16, 32, 64)] = 32
    """Of the LSTMs' states, of F_t, and of every F*."""
    steps: Annotated[int, Field(ge=1)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1), Tried(0.1, 0.3, 0.5)] = 0.1
    lambda_unimodal: Annotated[float, Field(ge=0), Tried(0.1, 0.3, 1.0)] = 1.0


def own_label(task: Task, targets: Tensor) -> Tensor:
    """y_m (B, K) of targets (B,): the value, or a distribution that is sure of the class."""
    return functional.one_hot(targets.long(), task.outputs).float() if _classes(task) else targets[:, None].float()


def distances(task: Task, representations: Tensor, everyone: Tensor, labels: Tensor) -> Tensor:
    """D (S, B, C) of representations (S, B, d) in S spaces from the centres of ``everyone`` (S, n, d) by their
    ``labels`` (S, n, K): of each class, or of the negative and the positive ones (C = 2). Infinite without a centre."""
    if _classes(task):
        members = functional.one_hot(labels.argmax(dim=2), task.outputs).float()
    else:
        members = torch.cat([labels < 0, labels > 0], dim=2).float()
    count = members.sum(dim=1)
    with torch.autocast(everyone.device.type, enabled=False):  # half precision would blur what is compared
        centres = members.transpose(1, 2) @ everyone / count[:, :, None].clamp_min(1)
    squared = (representations[:, :, None] - centres[:, None]).square().sum(dim=3)
    return (squared / math.sqrt(everyone.shape[2])).masked_fill(count[:, None] == 0, math.inf)


def relative(task: Task, distance: Tensor) -> Tensor:
    """alpha (S, B, K) of D (S, B, C)."""
    if _classes(task):
        there = distance.isfinite()
        mean = distance.where(there, 0.0).sum(dim=2, keepdim=True) / there.sum(dim=2, keepdim=True)
        return (-distance / (mean + _EPSILON)).softmax(dim=2)
    negative, positive = distance[:, :, :1], distance[:, :, 1:]
    alpha = (negative - positive) / (positive + _EPSILON)
    return alpha.masked_fill(distance.isinf().any(dim=2, keepdim=True), 0.0)


def new_labels(task: Task, y_m: Tensor, alpha_s: Tensor, alpha_m: Tensor, targets: Tensor) -> Tensor:
    """What the distances make of y_m (B, K), for each alpha_s (S, B, K); values in the range of all targets (n,)."""
    if _classes(task):
        shifted = (y_m + (alpha_s - alpha_m) / 2).clamp_min(0)
        return shifted / shifted.sum(dim=2, keepdim=True)
    quotient = (y_m + alpha_m) / torch.copysign(alpha_m.abs().clamp_min(_EPSILON), alpha_m)
    return (y_m + (alpha_s - alpha_m) / 2 * quotient).clamp(targets.min(), targets.max())


def momentum(before: Tensor, new: Tensor, epoch: int) -> Tensor:
    """The label of an epoch, from the second on."""
    return (epoch - 1) / (epoch + 1) * before + 2 / (epoch + 1) * new


def _classes(task: Task) -> bool:
    return task.kind == "classification"


class UnimodalLabels(nn.Module):
    """The Unimodal Label Generation Module: of n training utterances the ``labels`` (3, n, K), and F* (4, n, d) in the
    multimodal space and the three of ``MODALITIES``."""

    labels: Tensor
    representations: Tensor

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        self.task = task
        self.register_buffer("labels", torch.empty(3, 0, task.outputs), persistent=False)
        self.register_buffer("representations", torch.empty(4, 0, width), persistent=False)

    def of(self, lesson: Lesson) -> Tensor:
        """Labels (3, B, K) of a batch; those of the first epoch are the multimodal ones, whatever was before."""
        if self.labels.shape[1] != len(lesson.everyone):
            self.labels = own_label(self.task, lesson.everyone).repeat(3, 1, 1)
            self.representations = self.labels.new_zeros(4, len(lesson.everyone), self.representations.shape[2])
        if lesson.epoch == 1:
            self.labels[:, lesson.places] = own_label(self.task, lesson.targets)
        return self.labels[:, lesson.places]

    def learn(self, lesson: Lesson, representations: Tensor) -> None:
        """Take in F* (4, B, d) of a batch; from the second epoch on its labels move before."""
        representations = representations.detach().float()
        if lesson.epoch > 1:
            labels = torch.cat([own_label(self.task, lesson.everyone)[None], self.labels])
            alpha = relative(self.task, distances(self.task, representations, self.representations, labels))
            new = new_labels(self.task, own_label(self.task, lesson.targets), alpha[1:], alpha[0], lesson.everyone)
            self.labels[:, lesson.places] = momentum(self.labels[:, lesson.places], new, lesson.epoch)
        self.representations[:, lesson.places] = representations


class Head(nn.Module):
    """Features (B, d) to F* (B, width) and an answer (B, K)."""

    def __init__(self, source: int, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.represent = nn.Sequential(nn.Dropout(dropout), nn.Linear(source, width), nn.ReLU())
        self.answer = nn.Linear(width, outputs)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        representation = self.represent(features)
        return representation, self.answer(representation)


class SelfMm(nn.Module):
    """The whole model; its answer is that of the multimodal head."""

    text_enters_late = True

    def __init__(self, widths: Widths, task: Task, settings: SelfMmSettings) -> None:
        super().__init__()
        s, self.settings, self.task = settings, settings, task
        self.modalities = frozenset(MODALITIES)
        self.time_bins = s.steps
        self.audio = nn.LSTM(widths.audio, s.width, batch_first=True)
        self.vision = nn.LSTM(widths.vision, s.width, batch_first=True)
        self.text = nn.Sequential(nn.Linear(widths.text, s.width), nn.ReLU())
        self.multimodal = Head(3 * s.width, s.width, task.outputs, s.dropout)
        learns = MODALITIES if s.lambda_unimodal else ()
        self.unimodal = nn.ModuleList(Head(s.width, s.width, task.outputs, s.dropout) for _ in learns)
        self.generation = UnimodalLabels(task, s.width)

    def forward(self, batch: Batch) -> Output:
        features = self._features(self.trunk(batch), batch.text, batch.text_mask)
        representation, logits = self.multimodal(torch.cat(features, dim=1))
        if not (self.training and self.unimodal):
            return Output(logits)
        heads = [head(feature) for head, feature in zip(self.unimodal, features, strict=True)]
        answers = torch.stack([answer for _, answer in heads])
        if batch.lesson is None:
            taught = logits.detach().softmax(dim=1) if _classes(self.task) else logits.detach()
            loss = self._distances(answers, taught.expand_as(answers)).mean(dim=1).sum()
        else:
            labels = self.generation.of(batch.lesson)
            own = own_label(self.task, batch.lesson.targets)
            loss = self.unimodal_loss(answers, labels, own, batch.lesson.class_weights)
            self.generation.learn(batch.lesson, torch.stack([representation, *(found for found, _ in heads)]))
        return Output(logits, {"unimodal": (self.settings.lambda_unimodal, loss)})

    def unimodal_loss(
        self, answers: Tensor, labels: Tensor, y_m: Tensor, class_weights: Tensor | None = None
    ) -> Tensor:
        """Answers and labels (3, B, K), y_m (B, K): the mean over a batch, summed over modalities."""
        weights = (labels - y_m).abs().sum(dim=2).tanh()
        weighed = labels if class_weights is None else labels * class_weights
        return (weights * self._distances(answers, weighed)).mean(dim=1).sum()

    def trunk(self, batch: Batch) -> Tensor:
        """F_a and F_v (B, 2, width), the last states of the LSTMs."""
        audio, vision = on_clock(batch, self.settings.steps)
        found = [self.audio(audio), self.vision(vision)]
        return torch.stack([last[0] for _, (last, _) in found], dim=1)

    def decode(self, state: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        """Logits (B, K) from what ``trunk`` gives and the words."""
        return self.multimodal(torch.cat(self._features(state, text, text_mask), dim=1))[1]  # type: ignore[no-any-return]

    def _features(self, state: Tensor, text: Tensor, text_mask: Tensor) -> tuple[Tensor, ...]:
        """F_a, F_v and F_t, each (B, width)."""
        return *state.unbind(dim=1), self.text(masked_mean(text, text_mask))

    def _distances(self, answers: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, or distance, of answers (S, B, K) from labels (S, B, K): (S, B)."""
        if _classes(self.task):
            return -(labels * answers.float().log_softmax(dim=2)).sum(dim=2)
        return (answers.float() - labels).abs().sum(dim=2)


SPEC = ModelSpec("self-mm", SelfMmSettings, SelfMm, partial(always, frozenset(MODALITIES)))
