"""Frames to the pooled features of networks of timm (Wightman 2019), by default ResNet50 (He et al. 2016) as trained on
ImageNet-1k.

How a network wants its pictures (size, mean, deviation, share that is cut out of the middle) is in its data
configuration at timm.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform

from dual_bench.catalog import did_you_mean
from dual_bench.features.encoder import EncoderSpec
from dual_bench.features.media import Picture
from dual_bench.features.vision import FrameRate, thinned
from dual_bench.features.weights import autocast, chosen, digest, fill, from_hub, precision, read
from dual_bench.types import UserError

_WHO = "vision encoder 'timm'"
_FRAMES = 32
"""That the network sees at once; evaluated networks treat each by itself."""


class TimmSettings(BaseModel):
    """``model``, a name of ``timm.list_models()``, with or without the tag of its weights; ``weights``, a file or a
    folder with one, in place of those that timm publishes; ``face``, whether the largest face alone is looked at
    (pictures that are in memory already are taken as they are)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "resnet50"
    rate: FrameRate = 10.0
    face: bool = False
    weights: str = ""


class TimmFrames:
    """One step a frame, ``rate`` of them a second, of as many features as the network's last layer reads.

    Grey frames are repeated to three channels. On CUDA the network computes in fp16 by autocast, which has not been
    measured.
    """

    batch = 1

    def __init__(self, settings: TimmSettings, device: str = "cpu") -> None:
        if not timm.is_model(settings.model):
            near = did_you_mean(settings.model, timm.list_models())
            raise UserError(f"{_WHO}: unknown model '{settings.model}'{near if 'did you mean' in near else _SEE}")
        try:
            published = timm.models.get_pretrained_cfg(settings.model, allow_unregistered=False)
        except RuntimeError:
            name = settings.model.partition(".")[0]
            near = did_you_mean(settings.model, timm.list_pretrained(f"{name}.*"))
            raise UserError(f"{_WHO}: unknown weights '{settings.model}'{near}") from None
        self.settings = settings
        self.device = device
        self._published = cast(Any, published)
        self._look = cast(Any, resolve_data_config)(pretrained_cfg=self._published.to_dict())

    @property
    def rate(self) -> float:
        return self.settings.rate

    @property
    def picture(self) -> Picture:
        """Such that nothing has to be resized again: the middle is cut out of it, as in timm's own evaluation."""
        height, width = (int(pixels / self._look["crop_pct"]) for pixels in self._look["input_size"][1:])
        return Picture(height, width, colour=True, crop=self._look["crop_mode"] != "squash", face=self.settings.face)

    @cached_property
    def name(self) -> str:
        """Identifies the weights and every setting; features are cached under it."""
        face = "/face" if self.settings.face else ""
        own = f"{self.settings.model}@{digest([self._file])}"
        return f"timm/{own}/v1/{self.settings.rate:g}Hz{face}/{precision(self.device)}"

    @cached_property
    def width(self) -> int:
        return int(getattr(self._network, "head_hidden_size", self._network.num_features))

    def encode(self, items: Sequence[NDArray[np.generic]], rate: float) -> list[NDArray[np.float32]]:
        """(frames, height, width[, 3]) uint8 at ``rate`` frames a second, each to (steps, width): a step for each frame
        that ``thinned`` leaves."""
        return [self._one(item, rate) for item in items]

    def _one(self, item: NDArray[np.generic], rate: float) -> NDArray[np.float32]:
        if item.ndim not in (3, 4) or (item.ndim == 4 and item.shape[3] != 3):
            raise UserError(f"{_WHO}: expected frames of shape (frames, height, width[, 3]), found {item.shape}")
        if not item.size:
            return np.empty((0, self.width), np.float32)
        item = thinned(item, rate, self.rate)
        parts = [self._seen(item[start : start + _FRAMES]) for start in range(0, len(item), _FRAMES)]
        return np.concatenate(parts)

    def _seen(self, frames: NDArray[np.generic]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(np.array(frames, np.float32)) / 255
        colours = pixels.permute(0, 3, 1, 2) if pixels.ndim == 4 else pixels[:, None].expand(-1, 3, -1, -1)
        with torch.inference_mode(), autocast(self.device):
            found: torch.Tensor = self._network(self._transform(colours.to(self.device)))
        return found.float().cpu().numpy()

    @cached_property
    def _transform(self) -> Any:
        """timm's own for evaluation; it takes a batch of tensors in [0, 1] as well as a picture."""
        return create_transform(**self._look, is_training=False)

    @cached_property
    def _file(self) -> Path:
        """Where the weights lie; downloaded where they are not there yet."""
        if self.settings.weights:
            return chosen(self.settings.weights, _WHO)
        from huggingface_hub import constants, hf_hub_download

        if not self._published.hf_hub_id:
            raise UserError(f"{_WHO}: timm publishes no weights of '{self.settings.model}'; give some as weights=FILE")
        repository, _, revision = self._published.hf_hub_id.partition("@")
        file = self._published.hf_hub_filename or "model.safetensors"
        try:
            return from_hub(partial(hf_hub_download, repository, file, revision=revision or None))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{_WHO} needs {file} of {repository}, which cannot be had from huggingface.co "
                f"({type(error).__name__}); put it into the cache {constants.HF_HUB_CACHE}, name it with weights=FILE, "
                "or use frame-dct, which needs no weights"
            ) from None

    @cached_property
    def _network(self) -> Any:
        state = read(self._file, _WHO)
        with torch.random.fork_rng(devices=[]):  # the weights that building draws are overwritten at once
            if self.settings.weights:
                network = timm.create_model(self.settings.model, num_classes=0)
                last = self._published.classifier
                fill(network, state, self._file, _WHO, spare=[last] if isinstance(last, str) else last or ())
            else:  # timm knows how to convert what others trained
                overlay = {"state_dict": state}
                network = timm.create_model(self.settings.model, pretrained=True, pretrained_cfg_overlay=overlay)
                cast(Any, network).reset_classifier(0)
        return network.to(self.device).eval()


_SEE = "; timm.list_models() lists all"

SPEC = EncoderSpec("timm", "vision", TimmSettings, TimmFrames)
