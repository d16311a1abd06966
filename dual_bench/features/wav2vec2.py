"""Waveforms to the hidden states of wav2vec 2.0 base (Baevski et al. 2020), as torchaudio's bundle WAV2VEC2_BASE has
it: trained on 960 hours of LibriSpeech without labels.

Its weights are those of fairseq, in the file that torchaudio publishes:
https://docs.pytorch.org/audio/stable/generated/torchaudio.pipelines.WAV2VEC2_BASE.html
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from dual_bench.features.audio import resampled
from dual_bench.features.encoder import EncoderSpec
from dual_bench.features.weights import autocast, chosen, digest, fill, precision, read
from dual_bench.types import UserError

FILE = "wav2vec2_fairseq_base_ls960.pth"
URL = f"https://download.pytorch.org/torchaudio/models/{FILE}"
_WHO = "audio encoder 'wav2vec2'"
_SHORTEST = 400
"""Samples that one step sees, 25 ms; steps are 320 samples apart."""


class Wav2Vec2Settings(BaseModel):
    """``layer`` of the transformer whose output is taken; ``weights``, a file or a folder with one, in place of
    torchaudio's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: Annotated[int, Field(ge=1, le=12)] = 12
    weights: str = ""


class Wav2Vec2:
    """768 features, 50 times a second: of n samples at 16 kHz, 1 + (n - 400) // 320 steps.

    A waveform of less than 25 ms is one step, with zeros after its end. The convolutions before the transformer see one
    item at a time: the first of them is normalised over time, so that padding would change every step. On CUDA the
    transformer reads 8 items at once, and both compute in fp16 by autocast, which has not been measured.
    """

    width = 768
    rate = 50.0

    def __init__(self, settings: Wav2Vec2Settings, device: str = "cpu") -> None:
        self.settings = settings
        self.device = device

    @property
    def batch(self) -> int:
        return 1 if self.device == "cpu" else 8

    @cached_property
    def name(self) -> str:
        """Identifies the weights and every setting; features are cached under it."""
        return f"wav2vec2-base@{digest([self._file])}/v1/layer{self.settings.layer}/{precision(self.device)}"

    def encode(self, items: Sequence[NDArray[np.generic]], rate: float) -> list[NDArray[np.float32]]:
        """Waveforms (samples,) at ``rate`` Hz, each to (steps, 768)."""
        found: list[NDArray[np.float32]] = [np.empty((0, self.width), np.float32)] * len(items)
        heard = [i for i, item in enumerate(items) if item.shape != (0,)]
        if not heard:
            return found
        with torch.inference_mode(), autocast(self.device):
            local = [self._convolved(items[i], rate) for i in heard]
            lengths = torch.tensor([len(steps) for steps in local], device=self.device)
            padded = torch.nn.utils.rnn.pad_sequence(local, batch_first=True)
            layers = self._network.encoder.extract_features(padded, lengths, self.settings.layer)
        for i, states, steps in zip(heard, layers[-1].float().cpu(), local, strict=True):
            found[i] = states[: len(steps)].numpy().copy()
        return found

    def _convolved(self, item: NDArray[np.generic], rate: float) -> torch.Tensor:
        """(steps, 512): what the convolutions make of a waveform by itself."""
        waveform = resampled(item, rate, _WHO).to(self.device)
        padded = torch.nn.functional.pad(waveform, (0, max(0, _SHORTEST - len(waveform))))
        steps: torch.Tensor = self._network.feature_extractor(padded[None], None)[0][0]
        return steps

    @cached_property
    def _file(self) -> Path:
        """Where the weights lie; downloaded where they are not there yet."""
        if self.settings.weights:
            return chosen(self.settings.weights, _WHO)
        path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(URL, str(path), progress=False)
            except OSError as error:
                raise UserError(
                    f"{_WHO} needs {FILE}, which cannot be had from {URL} ({error}); put it into {path.parent}, name "
                    "it with weights=FILE, or use log-mel, which needs no weights"
                ) from None
        return path

    @cached_property
    def _network(self) -> Any:
        with torch.random.fork_rng(devices=[]):  # the weights that building draws are overwritten at once
            network = torchaudio.models.wav2vec2_base()
        fill(network, read(self._file, _WHO), self._file, _WHO)
        return network.to(self.device).eval()


SPEC = EncoderSpec("wav2vec2", "audio", Wav2Vec2Settings, Wav2Vec2)
