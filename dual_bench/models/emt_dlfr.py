"""EMT-DLFR: an efficient multimodal transformer that restores what is missing, at two levels.

Source: Sun, Lian, Liu and Tao 2023, "Efficient Multimodal Transformer with Dual-Level Feature Restoration for Robust
Multimodal Sentiment Analysis", IEEE Transactions on Affective Computing; what the text leaves open follows the code
that the authors published with it. Symbols (m one of audio, vision, text; width d; L layers):

    1. encoders           x_m (T_m, d), local features, and u_m (d), the utterance: for voice and face the states of an
                          LSTM and the last of them; for words a projection of the tokens, and of their mean
    2. global context     g = [u_audio; u_vision; u_text], three tokens; sinusoidal positions are added to x_m
    3. mutual promotion   in each layer and modality   x_m' = U(x_m, g),   g_m = U(g, x_m)
                          U(q, s): q attends to s, then to itself, then a feed-forward; pre-norm, residual
       attention pooling  g' = sum_m a_m g_m,  a = softmax_m(w tanh(W g_m)): each modality's version of g weighed
    4. head               MLP of [u_audio; u_vision; u_text; g_L], two hidden layers
    5. two views          of each utterance of training: complete, and with holes, through the same weights
       low level          L_rec = sum_m SmoothL1(D_m x_m^L, the complete input of m), at the steps with holes only
       high level         L_att = sum_h -(cos(P(z~), sg z) + cos(P(z), sg z~)) / 2,  z = N(h),  h in {g_L, u_m}
                          (~ with holes, sg stops the gradient; after SimSiam, Chen and He 2021, CVPR)
    6. loss               task(with holes) + lambda_attraction (L_att + task(complete)) + lambda_restoration L_rec

A sequence meets three tokens and never another sequence, so the cost grows linearly with the number of modalities: six
cross-attentions a layer. The last layer's local features serve L_rec alone and are computed for it alone. In evaluation
there is one view, what comes.

Departures

* The paper trains a model for each rate of missing features. Here one model sees all of them: the rate is drawn evenly
  from [0, missing], for each utterance and modality by itself, anew in each batch.
* Voice and face are put on a clock of ``steps`` bins first (``time_grid``), for the cost of it; a hole is a bin of
  zeros. An absent modality is zeros, of one step for words, and has no holes. The paper replaces lost words by [UNK]
  before BERT and zeroes lost frames; here both are zeros, the words behind the text encoder, which is not trained.
* u_text is the mean token (there: BERT's [CLS]).
* Projectors and predictors of the high level have layer normalisation in place of batch normalisation, and so a batch
  of one can be learned from.
* The weights of the losses and the sizes are not the paper's, whose model is wider and deeper.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from dual_bench.models.layers import (
    Attention,
    AttentionSettings,
    Block,
    Tried,
    drawn_holes,
    masked_mean,
    on_clock,
    positions,
    some_step,
)
from dual_bench.models.losses import restoration_loss, task_loss
from dual_bench.models.spec import ModelSpec, always
from dual_bench.types import MODALITIES, Batch, Lesson, Output, Task, Widths


class EmtDlfrSettings(AttentionSettings):
    width: Annotated[int, Field(ge=4), Tried(16, 32, 64)] = 32
    layers: Annotated[int, Field(ge=1), Tried(1, 2, 3)] = 2
    """With one, what a sequence learns from the context serves the restoration alone; with more, the answer too."""
    steps: Annotated[int, Field(ge=1)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1), Tried(0.1, 0.3, 0.5)] = 0.3
    missing: Annotated[float, Field(ge=0, le=1), Tried(0.3, 0.6, 1.0)] = 0.6
    """The largest share of steps that go missing from a modality in training."""
    lambda_attraction: Annotated[float, Field(ge=0), Tried(0.3, 1.0)] = 1.0
    lambda_restoration: Annotated[float, Field(ge=0), Tried(0.1, 0.3, 1.0)] = 0.3


class Promotion(nn.Module):
    """U(q, s) of section 3, half of a mutual promotion unit: (B, T, d), (B, S, d) -> (B, T, d)."""

    def __init__(self, s: EmtDlfrSettings) -> None:
        super().__init__()
        self.norm, self.source_norm = nn.LayerNorm(s.width), nn.LayerNorm(s.width)
        self.cross = Attention(s.width, s.width, s.heads)
        self.block = Block(s.width, s.heads, s.dropout)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None, source_mask: Tensor | None) -> Tensor:
        return self.block(x + self.cross(self.norm(x), self.source_norm(source), source_mask), mask)  # type: ignore[no-any-return]


class ToContext(nn.Module):
    """g' of section 3: what the context (B, 3, d) learns from each sequence (B, T_m, d), weighed."""

    def __init__(self, s: EmtDlfrSettings) -> None:
        super().__init__()
        self.units = nn.ModuleList(Promotion(s) for _ in MODALITIES)
        joined = len(MODALITIES) * s.width
        self.weigh = nn.Sequential(nn.Linear(joined, joined), nn.Tanh(), nn.Linear(joined, 1, bias=False))

    def forward(self, context: Tensor, local: list[Tensor], masks: list[Tensor]) -> Tensor:
        inputs = zip(self.units, local, masks, strict=True)
        versions = torch.stack([unit(context, x, None, mask) for unit, x, mask in inputs], dim=1)
        weights = self.weigh(versions.flatten(2)).softmax(dim=1)  # (B, modalities, 1)
        weighed: Tensor = (versions * weights[..., None]).sum(dim=1)
        return weighed


