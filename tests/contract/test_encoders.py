"""Every encoder of the catalogue keeps what ``dual_bench.features.encoder`` promises, those with weights on networks of
random ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from random_networks import TIMM

from dual_bench.catalog import ENCODERS
from dual_bench.features.encoder import DEFAULTS, Encoder, audio_encoder, picture_encoder, text_encoder
from dual_bench.seeding import generator

SPECS = {
    "log-mel": "log-mel",
    "wav2vec2": "wav2vec2:layer=2,weights={networks}/wav2vec2",
    "egemaps": "egemaps",
    "frame-dct": "frame-dct",
    "timm": f"timm:model={TIMM},weights={{networks}}/timm",
    "sentence-transformers": "sentence-transformers:model={networks}/roberta",
}
OTHERWISE: dict[str, dict[str, str]] = {
    "log-mel": {"bands": "64", "rate": "100"},
    "wav2vec2": {"layer": "3", "weights": "{networks}/timm/model.safetensors"},
    "egemaps": {"level": "functionals"},
    "frame-dct": {"size": "24", "keep": "6", "rate": "5"},
    "timm": {"model": "resnet18", "rate": "5", "face": "on", "weights": "{networks}/wav2vec2"},
    "sentence-transformers": {"model": "{networks}/bert", "backend": "openvino", "precision": "bf16"},
}
"""Another value of every setting."""
SEEN = {"log-mel": 0.0, "wav2vec2": 0.025, "egemaps": 0.04, "frame-dct": 0.0, "timm": 0.0}
"""Seconds before the end in which no step begins any more."""
MEDIA = [name for name in SPECS if name != "sentence-transformers"]
TEXTS = ["they were so angry", "", "late", " \n", "nobody was happy, she is very very quiet"]


@pytest.fixture(scope="module")
def made(networks: Path) -> dict[str, Encoder]:
    """One of each kind that reads sound or pictures."""
    found: dict[str, Encoder] = {}
    for name in MEDIA:
        build = audio_encoder if ENCODERS.load(name).modality == "audio" else picture_encoder
        found[name] = build(SPECS[name].format(networks=networks))
    return found


def item(name: str, encoder: Encoder, seconds: float, silent: bool = False) -> tuple[NDArray[np.generic], float]:
    """Sound at 16 kHz, or pictures as the encoder wants them, that nobody may write to; and their rate."""
    rng = generator("contract", "encoders", name, repr(seconds))
    if ENCODERS.load(name).modality == "audio":
        found, rate = (0.1 * rng.normal(size=round(16_000 * seconds))).astype(np.float32), 16_000.0
    else:
        picture, rate = picture_encoder(name).picture, encoder.rate
        shape = (round(rate * seconds), picture.height, picture.width, 3)
        found = rng.integers(0, 256, shape if picture.colour else shape[:3], dtype=np.uint8)
    found = np.zeros_like(found) if silent else found
    found.setflags(write=False)
    return found, rate


def test_every_encoder_is_looked_at_with_all_its_settings() -> None:
    assert set(SPECS) == set(OTHERWISE) == set(ENCODERS.entries)
    for name, values in OTHERWISE.items():
        assert set(values) == set(ENCODERS.load(name).settings.model_fields)


@pytest.mark.parametrize("name", SPECS)
def test_every_setting_is_in_the_name(name: str, networks: Path) -> None:
    build = {"audio": audio_encoder, "vision": picture_encoder, "text": text_encoder}[ENCODERS.load(name).modality]
    base = SPECS[name].format(networks=networks)
    own = dict(part.split("=", 1) for part in base.partition(":")[2].split(",") if part)
    names = [build(base).name]
    for key, value in OTHERWISE[name].items():
        changed = own | {key: value.format(networks=networks)}
        names.append(build(f"{name}:" + ",".join(f"{k}={v}" for k, v in changed.items())).name)
    assert len(set(names)) == len(names)
    assert not any(str(networks) in found for found in names)


@pytest.mark.parametrize("seconds", [1.0, 2.5])
@pytest.mark.parametrize("name", MEDIA)
def test_steps_are_finite_and_as_many_a_second_as_is_said(name: str, seconds: float, made: dict[str, Encoder]) -> None:
    encoder = made[name]
    (found,) = encoder.encode([item(name, encoder, seconds)[0]], item(name, encoder, seconds)[1])
    assert found.dtype == np.float32
    assert found.shape[1] == encoder.width
    assert np.isfinite(found).all()
    assert abs(len(found) - encoder.rate * (seconds - SEEN[name])) <= 1


@pytest.mark.parametrize("name", MEDIA)
def test_an_item_alone_has_the_features_that_it_has_in_a_batch(name: str, made: dict[str, Encoder]) -> None:
    encoder = made[name]
    items = [item(name, encoder, seconds)[0] for seconds in (1.0, 0.0, 0.3, 2.0)]
    rate = item(name, encoder, 1.0)[1]
    together = encoder.encode(items, rate)
    assert together[1].shape == (0, encoder.width)
    for one, found in zip(items, together, strict=True):
        (alone,) = encoder.encode([one], rate)
        np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MEDIA)
def test_silence_and_darkness_and_the_shortest_item_are_finite(name: str, made: dict[str, Encoder]) -> None:
    encoder = made[name]
    silent, rate = item(name, encoder, 1.0, silent=True)
    for found in encoder.encode([silent, silent[:1], item(name, encoder, 1.0)[0][:1]], rate):
        assert len(found) >= 1
        assert np.isfinite(found).all()


@pytest.mark.parametrize("name", ["log-mel", "wav2vec2", "egemaps"])
@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_sound_at_any_rate_has_the_steps_of_its_seconds(name: str, rate: int, made: dict[str, Encoder]) -> None:
    (found,) = made[name].encode([generator("test", rate).normal(size=rate).astype(np.float32)], rate)
    assert abs(len(found) - made[name].rate * (1 - SEEN[name])) <= 1


@pytest.mark.parametrize("spec", [DEFAULTS["text"], "{networks}/bert", "{networks}/roberta"])
def test_words_become_tokens_of_one_width_and_no_words_none(spec: str, networks: Path) -> None:
    named = spec if spec == DEFAULTS["text"] else f"sentence-transformers:model={spec.format(networks=networks)}"
    encoder = text_encoder(named)
    together = encoder(TEXTS)
    assert [len(found) > 0 for found in together] == [True, False, True, False, True]
    for text, found in zip(TEXTS, together, strict=True):
        assert found.dtype == np.float32
        assert found.shape[1] == encoder.width
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, encoder([text])[0], rtol=1e-5, atol=1e-5)
