"""Media files to what encoders read: mono sound at 16 kHz, and pictures at the times asked for.

ffmpeg's libraries decode (PyAV, https://pyav.org). One process decodes in one thread: many clips are decoded faster by
many processes, and what comes out does not depend on how many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from dual_bench.features import faces
from dual_bench.features.formats import GUESSED, OPTIONS, PIXELS, SKIPS, UNINDEXED, broken_off
from dual_bench.features.mixing import DRIFT, RATES, Run, joined, mono
from dual_bench.features.painting import Finder, Painter
from dual_bench.types import UserError

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer

T = TypeVar("T")
Half = Literal["whole", "left", "right"]

ENOUGH = 0.9
"""Share of the length that a file states which has to decode; mp3, ADTS, MPEG streams and raw ones state none."""
LONGEST = 3600
"""Seconds of a clip. One that seems longer is damaged, or not meant whole: it would ask for too much memory."""
ROOM = 2**30
"""Bytes of a clip's pictures, or of its sound."""
DECODED = 2**38
"""Pixels that are decoded of a clip, those that nobody looks at among them: an hour of 1080p at 36 frames a second. A
file of a megabyte may hold days of pictures in which nothing changes."""
CHANNELS = 64
"""Of sound."""

_TICK = 6e-4
"""Seconds that a frame may come late: Matroska rounds times to milliseconds."""
_SLACK = 0.1
"""Seconds that may always be missing: codecs round lengths to whole frames."""


class MediaError(UserError):
    """Why a clip gives no sound or no pictures, in a few words without its path: "has no audio track"."""


@dataclass(frozen=True)
class Clip:
    """A stretch of a media file, in seconds of its own clock, and the part of the picture that shows the speaker."""

    path: Path
    start: float = 0.0
    end: float = math.inf
    half: Half = "whole"


@dataclass(frozen=True)
class Picture:
    """How an encoder wants to be given pictures."""

    height: int
    width: int
    colour: bool
    """RGB, else grey."""
    crop: bool = False
    """Whether the middle of the picture is cut out in this aspect ratio; else all of it is squeezed into it."""
    face: bool = False
    """Whether only the largest face is wanted, found by ``features.faces``."""


# --------------------------------------------------------------------------------------------------- facts


@dataclass(frozen=True)
class PictureFacts:
    """What a file says of its video track; 0 where it does not say."""

    codec: str
    width: int
    height: int
    rate: float
    """Frames a second, on average."""
    frames: int


@dataclass(frozen=True)
class SoundFacts:
    """What a file says of its audio track."""

    codec: str
    rate: int
    """Samples a second."""
    channels: int
    layout: str
    """In ffmpeg's words: ``stereo``, ``5.1``, ``6 channels`` where it is not known which is which."""


@dataclass(frozen=True)
class Facts:
    """What a media file says of itself."""

    seconds: float
    """NaN where it does not say."""
    pictures: PictureFacts | None
    sound: SoundFacts | None


def probe(path: Path) -> Facts:
    """What the file says of itself; it is opened, and no more of it decoded than that takes."""
    with _opened(path) as container:
        video, audio = (_stream(container, kind) for kind in ("video", "audio"))
        pictures = video and PictureFacts(
            video.codec_context.name, video.width, video.height, float(video.average_rate or 0), video.frames
        )
        sounds = audio and SoundFacts(
            audio.codec_context.name, audio.sample_rate, audio.layout.nb_channels, audio.layout.name
        )
        return Facts(math.nan if container.duration is None else container.duration / 1e6, pictures, sounds)


def _open(path: Path) -> InputContainer:
    import av

    if not path.exists():
        raise MediaError("is missing")
    if not path.is_file():
        raise MediaError("is no file")
    if not path.stat().st_size:
        raise MediaError("is empty (0 bytes)")
    try:
        return av.open(str(path.absolute()), options=OPTIONS)
    except av.ArgumentError:  # what ffmpeg says of a format that is not on the list
        raise MediaError("is no media file that can be opened, or of a format that is not read") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"is no media file that can be opened: {getattr(error, 'strerror', None) or error}") from None


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    import av

    with _open(path) as container:
        try:
            yield container
        except av.FFmpegError as error:
            raise MediaError(f"cannot be decoded: {error.strerror}") from None


