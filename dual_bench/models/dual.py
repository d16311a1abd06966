"""DUAL, Dynamic Unified Alignment for Low-text dependency: voice and face first, text only at the decoder.

Source: the project's founding description and the architecture figure published with it; no equation of DUAL is
public. Symbols (utterance index left out; T steps on the common clock, width d, L layers):

    F^A (Ta, da), F^V (Tv, dv), F^t (Tt, dt)     features of voice, face and words

    1. shared space        f_i = LN(W2 gelu(W1 pool(F)_i))                     for audio and vision, own weights
    2. SDM (audio)         u_t = [h_{t-1}; f^a_{t-1}; f^a_t];  forget, input, output = sigma(T1 u), sigma(T2 u),
                           sigma(T4 u);  c_t = forget c_{t-1} + input tanh(T3 u);  h_t = output tanh(c_t);  d^a_t = h_t
    3. VDM (vision)        d^v_t = f^v_t - f^v_{t+1};  d^v_T = f^v_T
    4. alignments          static: InfoNCE over time on (f^a, f^v);  dynamic: the same on (d^a, d^v)
    5. encoders with SR    x^a_0 = [f^a; d^a];  x^a_{l+1} = E^a_l(x^a_l) + R^{v->a}_l(x^v_l), and so for v
    6. decoder             m = [x^a_L; x^v_L];  L layers of cross-attention to [null; W F^t], each widening; mean; head
    7. loss                task + lambda_s static + lambda_d dynamic
    bounded text path      logits = av + s tanh(r), s in [0, s_max]: av decodes m alone, r decodes m with the words

A switch is ``on``, ``off``, or, where the part has a shape of its own, ``plain``: a plain block with as many
parameters (within 2 %) takes its place, so that what a part does is told apart from what its size does. Plain are: for
the nonlinear alignment the same layers without GELU and normalisation, a linear map; for SDM a network that sees one
frame; for VDM, which has no parameter, the frame itself; for SR a projection of an encoder's own input.

Where the figure leaves something open, this is the choice. All are settings but two, for want of a plausible
alternative: the first step of SDM, and the linear form of R_l.

* SDM: h_0, c_0 and f^a_0 are zero.
* Without SDM (or VDM) the width of d^a (d^v) goes to the static path: 2d channels instead of d, of which the first d
  are aligned. Without either module there is no pair (d^a, d^v), hence no dynamic alignment.
* Alignment negatives: the other steps of the same utterance (``negatives = "time"``) or of the batch. Utterances
  whose voice or face has fewer than two steps (features averaged over a clip) have no time to align: they are left
  out of both losses, and where a corpus has no others neither loss is there.
* E_l is a pre-norm transformer block over time, then a linear narrowing; sinusoidal positions are added to x_0
  (``time_mixing = off``: neither attention nor positions, so no step sees another but through SDM and VDM).
* R_l is a linear projection of the other encoder's input to the next width.
* The widths narrow from 2d to d/2 and widen from d back to 2d, in equal steps rounded to a multiple of the heads.
* The text paths ``early``, ``late``, ``concat`` and ``none`` have no cross-attention: ``early`` adds a projection of
  the mean token to both x_0, ``concat`` joins it to m, ``late`` adds the logits of a text head at the end, ``none``
  reads no text. All but ``none`` use the mean over [null; W F^t], so that a text without words is defined.
* ``bounded`` has two decoders of section 6, one without words for av and one with them for r; s = s_max sigmoid(theta).
  No text moves a logit by more than s, so an utterance whose audio-visual margin exceeds 2 s is certified: no text
  whatever can change its prediction.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal, Self

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn

from dual_bench.models.layers import (
    Attention,
    AttentionSettings,
    Block,
    FeedForward,
    Tried,
    WithNull,
    masked_mean,
    positions,
    time_grid,
)
from dual_bench.models.losses import alignment_loss
from dual_bench.models.spec import ModelSpec
from dual_bench.types import MODALITIES, Batch, Modality, Output, Task, Widths

TextPath = Literal["decoder", "early", "late", "concat", "none", "bounded"]


def _switch(value: object) -> object:
    if value in (True, False, "plain"):
        return value
    if value in ("on", "off"):
        return value == "on"
    raise ValueError(f"expected on, off or plain, found {value!r}")


Switch = Annotated[bool | Literal["plain"], BeforeValidator(_switch)]
"""On, off, or a plain block of the same size in its place."""

_ROUNDING = 1e-4
"""Of a logit; far more than rounding adds to the bound, which is kept in float32 whatever the rest is computed in."""


class DualSettings(AttentionSettings):
    """Switches and sizes of DUAL."""

    nonlinear_alignment: Switch = True
    sdm: Switch = True
    vdm: Switch = True
    static_alignment: bool = True
    dynamic_alignment: bool = True
    sentiment_residual: Switch = True
    text_path: TextPath = "decoder"
    s_max: Annotated[float, Field(gt=0)] = 1.0
    """How far the text path ``bounded`` may learn to let text move a logit, or the value."""
    width: Annotated[int, Field(ge=4), Tried(16, 32, 64)] = 32
    """d."""
    steps: Annotated[int, Field(ge=2)] = 16
    """T."""
    layers: Annotated[int, Field(ge=1), Tried(1, 2, 3)] = 3
    dropout: Annotated[float, Field(ge=0, lt=1), Tried(0.1, 0.3, 0.5)] = 0.1
    time_mixing: bool = True
    lambda_s: Annotated[float, Field(ge=0), Tried(0.03, 0.1, 0.3)] = 0.1
    lambda_d: Annotated[float, Field(ge=0), Tried(0.03, 0.1, 0.3)] = 0.1
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """tau."""
    negatives: Literal["time", "batch"] = "time"

    @model_validator(mode="after")
    def _all_act(self) -> Self:
        """ValueError where a setting is given that nothing listens to."""
        aligned = {"lambda_s": self.static_alignment, "lambda_d": self.dynamic_alignment and self.sdm and self.vdm}
        needs: dict[str, object] = {"s_max": self.text_path == "bounded", **aligned}
        needs |= dict.fromkeys(("temperature", "negatives"), any(aligned.values()))
        for name in needs.keys() & self.model_fields_set:
            if not needs[name] and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} acts on nothing here: what it is a setting of is off")
        return self


class StaticPath(nn.Module):
    """Section 1: frames on the common clock, projected to ``width``; one linear map where ``nonlinear`` is off."""

    def __init__(self, source: int, width: int, steps: int, nonlinear: Switch) -> None:
        super().__init__()
        self.steps = steps
        self.project: nn.Module = nn.Linear(source, width)
        if nonlinear == "plain":
            self.project = nn.Sequential(self.project, nn.Linear(width, width), Affine(width))
        elif nonlinear:
            self.project = nn.Sequential(self.project, nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        return self.project(time_grid(sequence, mask, self.steps))  # type: ignore[no-any-return]


class Affine(nn.Module):
    """A scale and a shift of each feature: the parameters of a normalisation that does not normalise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale[..., None, None, :] + self.shift[..., None, None, :]


