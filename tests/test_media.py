"""Media files, made and real, whole and damaged, to sound and pictures."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tracemalloc
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from av.stream import Disposition
from hypothesis import given, settings
from hypothesis import strategies as st
from media import HEIGHT, WIDTH, numbered, numbers, tone, write
from numpy.typing import NDArray

from dual_bench.features import decode, faces, media
from dual_bench.features.media import Clip, MediaError, Picture, PictureFacts, SoundFacts, frames, probe, sound
from dual_bench.seeding import generator
from dual_bench.types import UserError

GREY = Picture(HEIGHT, WIDTH, colour=False)
RATE = 16_000


def hertz_and_level(wave: NDArray[np.float32]) -> tuple[float, float]:
    """Of the loudest sine in the middle of a wave: its frequency, and decibels over a sine of amplitude 0.5."""
    middle = wave[len(wave) // 10 : -len(wave) // 10]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 18))
    peak = int(spectrum.argmax())
    return peak * RATE / (1 << 18), 20 * math.log10(spectrum[peak] / (0.5 * len(middle) / 4))


def onset(wave: NDArray[np.float32]) -> float:
    """Seconds to the first sample that is loud."""
    return int(np.argmax(np.abs(wave) > 0.1)) / RATE


def refusal(clip: Clip | Path) -> str:
    """The one line that sound and pictures of a file are refused with."""
    clip = Clip(clip) if isinstance(clip, Path) else clip
    said = set()
    for read in (lambda: sound(clip), lambda: frames(clip, 10, GREY)):
        with pytest.raises(MediaError) as caught:
            read()
        said.add(str(caught.value))
    (one,) = said
    assert "\n" not in one
    assert str(clip.path) not in one
    return one


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds: 50 numbered pictures with B-frames, and a tone of 440 Hz in stereo."""
    path = tmp_path_factory.mktemp("media") / "talk.mp4"
    coding = {"bf": "3", "g": "25", "sc_threshold": "0"}
    return write(path, numbered(50), tone(440, 2, channels=2), coding=coding, container={"movflags": "faststart"})


# --------------------------------------------------------------------------------------------------- sound


@pytest.mark.parametrize("hertz", [440, 3_000])
@pytest.mark.parametrize(
    ("name", "codec", "rate", "channels"),
    [
        ("a.mp4", "aac", 48_000, 1),
        ("a.mp4", "aac", 44_100, 2),
        ("a.mp4", "aac", 48_000, 6),
        ("a.mp4", "aac", 22_050, 2),
        ("a.wav", "pcm_s16le", 44_100, 2),
        ("a.wav", "pcm_s24le", 48_000, 6),
        ("a.wav", "pcm_f32le", 22_050, 1),
        ("a.wav", "pcm_u8", 16_000, 1),
        ("a.wav", "pcm_s32le", 8_000, 8),
        ("a.mp4", "aac", 48_000, 8),
        ("a.flac", "flac", 11_025, 1),
        ("a.mp3", "libmp3lame", 44_100, 2),
        ("a.mka", "libopus", 48_000, 2),
    ],
)
def test_a_tone_in_all_channels_keeps_its_pitch_and_level(
    tmp_path: Path, name: str, codec: str, rate: int, channels: int, hertz: int
) -> None:
    path = write(tmp_path / name, sound=tone(hertz, 1.5, rate, channels), rate=rate, sound_codec=codec)
    heard = sound(Clip(path))
    assert heard.dtype == np.float32
    assert len(heard) == pytest.approx(1.5 * RATE, abs=0.06 * RATE)
    pitch, level = hertz_and_level(heard)
    assert pitch == pytest.approx(hertz, abs=1)
    assert abs(level) < 1


@pytest.mark.parametrize(("rate", "hertz"), [(48_000, 8_200), (48_000, 12_000), (44_100, 15_000), (22_050, 9_000)])
def test_a_tone_above_eight_kilohertz_does_not_come_back_as_a_lower_one(tmp_path: Path, rate: int, hertz: int) -> None:
    path = write(tmp_path / "a.wav", sound=tone(hertz, 1, rate), rate=rate, sound_codec="pcm_s16le")
    assert np.abs(sound(Clip(path))[800:-800]).max() < 1e-3


@pytest.mark.parametrize("layout", ["stereo", "5.1", "5.1(side)", "7.1", "3.0", "quad"])
def test_channels_are_mixed_as_ffmpeg_mixes_them_to_integers(tmp_path: Path, layout: str) -> None:
    channels = av.AudioLayout(layout).nb_channels
    noise = generator("test", "mix", layout).uniform(-1, 1, (channels, 4_000)).astype(np.float32)
    path = write(tmp_path / "a.wav", sound=noise, rate=RATE, layout=layout, sound_codec="pcm_s16le")
    mixer = av.AudioResampler(format="s16", layout="mono")
    with av.open(str(path)) as container:
        mixed = [out.to_ndarray()[0] for frame in container.decode(audio=0) for out in mixer.resample(frame)]
    np.testing.assert_allclose(sound(Clip(path)), np.concatenate(mixed) / 32768, atol=4 / 32768)  # of 16 bits each


