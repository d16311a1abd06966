"""LNLN, the language-dominated noise-resistant learning network: words rule, and are corrected where they are lost.

Source: Zhang, Wang and Yu 2024, "Towards Robust Multimodal Sentiment Analysis with Incomplete Data", NeurIPS; what the
text leaves open follows the code that the authors published with it. Symbols (m one of a, v, l: voice, face, language;
n tokens of width d; E[n](X) a transformer over [n learned tokens; X], of which the learned tokens are kept):

    1. embedding          H_m = E_m[n](W_m X_m + positions)             three modalities, one shape (n, d)
    2. correction (DMC)   w = sigma(MLP(E_c[1](H_l)))                   completeness of the language, in [0, 1]
                          H_p = E_p[n]([H_a; H_v])                      proxy of the language
                          H_d = w H_l + (1 - w) H_p                     dominant feature
    3. learning (DMML)    D_0 = H_d,  D_i = B_i(D_{i-1})                transformer blocks, i = 1..L
                          Y_0 learned,  Y_{i+1} = Y_i + A_i(D_i, H_a) + V_i(D_i, H_v)     hyper-modality, i = 0..L
                          F = C(D_L, Y_{L+1});  logits = W mean(F)      C: L layers of cross-attention, feed-forward
    4. losses             L_cc  = (w - (1 - share of holes in the words))^2
                          L_adv = cross-entropy of a discriminator of H_p (label 0) and H_l of all the words (label 1),
                                  behind a reversal of the gradient: what helps it to tell them apart is unlearned
                          L_rec = (R_m(H_m) - H_m of the complete input)^2, mean over m
                          task + lambda_completeness L_cc + lambda_adversarial L_adv + lambda_reconstruction L_rec

In training the module makes holes itself: each modality of an utterance stays whole with probability 1/2, and
else loses the share of its steps drawn evenly from [0, missing]; the draw is new in each batch. In evaluation it reads
what comes.

Readings and departures

* The proxy is made of voice and face, the target of L_rec are the features of the complete input, and half of the
  draws make no hole: so the published code. There, the gradient is reversed behind H_p as a whole, the task's gradient
  with it, and the discriminator sees H_d; here it sees H_p, and reverses its own gradient alone.
* No gradient passes the features of the complete input, in L_adv and L_rec: they are what to come near to.
* Voice and face are put on a clock of ``steps`` bins first (``time_grid``), for the cost of it; a hole is a bin of
  zeros. An absent modality is zeros, of one step for words, and has no holes. The paper replaces lost words by [UNK]
  before BERT, and here they are zeros behind the text encoder, which is not trained.
* The true completeness in training is that of the holes made here, 0 for an utterance without words. Words lost from
  the text before it is encoded leave no hole, so nothing teaches w about those.
* Positions are sinusoidal and only in 1 (there: learned, everywhere); C has no tokens of its own.
* A value is taught by its absolute error, as all models are here; the published code squares it. The weights of the
  other losses are those of its settings for CMU-MOSI; sizes are smaller (there n = 8, d = 128, L = 2).
"""

from __future__ import annotations

import math
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
    FeedForward,
    Tried,
    drawn_holes,
    on_clock,
    positions,
    some_step,
)
from dual_bench.models.spec import ModelSpec, always
from dual_bench.types import MODALITIES, Batch, Output, Task, Widths

_WHOLE = 0.5
"""Share of the draws that make no hole."""


class LnlnSettings(AttentionSettings):
    width: Annotated[int, Field(ge=4), Tried(16, 32, 64)] = 32
    layers: Annotated[int, Field(ge=1), Tried(1, 2)] = 1
    tokens: Annotated[int, Field(ge=1), Tried(2, 4, 8)] = 4
    """Into which each modality is embedded, n."""
    steps: Annotated[int, Field(ge=1)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1), Tried(0.1, 0.3, 0.5)] = 0.1
    missing: Annotated[float, Field(ge=0, le=1), Tried(0.3, 0.6, 1.0)] = 1.0
    """The largest share of steps that go missing from a modality in training."""
    lambda_completeness: Annotated[float, Field(ge=0), Tried(0.3, 0.9)] = 0.9
    lambda_adversarial: Annotated[float, Field(ge=0), Tried(0.0, 0.1, 0.8)] = 0.8
    lambda_reconstruction: Annotated[float, Field(ge=0)] = 0.1


