"""The encoders that need no weights: log-mel of waveforms and DCT of frames."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from dual_bench.features.audio import LogMel
from dual_bench.features.encoder import audio_encoder, picture_encoder
from dual_bench.features.vision import FrameDCT
from dual_bench.seeding import generator
from dual_bench.types import UserError


def tone(hertz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def frames(*shape: int) -> np.ndarray:
    return generator("test", "frames", *shape).integers(0, 256, shape, dtype=np.uint8)


# --------------------------------------------------------------------------------------------- log-mel


@pytest.mark.parametrize(("rate", "seconds"), [(16_000, 1.0), (8_000, 1.0), (44_100, 2.0), (16_000, 0.001)])
def test_log_mel_has_fifty_frames_a_second_at_any_sampling_rate(rate: int, seconds: float) -> None:
    found = LogMel()(tone(440, rate, seconds), rate)
    assert found.shape == (1 + math.floor(50 * seconds), 40)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


@pytest.mark.parametrize("rate", [16_000, 22_050])
@pytest.mark.parametrize("hertz", [200, 700, 2000, 5000])
def test_a_pure_tone_peaks_in_the_mel_band_whose_centre_is_nearest(hertz: float, rate: int) -> None:
    mel = 2595 * np.log10(1 + np.array([20, 8000, hertz]) / 700)
    centres = np.linspace(mel[0], mel[1], 42)[1:-1]
    spectrum = LogMel()(tone(hertz, rate), rate)[5:-5].mean(axis=0)
    assert spectrum.argmax() == np.abs(centres - mel[2]).argmin()


def test_digital_silence_is_finite_and_lowest() -> None:
    silence = LogMel()(np.zeros(16_000, np.float32), 16_000)
    assert np.isfinite(silence).all()
    assert silence.max() <= LogMel()(tone(300, 16_000), 16_000).min()


def test_ten_times_the_amplitude_is_twenty_decibels_more() -> None:
    one, ten = (LogMel()(gain * tone(500, 16_000), 16_000) for gain in (0.1, 1.0))
    assert (ten - one).max() == pytest.approx(math.log(100), abs=1e-3)


def test_no_samples_give_no_frames() -> None:
    assert LogMel()(np.empty(0, np.float32), 16_000).shape == (0, 40)
    assert LogMel()(np.empty(0, np.float32), math.nan).shape == (0, 40)


@pytest.mark.parametrize("rate", [math.nan, 0, -16_000, 16_000.5])
def test_a_sampling_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(UserError, match="rate"):
        LogMel()(tone(440, 16_000), rate)


def test_a_waveform_of_two_channels_is_refused() -> None:
    with pytest.raises(UserError, match=r"\(2, 100\)"):
        LogMel()(np.zeros((2, 100), np.float32), 16_000)


def test_the_waveform_is_left_as_it_was() -> None:
    wave = tone(440, 16_000)
    wave.setflags(write=False)
    LogMel()(wave, 16_000)
    np.testing.assert_array_equal(wave, tone(440, 16_000))


# ------------------------------------------------------------------------------------------------- DCT


def test_frame_dct_is_the_low_corner_of_the_dct_of_each_frame() -> None:
    run = frames(5, 32, 32)
    expected = scipy.fft.dctn(run / 255, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(5, 64)
    found = FrameDCT()(run, 10)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


@settings(deadline=None, derandomize=True, database=None)
@given(length=st.integers(1, 20), height=st.integers(1, 70), width=st.integers(1, 70))
def test_the_mean_of_the_features_is_the_feature_of_the_mean_frame(length: int, height: int, width: int) -> None:
    run = frames(length, height, width)
    mean = FrameDCT()(run.mean(axis=0, keepdims=True), 10)[0]
    np.testing.assert_allclose(FrameDCT()(run, 10).mean(axis=0), mean, atol=1e-3)


def test_larger_frames_are_averaged_by_area() -> None:
    run = frames(3, 32, 32)
    larger = run.repeat(2, axis=1).repeat(3, axis=2)
    assert larger.shape == (3, 64, 96)
    np.testing.assert_allclose(FrameDCT()(larger, 10), FrameDCT()(run, 10), atol=1e-4)


@pytest.mark.parametrize("shape", [(32, 32), (48, 40), (20, 100)])
def test_a_uniform_frame_has_brightness_alone_at_any_size(shape: tuple[int, int]) -> None:
    found = FrameDCT()(np.full((1, *shape), 51, np.uint8), 10)[0]
    assert found[0] == pytest.approx(32 * 0.2, abs=1e-4)
    np.testing.assert_allclose(found[1:], 0, atol=1e-5)


def test_no_frames_give_no_steps() -> None:
    assert FrameDCT()(np.empty((0, 32, 32), np.uint8), 10).shape == (0, 64)


def test_frames_in_colour_are_refused() -> None:
    with pytest.raises(UserError, match=r"\(4, 32, 32, 3\)"):
        FrameDCT()(np.zeros((4, 32, 32, 3), np.uint8), 10)


# --------------------------------------------------------------------------------------------- settings


def test_every_setting_is_in_the_name() -> None:
    names = [e.name for e in (LogMel(), LogMel(bands=64), LogMel(rate=100))]
    names += [e.name for e in (FrameDCT(), FrameDCT(size=24), FrameDCT(keep=6))]
    assert len(set(names)) == len(names)
    assert names[0] == "log-mel/v1/40x50Hz"


def test_width_is_the_number_of_features_a_step() -> None:
    assert LogMel(bands=24)(tone(440, 16_000), 16_000).shape[1] == LogMel(bands=24).width == 24
    assert FrameDCT(keep=5)(frames(2, 32, 32), 10).shape[1] == FrameDCT(keep=5).width == 25


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match=r"'log-mel': rate: expected one that divides 16000, found 33"):
        audio_encoder("log-mel:rate=33")
    with pytest.raises(UserError, match=r"'frame-dct': expected keep <= size, found keep 40 and size 32"):
        picture_encoder("frame-dct:keep=40")