def test_channels_that_nobody_names_count_alike(tmp_path: Path) -> None:
    apart = np.stack([np.full(4_000, level, np.float32) for level in (0.75, 0.25, 0.0, -0.5)])
    path = write(tmp_path / "a.mkv", sound=apart, rate=RATE, layout="quad", sound_codec="pcm_s16le")
    with av.open(str(path)) as container:
        assert container.streams.audio[0].layout.name == "4 channels"
    np.testing.assert_allclose(sound(Clip(path)), 0.125, atol=1e-4)


def test_full_scale_in_all_channels_is_not_clipped(tmp_path: Path) -> None:
    square = np.tile(np.sign(tone(100, 0.5, RATE))[:1] * np.float32(0.99), (6, 1))
    path = write(tmp_path / "a.wav", sound=square, rate=RATE, sound_codec="pcm_s16le")
    np.testing.assert_allclose(sound(Clip(path)), square[0], atol=1e-4)


def test_sound_beyond_full_scale_and_no_numbers_at_all_stay_in_range(tmp_path: Path) -> None:
    wild = np.array([[3.0, -3.0, np.nan, np.inf, 0.5] * 100], np.float32)
    heard = sound(Clip(write(tmp_path / "a.wav", sound=wild, rate=RATE, sound_codec="pcm_f32le")))
    np.testing.assert_array_equal(heard, np.array([1, -1, 0, 0, 0.5] * 100, np.float32))


def test_silence_is_silence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(5), np.zeros((2, 24_000), np.float32))
    heard = sound(Clip(path))
    assert len(heard) >= RATE // 2
    assert np.abs(heard).max() < 1e-4


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "pcm_s16le"), ("a.mkv", "libopus")])
def test_sound_that_starts_late_stays_in_step_with_the_pictures(tmp_path: Path, name: str, codec: str) -> None:
    path = write(tmp_path / name, numbered(50), tone(440, 1), sound_codec=codec, sound_times=[0.5])
    heard = sound(Clip(path))
    assert onset(heard) == pytest.approx(0.5, abs=0.003)
    assert onset(sound(Clip(path, 0.25, 1.25))) == pytest.approx(0.25, abs=0.003)
    assert not heard[: int(0.45 * RATE)].any()