class SentimentDifferential(nn.Module):
    """Section 2, SDM: an LSTM whose input at t is [f_{t-1}; f_t], in the framework's fused form; (B, T, d) to same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2 * width, width, batch_first=True)

    def forward(self, f: Tensor) -> Tensor:
        before = torch.cat([torch.zeros_like(f[..., :1, :]), f[..., :-1, :]], dim=-2)
        return self.lstm(torch.cat([before, f], dim=-1))[0]  # type: ignore[no-any-return]


def plain_differential(width: int) -> nn.Module:
    """In the place of SDM: a network that sees one frame, with a hidden layer that gives it the LSTM's parameters."""
    hidden = round((12 * width**2 + 7 * width) / (2 * width + 1))
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


def visual_differential(f: Tensor) -> Tensor:
    """Section 3, VDM: d_t = f_t - f_{t+1}; the last frame is kept as it is; (B, T, d) to itself."""
    return torch.cat([f[..., :-1, :] - f[..., 1:, :], f[..., -1:, :]], dim=-2)


class EncoderLayer(nn.Module):
    """Section 5: both encoders at one depth, with the exchange R between them where ``residual`` is on."""

    def __init__(self, width: int, narrower: int, settings: DualSettings) -> None:
        super().__init__()

        def encoder() -> nn.Module:
            block = Block(width, settings.heads, settings.dropout, settings.time_mixing)
            return nn.Sequential(block, nn.Linear(width, narrower))

        def residual() -> nn.Module | None:
            return nn.Linear(width, narrower) if settings.sentiment_residual else None

        self.audio, self.vision = encoder(), encoder()
        self.to_audio, self.to_vision = residual(), residual()
        self.exchange = settings.sentiment_residual != "plain"

    def forward(self, a: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        next_a, next_v = self.audio(a), self.vision(v)
        if self.to_audio is not None and self.to_vision is not None:
            for_a, for_v = (v, a) if self.exchange else (a, v)
            next_a, next_v = next_a + self.to_audio(for_a), next_v + self.to_vision(for_v)
        return next_a, next_v


class DecoderLayer(nn.Module):
    """A layer of the decoder: cross-attention to the words (where they come this way), a feed-forward block, a linear
    widening."""

    def __init__(self, width: int, wider: int, settings: DualSettings, text_width: int | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if text_width else None
        self.attention = Attention(width, text_width, settings.heads) if text_width else None
        self.feed_forward = FeedForward(width)
        self.dropout = nn.Dropout(settings.dropout)
        self.widen = nn.Linear(width, wider)

    def forward(self, m: Tensor, words: tuple[Tensor, Tensor] | None) -> Tensor:
        if self.norm is not None and self.attention is not None and words is not None:
            m = m + self.dropout(self.attention(self.norm(m), *words))
        m = m + self.dropout(self.feed_forward(m))
        return self.widen(m)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Section 6: from the bottleneck (B, T, ``width``) to logits (B, K), with cross-attention to the words where
    ``text_width`` says how wide they are."""

    def __init__(self, width: int, outputs: int, settings: DualSettings, text_width: int | None) -> None:
        super().__init__()
        wide = widths_between(width, 2 * settings.width, settings.layers, settings.heads)
        self.layers = nn.ModuleList(DecoderLayer(*pair, settings, text_width) for pair in pairwise(wide))
        self.head = nn.Sequential(nn.LayerNorm(wide[-1]), nn.Linear(wide[-1], outputs))

    def forward(self, m: Tensor, words: tuple[Tensor, Tensor] | None = None) -> Tensor:
        for layer in self.layers:
            m = layer(m, words)
        return self.head(m.mean(dim=-2))  # type: ignore[no-any-return]


def widths_between(first: int, last: int, layers: int, heads: int) -> list[int]:
    """``layers`` + 1 widths from ``first`` to ``last`` in equal steps, each a multiple of ``heads``."""
    between = [first + (last - first) * i / layers for i in range(layers + 1)]
    return [max(heads, round(width / heads) * heads) for width in between]


class Dual(nn.Module):
    """The whole model. ``forward`` is exactly ``decode(trunk)``, but for the text path ``early``: it has no trunk."""

    def __init__(self, widths: Widths, task: Task, settings: DualSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.modalities = modalities(s)
        self.text_enters_late = s.text_path != "early"
        self.outputs = task.outputs
        self.time_bins = s.steps
        d = s.width
        self.static_a = StaticPath(widths.audio, d if s.sdm else 2 * d, s.steps, s.nonlinear_alignment)
        self.static_v = StaticPath(widths.vision, d if s.vdm else 2 * d, s.steps, s.nonlinear_alignment)
        self.sdm = (plain_differential(d) if s.sdm == "plain" else SentimentDifferential(d)) if s.sdm else None
        narrow = widths_between(2 * d, d // 2, s.layers, s.heads)
        self.encoders = nn.ModuleList(EncoderLayer(*pair, s) for pair in pairwise(narrow))
        self.clock: Tensor | None
        self.register_buffer("clock", positions(s.steps, narrow[0]) if s.time_mixing else None, persistent=False)

        self.words = WithNull(widths.text, d) if s.text_path != "none" else None
        self.early = nn.Linear(d, 2 * narrow[0]) if s.text_path == "early" else None
        self.late = nn.Linear(d, task.outputs) if s.text_path == "late" else None
        m = 2 * narrow[-1]
        joined = m + d if s.text_path == "concat" else m
        self.decoder = Decoder(joined, task.outputs, s, d if s.text_path == "decoder" else None)
        bounded = s.text_path == "bounded"
        self.refiner = Decoder(m, task.outputs, s, d) if bounded else None
        self.theta = nn.Parameter(torch.zeros(())) if bounded else None

    def forward(self, batch: Batch) -> Output:
        early = None if self.early is None else self.early(self._mean_word(batch.text, batch.text_mask))
        m, auxiliary = self._encode(batch, early)
        if early is not None:
            return Output(self.decoder(m), auxiliary)
        return Output(self.decode(self._state(m), batch.text, batch.text_mask), auxiliary)

    def trunk(self, batch: Batch) -> Tensor:
        """What no text can reach: the bottleneck states m (B, T, 2 d_L); where the text path is bounded m and av side
        by side, (B, T 2 d_L + K)."""
        return self._state(self._encode(batch, None)[0])

    def decode(self, state: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        """Logits (B, K) from what ``trunk`` gives and the words."""
        path = self.settings.text_path
        if path == "decoder" and self.words is not None:
            return self.decoder(state, self.words(text, text_mask))  # type: ignore[no-any-return]
        if self.refiner is not None and self.words is not None:
            m, av = self._parts(state)
            refined: Tensor = self.refiner(m, self.words(text, text_mask))
            return av + self.reach[..., None, None] * refined.float().tanh()
        if path == "concat":
            word = self._mean_word(text, text_mask)
            state = torch.cat([state, word[..., None, :].expand(*state.shape[:-1], -1)], dim=-1)
        logits: Tensor = self.decoder(state)
        return logits if self.late is None else logits + self.late(self._mean_word(text, text_mask))

    def certify(self, state: Tensor) -> tuple[Tensor, float] | None:
        """What voice and face alone say, logits (B, K), and how far text can move each; None without such a bound."""
        if self.refiner is not None:
            return self._parts(state)[1], float(self.reach) + _ROUNDING
        return (self.decoder(state).float(), _ROUNDING) if self.words is None else None

    @property
    def reach(self) -> Tensor:
        """s of the bounded text path, a scalar in [0, s_max]."""
        assert self.theta is not None
        return self.settings.s_max * self.theta.sigmoid()

    def _state(self, m: Tensor) -> Tensor:
        return m if self.refiner is None else torch.cat([m.flatten(-2).float(), self.decoder(m).float()], dim=-1)

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """m and av of a bounded text path."""
        m, av = state[..., : -self.outputs], state[..., -self.outputs :]
        return m.reshape(*m.shape[:-1], self.settings.steps, -1), av

    def _encode(self, batch: Batch, early: Tensor | None) -> tuple[Tensor, Mapping[str, tuple[float, Tensor]]]:
        s, d = self.settings, self.settings.width
        a = self.static_a(batch.audio, batch.audio_mask)
        v = self.static_v(batch.vision, batch.vision_mask)
        difference_a = self.sdm(a) if self.sdm is not None else None
        difference_v = (v if s.vdm == "plain" else visual_differential(v)) if s.vdm else None
        auxiliary = {}
        # a modality of one step is the same at every bin: there is no time to align
        moving = (batch.audio_mask.sum(dim=-1) > 1) & (batch.vision_mask.sum(dim=-1) > 1)
        if self.training and bool(moving.any()):
            if s.static_alignment and s.lambda_s:
                loss = alignment_loss(a[..., :d], v[..., :d], s.temperature, s.negatives, moving)
                auxiliary["static_alignment"] = (s.lambda_s, loss)
            if s.dynamic_alignment and s.lambda_d and difference_a is not None and difference_v is not None:
                loss = alignment_loss(difference_a, difference_v, s.temperature, s.negatives, moving)
                auxiliary["dynamic_alignment"] = (s.lambda_d, loss)
        a = a if difference_a is None else torch.cat([a, difference_a], dim=-1)
        v = v if difference_v is None else torch.cat([v, difference_v], dim=-1)
        if self.clock is not None:
            a, v = a + self.clock, v + self.clock
        if early is not None:
            early_a, early_v = early[..., None, :].chunk(2, dim=-1)
            a, v = a + early_a, v + early_v
        for layer in self.encoders:
            a, v = layer(a, v)
        return torch.cat([a, v], dim=-1), auxiliary

    def _mean_word(self, text: Tensor, mask: Tensor) -> Tensor:
        assert self.words is not None
        return masked_mean(*self.words(text, mask))


def modalities(settings: DualSettings) -> frozenset[Modality]:
    """All three, but for the text path ``none``."""
    return frozenset(MODALITIES) - ({"text"} if settings.text_path == "none" else set())


SPEC = ModelSpec("dual", DualSettings, Dual, modalities, stackable=True)