def _stream(container: InputContainer, kind: Literal["video", "audio"]) -> Any:
    """The first track of a kind that can be decoded, None without one; the picture of a cover is no video track."""
    from av.stream import Disposition

    for stream in getattr(container.streams, kind):
        if stream.codec_context is not None and Disposition.attached_pic not in stream.disposition:
            return stream
    return None


# -------------------------------------------------------------------------------------------------- tracks


class _Track:
    """A track of an open file, on the clip's clock: seconds since the container starts."""

    def __init__(self, container: InputContainer, kind: Literal["video", "audio"], clip: Clip) -> None:
        if not 0 <= clip.start < clip.end:
            raise MediaError(f"cannot be cut from {clip.start:g} to {clip.end:g} s")
        self.kind, self.clip = kind, clip
        self._use(container)
        self.size = 0.0
        """Bytes that are made of each second."""
        self.lost = 0.0
        """Seconds of the clip whose packets the decoder refused."""
        self.own = self.any = 0.0
        """How far the packets of this track reach, and of any, of those that were read."""

    def _use(self, container: InputContainer) -> None:
        stream = _stream(container, self.kind)
        if stream is None:
            raise MediaError(f"has no {self.kind} track")
        self.container, self.stream, self.codec = container, stream, stream.codec_context
        self.codec.thread_type = "NONE"  # threads take longer in all, and what is skipped is said packet by packet
        self.codec.thread_count = 1
        self.codec.options = {"max_pixels": str(PIXELS)}
        self.zero = (container.start_time or 0) / 1e6

    def time(self, ticks: int) -> float:
        return float(ticks * self.stream.time_base) - self.zero

    def packets(self, before: float, after: float) -> list[Packet[Any]]:
        """Those of the clip, from a key frame at least ``before`` seconds earlier, or the first of all, to ``after``
        seconds later."""
        from av import FFmpegError

        early, late = self.clip.start - before, self.clip.end + after
        if early > 0 and self.container.format.name not in UNINDEXED:
            with suppress(FFmpegError):
                self.container.seek(round((early + self.zero) / self.stream.time_base), stream=self.stream)
                found = self._read(early, late)
                if found and found[0].pts is not None and self.time(found[0].pts) <= self.clip.start:
                    return found
            self._use(_open(self.clip.path))  # its index is missing or wrong, and no seek is sure to find the beginning
        return self._read(early, late)

    def _read(self, early: float, late: float) -> list[Packet[Any]]:
        """From where the file is read: from the last key frame that is ``early`` enough, else from the first."""
        from av import FFmpegError

        found: list[Packet[Any]] = []
        with suppress(FFmpegError):  # a file that ends too early: what was read is kept
            for packet in self.container.demux():
                own = packet.stream_index == self.stream.index
                if packet.size and own and (found or packet.is_keyframe):
                    if packet.is_keyframe and packet.pts is not None and self.time(packet.pts) <= early:
                        found.clear()
                    found.append(packet)
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - self.zero
                    self.any, self.own = max(self.any, end), max(self.own, end) if own else self.own
                if own and packet.dts is not None and self.time(packet.dts) >= late:
                    break
        return found

    def decode(self, packets: Sequence[Packet[Any]], wanted: Container[int | None] | None = None) -> Iterator[Any]:
        """Frames in the order of presentation. Where ``wanted`` times are named, a frame of another time may be left
        out if no other refers to it: not decoding it changes no other."""
        from av import FFmpegError

        self.codec.flush_buffers()
        self.lost = 0.0
        for packet in (*packets, None):
            unasked = wanted is not None and packet is not None and packet.pts not in wanted
            self.codec.skip_frame = "NONREF" if unasked else "DEFAULT"
            try:
                yield from self.codec.decode(packet)
            except FFmpegError:
                if packet and packet.pts is not None and self.time(packet.pts) >= self.clip.start:
                    self.lost += float((packet.duration or 0) * self.stream.time_base)

    def bound(self, time: float) -> None:
        """MediaError if the clip is so long that it reaches ``time``, and that is too long."""
        length = min(time, self.clip.end) - self.clip.start
        if length > LONGEST:
            raise MediaError(f"is {length:.0f} s long; expected {LONGEST} s at the most")
        if length * self.size > ROOM:
            what = "sound" if self.kind == "audio" else "pictures"
            most = f"{ROOM / self.size:.0f} s, {ROOM / 2**30:g} GiB of {what}, at the most"
            raise MediaError(f"is {length:.0f} s long; expected {most}: name a start and an end, or fewer a second")

    def check(self, reach: float) -> None:
        """MediaError unless enough of the clip was decoded, which was to ``reach`` but for what was lost."""
        start, end = self.clip.start, self.clip.end
        length = min(end, self._stated()) - start
        decoded = min(end, reach) - start - self.lost
        if decoded < ENOUGH * length and length - decoded > _SLACK:
            raise MediaError(f"decodes only {max(decoded, 0):.1f} of {length:.1f} s")
        if reach <= start:
            raise MediaError(f"ends at {reach:.1f} s, and what comes {start:.1f} s and later was asked for")

    def _stated(self) -> float:
        """Where the file says that the track ends; -inf where it says nothing.

        Of mp3, ADTS (.aac), MPEG streams (.mpg, .ts) and raw ones, what is there is the whole: they state no length,
        and the count of frames that some mp3 files start with cannot be told from ffmpeg's guess by the bit rate.
        """
        if self.container.format.name in GUESSED:
            return -math.inf
        # of avi and wav, ffmpeg shortens the length to that of the file
        if self.container.format.name == "avi":
            return float(self.stream.frames * self.stream.time_base) or -math.inf
        if self.container.format.name == "wav" and self.stream.bit_rate and (size := broken_off(self.clip.path)):
            return 8 * size / float(self.stream.bit_rate)
        if self.stream.duration is not None:
            return self.time((self.stream.start_time or 0) + self.stream.duration)
        if self.container.duration is None:
            return -math.inf
        # Matroska states how late its last track ends. If any ends so late, the file is whole, and so is this track.
        start, end = self.clip.start, min(self.clip.end, self.container.duration / 1e6 - max(self.zero, 0))
        return self.own if self.any - start >= ENOUGH * (end - start) else end