def test_pictures_that_start_late_stay_in_step_with_the_sound(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", numbered(25), tone(440, 2), times=[1 + i / 25 for i in range(25)])
    assert numbers(frames(Clip(path), 10, GREY)) == [0] * 10 + [0, 2, 5, 7, 10, 12, 15, 17, 20, 22]


def test_a_gap_in_the_sound_is_silent_and_what_follows_is_in_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", numbered(5), tone(440, 1), sound_codec="pcm_s16le", sound_times=[0, 1.0])
    heard = sound(Clip(path))
    assert len(heard) == 1.5 * RATE
    assert onset(heard[RATE // 2 + 50 :]) == pytest.approx(0.5, abs=0.005)
    assert not heard[RATE // 2 + 400 : RATE - 400].any()


@pytest.mark.parametrize(
    ("name", "codec", "rate", "tolerance"),
    [
        ("a.wav", "pcm_s16le", 44_100, 1e-6),
        ("a.wav", "pcm_s16le", 48_000, 1e-6),
        ("a.mp4", "aac", 44_100, 5e-3),
        ("a.ts", "aac", 48_000, 5e-3),
        ("a.mp3", "libmp3lame", 44_100, 1e-3),
    ],
)
def test_a_stretch_of_sound_is_that_stretch_of_the_whole(
    tmp_path: Path, name: str, codec: str, rate: int, tolerance: float
) -> None:
    sweep = np.sin(np.cumsum(np.linspace(0.01, 0.6, 4 * rate)))[None].astype(np.float32) / 2
    path = write(tmp_path / name, sound=sweep, rate=rate, sound_codec=codec)
    whole = sound(Clip(path))
    for start, end in ((0.0, 0.7), (1.5, 2.25), (2.12345, 3.0)):
        part = sound(Clip(path, start, end))
        np.testing.assert_allclose(part, whole[round(start * RATE) : round(end * RATE)], atol=tolerance)
    np.testing.assert_allclose(sound(Clip(path, 3.0)), whole[3 * RATE :], atol=tolerance)


# ------------------------------------------------------------------------------------------------ pictures


@pytest.mark.parametrize("rate", [10, 5, 7.3, 60])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
@pytest.mark.parametrize("fps", [Fraction(24), Fraction(24_000, 1001), Fraction(25), Fraction(30)])
def test_the_picture_of_each_time_is_the_one_shown_then(tmp_path: Path, fps: Fraction, name: str, rate: float) -> None:
    coding = {"bf": "3"} if name != "a.avi" else {}
    path = write(tmp_path / name, numbered(60), fps=fps, coding=coding, codec="mpeg4" if name == "a.avi" else "libx264")
    times = [i / fps for i in range(60)]
    if name == "a.mkv":
        times = [Fraction(math.floor(time * 1000 + Fraction(1, 2)), 1000) for time in times]
    asked = [k / Fraction(str(rate)) for k in range(math.ceil(60 / fps * Fraction(str(rate))))]
    shown = [bisect_right(times, time + Fraction(6, 10_000)) - 1 for time in asked]
    assert numbers(frames(Clip(path), rate, GREY)) == shown


@pytest.mark.parametrize("rate", [10, 5, 7.3])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_pictures_of_a_variable_rate_are_chosen_by_their_times(tmp_path: Path, name: str, rate: float) -> None:
    steps = generator("test", "variable").choice([0.01, 0.033, 0.04, 0.1, 0.25], 40)
    times = np.concatenate([[0], np.cumsum(steps)]).round(3)
    path = write(tmp_path / name, numbered(41), times=times.tolist(), coding={"bf": "3"})
    found = numbers(frames(Clip(path), rate, GREY))
    expected = np.searchsorted(times, np.arange(math.ceil(times[-1] * rate)) / rate + 6e-4, side="right") - 1
    assert found[: len(expected)] == expected.tolist()
    assert set(found[len(expected) :]) <= {40}


@given(start=st.floats(0, 1.9), length=st.floats(0.05, 2), rate=st.sampled_from([4.0, 10.0, 25.0]))
@settings(max_examples=25)
def test_a_stretch_of_pictures_starts_where_it_is_asked_to(
    talk: Path, start: float, length: float, rate: float
) -> None:
    found = numbers(frames(Clip(talk, start, start + length), rate, GREY))
    asked = [start + k / rate for k in range(60) if k / rate < min(start + length, 2.0) - start - 6e-4] or [start]
    assert found == [min(math.floor((at + 6e-4) * 25), 49) for at in asked]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4"), ("a.mpg", "mpeg1video")],
)
def test_a_late_stretch_starts_right_in_every_format(tmp_path: Path, name: str, codec: str) -> None:
    coding = {"g": "30", "bf": "2"} if name != "a.avi" else {"g": "30"}
    path = write(tmp_path / name, numbered(150), tone(440, 6), codec=codec, coding=coding, sound_codec="mp2")
    assert numbers(frames(Clip(path, 3.22, 4.02), 25, GREY)) == list(range(80, 100))
    assert numbers(frames(Clip(path, 5.82), 25, GREY)) == list(range(145, 150))
    assert len(sound(Clip(path, 3.22, 4.02))) == 0.8 * RATE


STARTS = [k / 25 for k in range(13, 288, 13)]


def long_groups(path: Path, codec: str) -> Path:
    """Twelve seconds of numbered pictures, with few key frames."""
    coding = {"g": "30" if path.suffix == ".mpg" else "250", "sc_threshold": "0"}
    coding |= {} if path.suffix == ".avi" else {"bf": "2"}
    pictures = np.concatenate([numbered(256), numbered(44)])
    return write(path, pictures, tone(440, 12), codec=codec, coding=coding, sound_codec="mp2")


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.ts", "libx264"),
        ("a.mts", "mpeg2video"),
        ("a.mpg", "mpeg1video"),
        ("b.mpg", "mpeg2video"),
        ("a.mkv", "libx264"),
        ("a.mp4", "libx264"),
        ("a.avi", "mpeg4"),
    ],
)
def test_a_stretch_shows_what_the_whole_shows_then(tmp_path: Path, name: str, codec: str) -> None:
    path = long_groups(tmp_path / name, codec)
    whole = frames(Clip(path), 25, GREY)
    assert len(set(numbers(whole))) == 256
    for start in STARTS:
        first = round(start * 25)
        found = frames(Clip(path, start, start + 0.6), 25, GREY)
        np.testing.assert_array_equal(found, whole[first : first + 15], err_msg=f"{start}")


def test_a_seek_that_lands_too_late_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "UNINDEXED", ())
    path = long_groups(tmp_path / "a.ts", "libx264")
    whole = frames(Clip(path), 25, GREY)
    for start in STARTS:
        first = round(start * 25)
        found = frames(Clip(path, start, start + 0.6), 25, GREY)
        np.testing.assert_array_equal(found, whole[first : first + 15], err_msg=f"{start}")