class ToLocal(nn.Module):
    """x' of section 3: what each sequence (B, T_m, d) learns from the context (B, 3, d)."""

    def __init__(self, s: EmtDlfrSettings) -> None:
        super().__init__()
        self.units = nn.ModuleList(Promotion(s) for _ in MODALITIES)

    def forward(self, context: Tensor, local: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        return [unit(x, context, mask, None) for unit, x, mask in zip(self.units, local, masks, strict=True)]


class View(NamedTuple):
    """What the model makes of a batch: ``logits`` (B, K); ``pooled``, the representations h of section 5; and what goes
    into the last layer, ``context`` (B, 3, d) with ``local`` (B, T_m, d) and ``masks`` (B, T_m) for each modality."""

    logits: Tensor
    pooled: list[Tensor]
    context: Tensor
    local: list[Tensor]
    masks: list[Tensor]


def attraction_loss(one: Tensor, other: Tensor, predictor: nn.Module) -> Tensor:
    """Mean of -cos(P(one), other) and -cos(P(other), one) over rows (B, h); no gradient enters by what is compared
    with. -1 where a prediction has the direction of the other view."""
    predicted = predictor(torch.cat([one, other])).float()
    return -functional.cosine_similarity(predicted, torch.cat([other, one]).detach().float(), dim=1).mean()


class EmtDlfr(nn.Module):
    """Reads all three modalities; voice and face are encoded before the words come in."""

    modalities = frozenset(MODALITIES)
    text_enters_late = True

    def __init__(self, widths: Widths, task: Task, settings: EmtDlfrSettings) -> None:
        super().__init__()
        self.settings, self.task = settings, task
        self.time_bins = settings.steps
        d, joined = settings.width, len(MODALITIES) * settings.width
        self.audio = nn.LSTM(widths.audio, d, batch_first=True)
        self.vision = nn.LSTM(widths.vision, d, batch_first=True)
        self.text = nn.Linear(widths.text, d)
        self.to_context = nn.ModuleList(ToContext(settings) for _ in range(settings.layers))
        self.to_local = nn.ModuleList(ToLocal(settings) for _ in range(settings.layers - 1))
        self.head = nn.Sequential(
            nn.Dropout(settings.dropout),
            nn.Linear(2 * joined, d),
            nn.ReLU(),
            nn.Linear(d, d),
            nn.ReLU(),
            nn.Linear(d, task.outputs),
        )
        if settings.lambda_restoration:
            self.last_to_local = ToLocal(settings)
            self.restore = nn.ModuleList(nn.Linear(d, getattr(widths, m)) for m in MODALITIES)
        if settings.lambda_attraction:
            pooled = (joined, *(d for _ in MODALITIES))
            self.projectors = nn.ModuleList(
                nn.Sequential(nn.Linear(h, h), nn.LayerNorm(h, elementwise_affine=False)) for h in pooled
            )
            self.predictors = nn.ModuleList(
                nn.Sequential(nn.Linear(h, h // 2, bias=False), nn.LayerNorm(h // 2), nn.ReLU(), nn.Linear(h // 2, h))
                for h in pooled
            )

    def forward(self, batch: Batch) -> Output:
        if not self.training:
            return Output(self.decode(self.trunk(batch), batch.text, batch.text_mask))
        audio, vision = on_clock(batch, self.settings.steps)
        text, text_mask = some_step(batch.text, batch.text_mask)
        rates = self.settings.missing * torch.rand(len(MODALITIES), len(text), device=text.device)
        complete, gone = [audio, vision, text], drawn_holes(batch, self.settings.steps, rates)
        holed = [x.masked_fill(lost[:, :, None], 0.0) for x, lost in zip(complete, gone, strict=True)]
        audio, vision, text = (torch.cat(views) for views in zip(holed, complete, strict=True))
        view = self.read(self.encode(audio, vision), text, text_mask.repeat(2, 1))
        return Output(view.logits[: len(text_mask)], self._auxiliary(view, complete, gone, batch.lesson))

    def _auxiliary(
        self, view: View, complete: list[Tensor], gone: list[Tensor], lesson: Lesson | None
    ) -> dict[str, tuple[float, Tensor]]:
        """The losses of section 6 but the first, where the first half of ``view`` has holes and the second has none."""
        s, terms, size = self.settings, {}, len(gone[0])
        if s.lambda_restoration:
            holed = ([x[:size] for x in parts] for parts in (view.local, view.masks))
            local = self.last_to_local(view.context[:size], *holed)
            restored = [layer(x) for layer, x in zip(self.restore, local, strict=True)]
            losses = [restoration_loss(*parts) for parts in zip(restored, complete, gone, strict=True)]
            terms["restoration"] = (s.lambda_restoration, torch.stack(losses).sum())
        if s.lambda_attraction:
            losses = []
            for h, project, predict in zip(view.pooled, self.projectors, self.predictors, strict=True):
                z = project(h)
                losses.append(attraction_loss(z[:size], z[size:], predict))
            terms["attraction"] = (s.lambda_attraction, torch.stack(losses).sum())
            if lesson is not None:
                loss = task_loss(self.task, view.logits[size:], lesson.targets, lesson.class_weights)
                terms["complete_view"] = (s.lambda_attraction, loss)
        return terms

    def encode(self, audio: Tensor, vision: Tensor) -> Tensor:
        """Section 1 for voice and face: their states one after the other, (B, 2 steps, d)."""
        return torch.cat([self.audio(audio)[0], self.vision(vision)[0]], dim=1)

    def trunk(self, batch: Batch) -> Tensor:
        return self.encode(*on_clock(batch, self.settings.steps))

    def decode(self, state: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        return self.read(state, *some_step(text, text_mask)).logits

    def read(self, state: Tensor, text: Tensor, text_mask: Tensor) -> View:
        """Sections 1 to 4, given the states of voice and face (B, 2 steps, d), and words (B, T, dt) with a valid step
        in each row."""
        audio, vision = state.chunk(2, dim=1)
        words = self.text(text)
        utterances = [audio[:, -1], vision[:, -1], masked_mean(words, text_mask)]
        context = torch.stack(utterances, dim=1)
        everywhere = text_mask.new_ones(audio.shape[:2])
        local = [x + positions(x.shape[1], x.shape[2], x.device) for x in (audio, vision, words)]
        masks = [everywhere, everywhere, text_mask]
        for to_context, to_local in zip(self.to_context, self.to_local, strict=False):  # the last has no second
            context, local = to_context(context, local, masks), to_local(context, local, masks)
        joined = self.to_context[-1](context, local, masks).flatten(1)
        logits = self.head(torch.cat([*utterances, joined], dim=1))
        return View(logits, [joined, *utterances], context, local, masks)


SPEC = ModelSpec("emt-dlfr", EmtDlfrSettings, EmtDlfr, partial(always, frozenset(MODALITIES)))