# --------------------------------------------------------------------------------------------------- sound


def sound(clip: Clip) -> NDArray[np.float32]:
    """(samples,) at 16 kHz, mono, in [-1, 1], from the clip's start to its end or the sound's.

    Channels are mixed as ITU-R BS.775-3, annex 4, has it for one speaker, the weights scaled to sum to one: nothing
    clips, and what is the same in all channels keeps its level. Silence fills what the sound starts later than the
    file's clock, and gaps in the times of presentation; a drift of up to 20 ms is let be. Sound is cut to the sample,
    where the file's clock is as fine. A damaged file gives what decodes, if that is ``ENOUGH``. MediaError: no audio
    track, or not enough of it.
    """
    with _opened(clip.path) as container:
        track = _Track(container, "audio", clip)
        runs: list[Run] = []
        made = 0
        for frame in track.decode(track.packets(before=1.0, after=0.1)):  # decoders of sound need a run-up
            at = runs[-1].end if frame.pts is None and runs else track.time(frame.pts or 0)
            if not runs or runs[-1].rate != frame.sample_rate or abs(at - runs[-1].end) > DRIFT:
                if not RATES[0] <= frame.sample_rate <= RATES[1]:
                    raise MediaError(f"has sound at {frame.sample_rate} Hz; expected {RATES[0]} to {RATES[1]} Hz")
                track.size = 4.0 * frame.sample_rate
                track.bound(at)
                runs.append(Run(round(at * frame.sample_rate), frame.sample_rate))
            if frame.layout.nb_channels > CHANNELS:
                raise MediaError(f"has sound in {frame.layout.nb_channels} channels; expected {CHANNELS} at the most")
            runs[-1].add(mono(frame))
            track.bound(runs[-1].end)
            made += 4 * frame.samples
            if made > ROOM:
                raise MediaError(f"holds more sound than its times have room for, over {ROOM / 2**30:g} GiB")
        track.check(max((run.end for run in runs), default=0.0))
    return joined(runs, clip.start, clip.end)


# ------------------------------------------------------------------------------------------------ pictures