def test_halves_are_cut_out_before_anything_else(tmp_path: Path) -> None:
    left, right = numbered(50, width=WIDTH), numbered(100, width=WIDTH)[50:]
    clip = write(tmp_path / "a.mp4", np.concatenate([left, right], axis=2))
    for picture in (GREY, Picture(32, 64, colour=True), Picture(32, 64, colour=False, crop=True)):
        assert numbers(frames(Clip(clip, half="left"), 25, picture)) == list(range(50))
        assert numbers(frames(Clip(clip, half="right"), 25, picture)) == list(range(50, 100))


def test_a_crop_keeps_the_middle_in_proportion_and_else_all_is_squeezed(tmp_path: Path) -> None:
    wide = np.zeros((1, 40, 160), np.uint8)
    wide[:, :, 60:100] = 200
    path = write(tmp_path / "a.mkv", wide, codec="ffv1", pixels="gray")
    (crop,) = frames(Clip(path), 25, Picture(20, 20, colour=False, crop=True))
    np.testing.assert_array_equal(crop, np.full((20, 20), 200))
    (squeezed,) = frames(Clip(path), 25, Picture(20, 16, colour=False))
    np.testing.assert_array_equal(squeezed, np.tile(np.repeat([0, 200, 0], [6, 4, 6]), (20, 1)))
    (tall,) = frames(Clip(path), 25, Picture(40, 10, colour=False, crop=True))
    np.testing.assert_array_equal(tall, np.full((40, 10), 200))


def test_scaling_down_averages_areas(tmp_path: Path) -> None:
    noise = generator("test", "area").integers(0, 256, (2, 64, 96), np.uint8)
    path = write(tmp_path / "a.mkv", noise, codec="ffv1", pixels="gray")
    blocks = noise.reshape(2, 16, 4, 16, 6).mean(axis=(2, 4))
    np.testing.assert_allclose(frames(Clip(path), 25, Picture(16, 16, colour=False)), blocks, atol=1.01)


@pytest.mark.parametrize(
    ("codec", "pixels", "off"),
    [("ffv1", "gray", 0), ("libx264", "yuvj420p", 0), ("ffv1", "bgr0", 0), ("ffv1", "yuv420p", 1)],
)
def test_grey_levels_come_back_as_they_were_drawn(tmp_path: Path, codec: str, pixels: str, off: int) -> None:
    drawn = np.arange(256, dtype=np.uint8).repeat(32).reshape(1, HEIGHT, WIDTH)
    coding = {"qp": "0"} if codec == "libx264" else {}
    found = frames(Clip(write(tmp_path / "a.mkv", drawn, codec=codec, pixels=pixels, coding=coding)), 25, GREY)
    assert np.abs(found.astype(int) - drawn).max() <= off


def test_colours_come_back_as_they_were_drawn(tmp_path: Path) -> None:
    drawn = np.zeros((1, 64, 64, 3), np.uint8)
    drawn[:, :32, :32], drawn[:, :32, 32:], drawn[:, 32:, :32] = (200, 30, 40), (20, 190, 60), (50, 60, 210)
    for pixels, off in (("bgr0", 0), ("yuv444p", 3)):
        path = write(tmp_path / "a.mkv", drawn, codec="ffv1", pixels=pixels)
        found = frames(Clip(path), 25, Picture(64, 64, colour=True))
        assert found.shape == (1, 64, 64, 3)
        assert np.abs(found.astype(int) - drawn).max() <= off


@pytest.mark.parametrize(("turned", "corner"), [(0, (0, 0)), (90, (1, 0)), (180, (1, 1)), (-90, (0, 1))])
def test_pictures_filmed_on_their_side_are_turned_upright(tmp_path: Path, turned: int, corner: tuple[int, int]) -> None:
    lit = np.zeros((2, 64, 96), np.uint8)
    lit[:, :32, :48] = 200
    path = write(tmp_path / "a.mp4", lit, turned=turned)
    upper_left, *_ = frames(Clip(path), 25, Picture(2, 2, colour=False))
    assert np.unravel_index(upper_left.argmax(), (2, 2)) == corner


def test_one_picture_is_one_picture_at_any_rate(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(8)[7:])
    for rate in (0.1, 5, 25):
        assert numbers(frames(Clip(path), rate, GREY)) == [7]
    assert numbers(frames(Clip(path), 50, GREY)) == [7, 7]


# ------------------------------------------------------------------------------------------- what is decoded


def everything(path: Path, rate: float) -> list[NDArray[np.uint8]]:
    """Luma of the frame shown at each time, from a plain loop that decodes all of a file and leaves nothing out."""
    with av.open(str(path)) as container:
        zero = container.start_time / 1e6
        stream = container.streams.video[0]
        every = [(float(f.pts * stream.time_base) - zero, f) for f in container.decode(stream)]
    length = every[-1][0] + 1 / float(stream.average_rate)
    asked = [k / rate for k in range(1000) if k / rate < length - 6e-4]
    chosen = [max(i for i, (at, _) in enumerate(every) if at <= max(every[0][0], time + 6e-4)) for time in asked]
    return [every[i][1].to_ndarray()[: every[i][1].height] for i in chosen]