class Digest(nn.Module):
    """E[n] of the equations: (B, T, d) with mask (B, T) -> (B, n, d)."""

    def __init__(self, tokens: int, s: LnlnSettings) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(tokens, s.width) / math.sqrt(s.width))
        self.blocks = nn.ModuleList(Block(s.width, s.heads, s.dropout) for _ in range(s.layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        count = len(self.tokens)
        x = torch.cat([self.tokens.to(x.dtype).expand(len(x), -1, -1), x], dim=1)
        mask = None if mask is None else torch.cat([mask.new_ones(len(mask), count), mask], dim=1)
        for block in self.blocks:
            x = block(x, mask)
        return x[:, :count]


class Embedding(nn.Module):
    """Section 1: a modality (B, T, source) with mask (B, T) to (B, n, d)."""

    def __init__(self, source: int, s: LnlnSettings) -> None:
        super().__init__()
        self.project = nn.Linear(source, s.width)
        self.digest = Digest(s.tokens, s)

    def forward(self, sequence: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.project(sequence)
        return self.digest(x + positions(x.shape[1], x.shape[2], x.device), mask)  # type: ignore[no-any-return]


class CompletenessCheck(nn.Module):
    """w of section 2: how much of the language is there, (B, n, d) -> (B,) in [0, 1]."""

    def __init__(self, s: LnlnSettings) -> None:
        super().__init__()
        self.digest = Digest(1, s)
        self.head = nn.Sequential(nn.Linear(s.width, s.width // 2), nn.LeakyReLU(0.1), nn.Linear(s.width // 2, 1))

    def forward(self, language: Tensor) -> Tensor:
        return self.head(self.digest(language)[:, 0])[:, 0].sigmoid()  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Pre-norm attention of x (B, T, d) to a source (B, S, d); what it adds to x, not the sum."""

    def __init__(self, s: LnlnSettings) -> None:
        super().__init__()
        self.norm, self.source_norm = nn.LayerNorm(s.width), nn.LayerNorm(s.width)
        self.attention = Attention(s.width, s.width, s.heads)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        return self.attention(self.norm(x), self.source_norm(source))  # type: ignore[no-any-return]


class DominantLearning(nn.Module):
    """Section 3: the dominant feature, voice and face, each (B, n, d), to (B, d)."""

    def __init__(self, s: LnlnSettings) -> None:
        super().__init__()
        self.hyper = nn.Parameter(torch.randn(s.tokens, s.width) / math.sqrt(s.width))
        self.language = nn.ModuleList(Block(s.width, s.heads, s.dropout) for _ in range(s.layers))
        self.audio = nn.ModuleList(CrossAttention(s) for _ in range(s.layers + 1))
        self.vision = nn.ModuleList(CrossAttention(s) for _ in range(s.layers + 1))
        self.fusion = nn.ModuleList(CrossAttention(s) for _ in range(s.layers))
        self.feed_forward = nn.ModuleList(FeedForward(s.width) for _ in range(s.layers))
        self.dropout = nn.Dropout(s.dropout)

    def forward(self, dominant: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
        scales = [dominant]
        for block in self.language:
            scales.append(block(scales[-1]))
        hyper = self.hyper.to(dominant.dtype)
        for scale, to_audio, to_vision in zip(scales, self.audio, self.vision, strict=True):
            hyper = hyper + to_audio(scale, audio) + to_vision(scale, vision)
        fused = scales[-1]
        for attend, refine in zip(self.fusion, self.feed_forward, strict=True):
            fused = fused + self.dropout(attend(fused, hyper))
            fused = fused + self.dropout(refine(fused))
        return fused.mean(dim=1)


def corrected(language: Tensor, proxy: Tensor, completeness: Tensor) -> Tensor:
    """H_d of section 2, for language and proxy (B, n, d) and completeness (B,)."""
    w = completeness[:, None, None]
    return w * language + (1 - w) * proxy


def reversed_gradient(x: Tensor) -> Tensor:
    """x itself, through which the gradient comes back with its sign turned (Ganin and Lempitsky 2015, "Unsupervised
    Domain Adaptation by Backpropagation", ICML). Twice a number less the number is exact."""
    return 2 * x.detach() - x


def true_completeness(mask: Tensor, gone: Tensor) -> Tensor:
    """1 - the share of holes ``gone`` (B, T) among the words that ``mask`` (B, T) has, (B,); 0 where it has none."""
    return (mask & ~gone).sum(dim=1) / mask.sum(dim=1).clamp_min(1)


class Reading(NamedTuple):
    """What the model makes of a batch: ``logits`` (B, K), H_l and H_p (B, n, d), and w (B,)."""

    logits: Tensor
    language: Tensor
    proxy: Tensor
    completeness: Tensor


class Lnln(nn.Module):
    """Reads all three modalities; voice, face and the proxy are ready before the words come in."""

    modalities = frozenset(MODALITIES)
    text_enters_late = True

    def __init__(self, widths: Widths, task: Task, settings: LnlnSettings) -> None:
        super().__init__()
        self.settings = s = settings
        self.time_bins = s.steps
        self.audio, self.vision = Embedding(widths.audio, s), Embedding(widths.vision, s)
        self.text = Embedding(widths.text, s)
        self.proxy = Digest(s.tokens, s)
        self.completeness = CompletenessCheck(s)
        self.learning = DominantLearning(s)
        self.head = nn.Linear(s.width, task.outputs)
        if s.lambda_adversarial:
            self.discriminator = nn.Sequential(
                nn.Linear(s.width, s.width // 2), nn.LeakyReLU(0.1), nn.Linear(s.width // 2, 1)
            )
        if s.lambda_reconstruction:
            self.reconstructors = nn.ModuleList(
                nn.Sequential(*(Block(s.width, s.heads, s.dropout) for _ in range(s.layers))) for _ in MODALITIES
            )

    def forward(self, batch: Batch) -> Output:
        if not self.training:
            return Output(self.decode(self.trunk(batch), batch.text, batch.text_mask))
        s, (audio, vision) = self.settings, on_clock(batch, self.settings.steps)
        text, text_mask = some_step(batch.text, batch.text_mask)
        rates, whole = torch.rand(2, len(MODALITIES), len(text), device=text.device)
        gone = drawn_holes(batch, s.steps, s.missing * rates * (whole >= _WHOLE))
        complete = (audio, vision, text)
        holed = [x.masked_fill(lost[:, :, None], 0.0) for x, lost in zip(complete, gone, strict=True)]
        state = self.encode(*holed[:2])
        reading = self.read(state, holed[2], text_mask)
        terms = {}
        if s.lambda_completeness:
            truth = true_completeness(batch.text_mask, gone[2])
            terms["completeness"] = (s.lambda_completeness, functional.mse_loss(reading.completeness.float(), truth))
        if s.lambda_adversarial or s.lambda_reconstruction:
            with torch.no_grad():
                targets = [self.audio(audio), self.vision(vision), self.text(text, text_mask)]
        if s.lambda_adversarial:
            terms["adversarial"] = (s.lambda_adversarial, self._adversarial(reading.proxy, targets[2]))
        if s.lambda_reconstruction:
            features = (*state.chunk(3, dim=1)[:2], reading.language)
            rebuilt = [rebuild(x) for rebuild, x in zip(self.reconstructors, features, strict=True)]
            loss = functional.mse_loss(torch.cat(rebuilt).float(), torch.cat(targets).float())
            terms["reconstruction"] = (s.lambda_reconstruction, loss)
        return Output(reading.logits, terms)

    def _adversarial(self, proxy: Tensor, language: Tensor) -> Tensor:
        """L_adv of section 4, over the tokens of the proxy and of the complete language, (B, n, d) each."""
        logits = self.discriminator(torch.cat([reversed_gradient(proxy), language])).flatten().float()
        labels = torch.cat([torch.zeros_like(logits[: len(logits) // 2]), torch.ones_like(logits[len(logits) // 2 :])])
        return functional.binary_cross_entropy_with_logits(logits, labels)

    def encode(self, audio: Tensor, vision: Tensor) -> Tensor:
        """H_a, H_v and H_p one after the other, (B, 3 n, d)."""
        features = torch.cat([self.audio(audio), self.vision(vision)], dim=1)
        return torch.cat([features, self.proxy(features)], dim=1)

    def trunk(self, batch: Batch) -> Tensor:
        return self.encode(*on_clock(batch, self.settings.steps))

    def decode(self, state: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        return self.read(state, *some_step(text, text_mask)).logits

    def read(self, state: Tensor, text: Tensor, text_mask: Tensor) -> Reading:
        """Sections 1 to 3, given H_a, H_v and H_p (B, 3 n, d), and words (B, T, dt) with a valid step in each row."""
        audio, vision, proxy = state.chunk(3, dim=1)
        language = self.text(text, text_mask)
        completeness = self.completeness(language)
        dominant = corrected(language, proxy, completeness)
        return Reading(self.head(self.learning(dominant, audio, vision)), language, proxy, completeness)


SPEC = ModelSpec("lnln", LnlnSettings, Lnln, partial(always, frozenset(MODALITIES)))