def frames(clip: Clip, rate: float, picture: Picture) -> NDArray[np.uint8]:
    """(frames, height, width[, 3]): the picture shown at each ``clip.start + k / rate``, until the clip or the pictures
    end; at least one.

    Shown is the last frame whose time of presentation is not later (but for ``_TICK``); before the first, the first.
    Its half is cut out, then the middle or the face; swscale averages areas. Grey is luma in its full range. A damaged
    file gives what decodes, if that is ``ENOUGH``; what a decoder patches up counts. MediaError: no video track, not
    enough of it, more than ``ROOM`` takes, no face where one is wanted.
    """
    with _opened(clip.path) as container:
        track = _Track(container, "video", clip)
        track.size = rate * picture.height * picture.width * (3 if picture.colour else 1)
        packets = track.packets(before=1.0, after=0.0)
        paint = Painter(picture, clip.half, float(track.stream.sample_aspect_ratio or 1))
        if not picture.face:
            return np.stack(_shown(track, packets, rate, lambda frame, _: paint(frame, None)))
        find = Finder(clip.half)
        squares = faces.nearest(_shown(track, packets, rate, lambda frame, _: find(frame)))
        if not squares:
            raise MediaError("shows no face that can be found")
        return np.stack(_shown(track, packets, rate, lambda frame, k: paint(frame, squares[k])))


def _shown(
    track: _Track, packets: Sequence[Packet[Any]], rate: float, paint: Callable[[VideoFrame, int], T]
) -> list[T]:
    """What ``paint(frame, k)`` makes of the frame shown at each time k; a frame that is shown on is painted once."""
    times = [packet.pts for packet in packets if not packet.is_discard]
    wanted = _wanted(track, sorted({ticks for ticks in times if ticks is not None}), rate)
    if track.codec.name not in SKIPS or None in times:
        wanted = None
    painted, seen = _pass(track, packets, rate, paint, wanted)
    if wanted is not None and seen != wanted:  # damage: what is shown instead may be a frame that was left out
        painted, _ = _pass(track, packets, rate, paint, None)
    return painted


def _wanted(track: _Track, times: Sequence[int], rate: float) -> list[int] | None:
    """Those of the frames' ``times`` that are shown when asked for, and the last, which says how far pictures reach."""
    if not times:
        return None
    at = np.array([track.time(ticks) for ticks in times])
    length = min(track.clip.end - track.clip.start, at[-1] - track.clip.start, LONGEST)
    asked = track.clip.start + np.arange(max(0, math.ceil(length * rate)) + 1) / rate
    chosen = np.maximum(np.searchsorted(at, asked + _TICK, side="right") - 1, 0)
    return sorted({times[i] for i in chosen} | {times[-1]})


def _pass(
    track: _Track,
    packets: Sequence[Packet[Any]],
    rate: float,
    paint: Callable[[VideoFrame, int], T],
    wanted: Sequence[int] | None,
) -> tuple[list[T], list[int]]:
    """``_shown`` by decoding once, and the times of the frames it was made of."""
    start, end = track.clip.start, track.clip.end
    painted: list[T] = []
    seen: list[int] = []
    shown: VideoFrame | None = None
    reach = 0.0

    def show(until: float) -> None:
        first = last = len(painted)
        while start + last / rate + _TICK < min(until, end):
            last += 1
        if shown is not None and last > first:
            painted.extend([paint(shown, first)] * (last - first))

    decoded = 0
    for frame in track.decode(packets, None if wanted is None else set(wanted)):
        decoded += frame.width * frame.height
        if decoded > DECODED:
            raise MediaError(f"has more pictures than are decoded, {DECODED:,} pixels; name a start and an end")
        ticks = frame.dts if frame.pts is None else frame.pts
        if ticks is None or (wanted is not None and ticks not in wanted):
            continue
        at = track.time(ticks)
        track.bound(at)
        if shown is None:
            shown, first = frame, packets[0].pts
            if first is not None:  # of a damaged key frame, what is seen begins later
                track.lost = max(track.lost, at - max(start, track.time(first)))
        show(at)
        shown = frame
        seen.append(ticks)
        reach = max(reach, at + float(frame.duration * track.stream.time_base or 1 / (track.stream.average_rate or 25)))
    if wanted is not None and seen != wanted:
        return [], seen
    track.bound(reach)
    track.check(reach)
    show(reach)
    if shown is not None and not painted:
        painted.append(paint(shown, 0))
    return painted, seen