def reference_clips(shared_data: Path, talk: Path) -> list[Path]:
    return [talk, shared_data / "meld_clips" / "dia12_utt12.mp4", shared_data / "grid_clips" / "bbaf2n.mpg"]


def test_leaving_frames_out_that_nobody_asks_for_changes_no_pixel(
    shared_data: Path, talk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = 10
    for path in reference_clips(shared_data, talk):
        facts = probe(path).pictures
        assert facts is not None
        picture = Picture(facts.height, facts.width, colour=False)
        quick = frames(Clip(path), rate, picture)
        with monkeypatch.context() as patch:
            patch.setattr(media, "SKIPS", ())
            np.testing.assert_array_equal(quick, frames(Clip(path), rate, picture), err_msg=path.name)
        luma = np.stack(everything(path, rate)).astype(np.float32)
        np.testing.assert_allclose(quick, np.clip((luma - 16) * 255 / 219, 0, 255), atol=0.51, err_msg=path.name)


def test_frames_that_nobody_asks_for_are_left_out(talk: Path) -> None:
    with media._opened(talk) as container:
        track = media._Track(container, "video", Clip(talk))
        packets = track.packets(before=0, after=0)
        every = [frame.pts for frame in track.decode(packets)]
        wanted = every[::10]
        found = [frame.pts for frame in track.decode(packets, wanted)]
    assert len(every) == 50
    assert set(wanted) <= set(found) < set(every)


def test_what_comes_out_does_not_depend_on_threads(talk: Path) -> None:
    def made() -> tuple[NDArray[np.generic], ...]:
        clip = Clip(talk)
        return frames(clip, 10, GREY), frames(clip, 10, Picture(30, 30, colour=True, crop=True)), sound(clip)

    alone = made()
    with ThreadPoolExecutor(4) as pool:
        for others in [pool.submit(made) for _ in range(8)]:
            for one, other in zip(alone, others.result(), strict=True):
                np.testing.assert_array_equal(one, other)


# -------------------------------------------------------------------------------------- damaged, and no media


def cut(path: Path, share: float) -> Path:
    """A copy of the file's first bytes."""
    short = path.with_name(f"cut{share:g}-{path.name}")
    short.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return short


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_file_that_breaks_off_says_how_much_of_it_decodes(tmp_path: Path, name: str) -> None:
    noise = generator("test", "noise").integers(0, 256, (75, 32, 64), np.uint8)
    codecs = {"codec": "mpeg4", "sound_codec": "mp2"} if name == "a.avi" else {}
    front = {"container": {"movflags": "faststart"}} if name == "a.mp4" else {}
    path = write(tmp_path / name, noise, tone(440, 3), **codecs, **front)
    for read in (lambda clip: frames(clip, 10, GREY), sound):
        whole = read(Clip(path))
        with pytest.raises(MediaError, match=r"^decodes only 1\.\d of 3\.\d s$"):
            read(Clip(cut(path, 0.5)))
        kept = read(Clip(cut(path, 0.97)))
        assert 0.9 * len(whole) <= len(kept) <= len(whole)
        np.testing.assert_array_equal(kept[: len(whole) * 8 // 10], whole[: len(whole) * 8 // 10])
        np.testing.assert_array_equal(read(Clip(cut(path, 0.5), 0, 1)), read(Clip(path, 0, 1)))


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_s24le", "pcm_f32le"])
def test_a_wav_that_breaks_off_says_how_much_of_it_decodes(tmp_path: Path, codec: str) -> None:
    path = write(tmp_path / "a.wav", sound=tone(440, 2), sound_codec=codec)
    with pytest.raises(MediaError, match=r"^decodes only 1\.0 of 2\.0 s$"):
        sound(Clip(cut(path, 0.5)))
    assert len(sound(Clip(cut(path, 0.95)))) == pytest.approx(1.9 * RATE, abs=0.02 * RATE)
    np.testing.assert_array_equal(sound(Clip(cut(path, 0.5), 0, 0.9)), sound(Clip(path, 0, 0.9)))


@pytest.mark.parametrize("size", [0, 36, 0x7FFFF024, 0xFFFFFFFF])
def test_a_wav_that_does_not_know_its_size_is_whole(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.wav", sound=tone(440, 2), sound_codec="pcm_s16le")
    written = bytearray(path.read_bytes())
    place = written.index(b"data") + 4
    written[4:8] = size.to_bytes(4, "little")
    written[place : place + 4] = max(0, size - 36).to_bytes(4, "little")
    path.write_bytes(written)
    assert len(sound(Clip(path))) == 2 * RATE


def test_an_mp4_without_its_index_cannot_be_opened(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(50), tone(440, 2))
    assert refusal(cut(path, 0.7)).startswith("is no media file that can be opened: ")


def test_a_file_damaged_within_still_ends_where_it_did(tmp_path: Path, talk: Path) -> None:
    path = tmp_path / "a.mp4"
    damaged = bytearray(talk.read_bytes())
    start = damaged.index(b"mdat")
    middle = (start + len(damaged)) // 2
    damaged[middle : middle + 100] = bytes(100)
    path.write_bytes(damaged)
    assert len(frames(Clip(path), 10, GREY)) == 20
    assert len(sound(Clip(path))) == len(sound(Clip(talk)))


def test_pictures_that_a_damaged_key_frame_leaves_out_are_not_made_of_later_ones(tmp_path: Path) -> None:
    coding = {"g": "50", "sc_threshold": "1000000000"}
    path = write(tmp_path / "a.mkv", numbered(150), codec="mpeg2video", coding=coding)
    with av.open(str(path)) as container:
        _, key, _ = (bytes(packet) for packet in container.demux(video=0) if packet.is_keyframe)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(key, bytes(len(key))))
    assert path.read_bytes() != whole
    assert numbers(frames(Clip(path, 5, 6), 25, GREY)) == list(range(125, 150))
    with pytest.raises(MediaError, match=r"^decodes only 1\.2 of 2\.0 s$"):
        frames(Clip(path, 3.2, 5.2), 25, GREY)


def test_files_that_are_none_are_refused_in_a_few_words(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.mp4") == "is missing"
    assert refusal(tmp_path) == "is no file"
    (tmp_path / "a.mp4").touch()
    assert refusal(tmp_path / "a.mp4") == "is empty (0 bytes)"
    (tmp_path / "a.mp4").write_text("It was a dark and stormy night.\n" * 100)
    assert refusal(tmp_path / "a.mp4").startswith("is no media file that can be opened: ")
    for path in (tmp_path / "b.mp4", tmp_path, tmp_path / "a.mp4"):
        with pytest.raises(MediaError):
            probe(path)


LISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{other}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile '{other}'\n",
}


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8", "list.ffconcat"])
@pytest.mark.parametrize("kind", LISTS)
def test_a_list_of_other_files_opens_none_of_them(tmp_path: Path, kind: str, name: str, absolute: bool) -> None:
    other = write(tmp_path / "other.ts", numbered(50), tone(440, 2))
    assert len(sound(Clip(other)))
    os.utime(other, (0, 0))
    (tmp_path / name).write_text(LISTS[kind].format(other=other if absolute else other.name))
    assert refusal(tmp_path / name).startswith("is no media file that can be opened")
    with pytest.raises(MediaError):
        probe(tmp_path / name)
    assert other.stat().st_atime == 0


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.aiff", "pcm_s16be"),
        ("a.au", "pcm_s16be"),
        ("a.caf", "pcm_s16le"),
        ("a.w64", "pcm_s16le"),
        ("a.aac", "aac"),
        ("a.ac3", "ac3"),
        ("a.eac3", "eac3"),
        ("a.m4a", "aac"),
        ("a.mov", "aac"),
        ("a.3gp", "aac"),
        ("a.flv", "aac"),
        ("a.nut", "aac"),
        ("a.ogg", "flac"),
        ("a.opus", "libopus"),
        ("a.webm", "libopus"),
        ("a.wma", "pcm_s16le"),
        ("a.wtv", "mp2"),
        ("a.wv", "wavpack"),
        ("a.tta", "tta"),
        ("a.vob", "mp2"),
        ("a.mts", "aac"),
    ],
)
def test_sound_of_any_usual_format_is_read(tmp_path: Path, name: str, codec: str) -> None:
    heard = sound(Clip(write(tmp_path / name, sound=tone(440, 1), sound_codec=codec)))
    assert hertz_and_level(heard)[0] == pytest.approx(440, abs=1)


def test_a_pipe_and_a_device_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    code = (
        "import sys; from pathlib import Path; from dual_bench.features.decode import *\n"
        "for name in sys.argv[1:]:\n"
        "    clip = Clip(Path(name))\n"
        "    print(write_sound(clip, Path('a.wav')), '/', pictures(clip, 10, Picture(8, 8, True)))"
    )
    names = [str(tmp_path / name) for name in ("pipe.mp4", "link.mp4", "zero.mp4")]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, check=True, timeout=60)
    assert done.stdout.decode().splitlines() == ["is no file / is no file"] * 3


def test_a_wrong_extension_does_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(10), tone(440, 0.4), format="matroska")
    assert numbers(frames(Clip(path), 25, GREY)) == list(range(10))
    assert len(sound(Clip(path))) >= 0.4 * RATE


def test_a_missing_track_is_named(tmp_path: Path) -> None:
    mute, blind = write(tmp_path / "a.mp4", numbered(5)), write(tmp_path / "b.mp4", sound=tone(440))
    assert (probe(mute).sound, probe(blind).pictures) == (None, None)
    with pytest.raises(MediaError, match=r"^has no audio track$"):
        sound(Clip(mute))
    with pytest.raises(MediaError, match=r"^has no video track$"):
        frames(Clip(blind), 10, GREY)


def test_the_cover_of_an_album_is_no_video_track(tmp_path: Path) -> None:
    path = tmp_path / "a.mka"
    with av.open(str(path), "w", format="mp4") as file:
        voice, cover = file.add_stream("aac", rate=RATE, layout="mono"), file.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        drawn = av.VideoFrame.from_ndarray(numbered(1)[0], "gray").reformat(format="yuvj420p")
        file.mux([*cover.encode(drawn), *cover.encode(None)])
        frame = av.AudioFrame.from_ndarray(tone(440, 1, RATE), "fltp", "mono")
        frame.sample_rate = RATE
        file.mux([*voice.encode(frame), *voice.encode(None)])
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    assert probe(path).pictures is None
    with pytest.raises(MediaError, match=r"^has no video track$"):
        frames(Clip(path), 10, GREY)
    assert len(sound(Clip(path))) >= RATE


def test_a_stretch_that_the_file_does_not_reach_is_refused(talk: Path) -> None:
    assert refusal(Clip(talk, 5, 6)) == "ends at 2.0 s, and what comes 5.0 s and later was asked for"
    for start, end in ((-1, 1), (1, 1), (2, 1), (math.nan, 1)):
        assert refusal(Clip(talk, start, end)) == f"cannot be cut from {start:g} to {end:g} s"


def test_times_and_rates_that_only_damage_explains_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"^is 4000 s long; expected 3600 s at the most$"):
        frames(Clip(write(tmp_path / "a.mkv", numbered(2), times=[0, 4000])), 10, GREY)
    assert numbers(frames(Clip(tmp_path / "a.mkv", 3990), 0.2, GREY)) == [0, 0, 1]
    with pytest.raises(MediaError, match=r"^is 400\d s long; expected 3600 s at the most$"):
        sound(Clip(write(tmp_path / "a.mka", sound=tone(440), sound_codec="pcm_s16le", sound_times=[0, 4000])))
    with pytest.raises(MediaError, match=r"^has sound at 1000 Hz; expected 4000 to 192000 Hz$"):
        sound(Clip(write(tmp_path / "a.wav", sound=tone(440, 1, 1000), rate=1000, sound_codec="pcm_s16le")))


def test_more_pictures_than_there_is_room_for_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", numbered(3), times=[0, 1400, 3500])
    wanted = Picture(224, 224, colour=True)
    reason = r"^is 3500 s long; expected 1427 s, 1 GiB of pictures, at the most: name a start and an end, or fewer a "
    tracemalloc.start()
    with pytest.raises(MediaError, match=reason):
        frames(Clip(path), 5, wanted)
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
    assert frames(Clip(path), 0.01, wanted).shape == (36, 224, 224, 3)
    assert frames(Clip(path, 1390, 1400), 5, wanted).shape == (50, 224, 224, 3)


@pytest.mark.parametrize("error", [ZeroDivisionError("division\nby zero"), MemoryError(), ValueError("odd")])
def test_an_error_that_nobody_thought_of_costs_one_clip(
    talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(decode, "sound", fail)
    monkeypatch.setattr(decode, "frames", fail)
    said = " ".join(f"cannot be decoded: {type(error).__name__}: {error}".split())
    assert decode.write_sound(Clip(talk), tmp_path / "a.wav") == said
    assert decode.pictures(Clip(talk), 10, GREY) == said
    assert not list(tmp_path.iterdir())


def test_a_missing_package_ends_an_extraction(talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise UserError("finding faces needs dlib")

    monkeypatch.setattr(decode, "sound", fail)
    monkeypatch.setattr(decode, "frames", fail)
    with pytest.raises(UserError, match=r"^finding faces needs dlib$"):
        decode.pictures(Clip(talk), 10, GREY)
    with pytest.raises(UserError, match=r"^finding faces needs dlib$"):
        decode.write_sound(Clip(talk), tmp_path / "a.wav")


@given(data=st.data(), name=st.sampled_from(["talk.mp4", "talk.mkv", "talk.mpg", "talk.wav"]))
@settings(max_examples=60)
def test_any_damage_gives_arrays_or_a_refusal(fragile: Path, data: st.DataObject, name: str) -> None:
    content = bytearray((fragile / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 12))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    broken = fragile / f"broken-{name}"
    broken.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    for read in (sound, lambda clip: frames(clip, 10, GREY)):
        with suppress(MediaError):
            found = read(Clip(broken))
            assert len(found)
            assert found.dtype != np.float32 or np.abs(found).max() <= 1


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fragile")
    voice = {"sound": tone(440, 1, 32_000), "rate": 32_000}
    write(folder / "talk.mp4", numbered(25), container={"movflags": "faststart"}, **voice)
    write(folder / "talk.mkv", numbered(25), **voice)
    write(folder / "talk.mpg", numbered(25), codec="mpeg1video", sound_codec="mp2", **voice)
    write(folder / "talk.wav", sound_codec="pcm_s16le", **voice)
    return folder


def test_nothing_is_said_on_the_screen_of_damage_that_is_let_be(talk: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dual_bench.features.media import *\n"
        "clip = Clip(Path(sys.argv[1]), 0, 1); sound(clip); frames(clip, 10, Picture(8, 8, True))"
    )
    done = subprocess.run([sys.executable, "-c", code, cut(talk, 0.7)], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


# --------------------------------------------------------------------------------------------------- faces


def test_a_picture_without_a_face_takes_the_place_of_the_nearest_that_has_one() -> None:
    a, b = faces.Square(10, 10, 5), faces.Square(50, 10, 5)
    assert faces.nearest([None, a, None, None, b, None]) == [a, a, a, b, b, b]
    assert faces.nearest([None, None]) == []


@given(st.floats(0, 640), st.floats(0, 360), st.floats(1, 900), st.floats(0.2, 3))
def test_the_square_around_a_face_lies_inside_the_picture(x: float, y: float, side: float, scale: float) -> None:
    left, top, width, height = faces.Square(x, y, side).box(640, 360, scale)
    assert width == height >= 1
    assert 0 <= left <= 640 - width
    assert 0 <= top <= 360 - height


def test_pictures_of_a_face_show_the_face(shared_data: Path) -> None:
    clip = Clip(shared_data / "grid_clips" / "bbaf2n.mpg", 1.0, 1.5)
    found = frames(clip, 10, Picture(200, 200, colour=False, face=True))
    assert found.shape == (5, 200, 200)
    for picture in found:
        square = faces.largest(picture)
        assert square is not None
        assert abs(square.x - 100) < 20
        assert abs(square.y - 100) < 20


def test_a_clip_without_a_face_is_refused(talk: Path) -> None:
    with pytest.raises(MediaError, match=r"^shows no face that can be found$"):
        frames(Clip(talk, 0, 0.3), 10, Picture(32, 32, colour=False, face=True))


@pytest.mark.parametrize("half", ["whole", "left", "right"])
@pytest.mark.parametrize(("height", "width"), [(64, 1), (4000, 2), (2, 2000)])
def test_a_strip_shows_pictures_but_no_face(tmp_path: Path, height: int, width: int, half: media.Half) -> None:
    path = write(tmp_path / "a.mov", np.full((1, height, width), 200, np.uint8), codec="png", pixels="gray")
    for crop in (True, False):
        (found,) = frames(Clip(path, half=half), 25, Picture(32, 32, colour=False, crop=crop))
        np.testing.assert_array_equal(found, np.full((32, 32), 200))
    with pytest.raises(MediaError, match=r"^shows no face that can be found$"):
        frames(Clip(path, half=half), 25, Picture(32, 32, colour=False, face=True))


def test_without_dlib_faces_name_what_to_install(talk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    faces._detector.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'dual-bench\[faces\]'"):
        frames(Clip(talk, 0, 0.3), 10, Picture(32, 32, colour=False, face=True))


# ------------------------------------------------------------------------------------------ what a file says


def test_a_probe_says_what_a_file_holds(talk: Path, tmp_path: Path) -> None:
    found = probe(talk)
    assert found.seconds == pytest.approx(2, abs=0.05)
    assert found.pictures == PictureFacts("h264", WIDTH, HEIGHT, 25.0, 50)
    assert found.sound == SoundFacts("aac", 48_000, 2, "stereo")
    noise = np.zeros((6, 800), np.float32)
    said = probe(write(tmp_path / "a.wav", sound=noise, rate=8_000, sound_codec="pcm_s16le"))
    assert said.sound == SoundFacts("pcm_s16le", 8_000, 6, "5.1")
    assert said.seconds == pytest.approx(0.1)


def test_real_clips_are_as_long_as_their_table_says(shared_data: Path) -> None:
    table = pd.read_csv(shared_data / "meld_clips" / "labels.csv")
    layouts = set()
    for row in table.itertuples():
        clip = Clip(shared_data / "meld_clips" / row.file)
        said = probe(clip.path)
        assert said.sound is not None
        assert said.pictures is not None
        layouts.add(said.sound.layout)
        assert said.pictures.frames == row.frames
        heard = sound(clip)
        assert len(heard) / RATE == pytest.approx(row.audio_seconds, abs=0.05)
        assert 0.05 < np.abs(heard).max() <= 1
    assert layouts == {"5.1", "stereo"}
