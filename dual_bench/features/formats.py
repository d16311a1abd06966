"""What is known of formats of media files that ffmpeg does not say."""

from __future__ import annotations

from pathlib import Path

SKIPS = ("h264", "mpeg1video", "mpeg2video")
"""Codecs that say of a frame that none refers to it. HEVC says so of one layer only."""
_FORMATS = (
    "3gp aac ac3 aiff amr amrnb amrwb ape asf au avi caf dts dv eac3 flac flv h264 hevc ivf loas m4v matroska mov mp3 "
    "mp4 mpeg mpegts mpegvideo mxf nistsphere nut obu ogg rm tta voc w64 wav webm wtv wv"
)
"""ffmpeg's names of the formats that are read. None is a list of other files (HLS, DASH, ffconcat, SDP, IMF): whoever
makes one could have any file of this disk read in its place."""
PIXELS = 2**26
"""Of a picture, twice those of 8K: a decoder keeps up to 16 of them, and a header may claim any number."""
OPTIONS = {
    "max_pixels": str(PIXELS),
    "protocol_whitelist": "file",
    "format_whitelist": _FORMATS.replace(" ", ","),
    "fflags": "+genpts",
}
UNINDEXED = ("mpeg", "mpegts")
"""Formats without an index: a seek guesses by the size of the file, and the times of what follows may be off."""
GUESSED = ("aac", "ac3", "dts", "eac3", "h264", "hevc", "m4v", "mp3", "mpegvideo")
"""Formats that state no length."""
_UNKNOWN = 0x7FFFF000
"""Bytes; from here on a wav file states none: what is written into a pipe states the most that can be, or nearly."""


def broken_off(path: Path) -> int:
    """Bytes that a wav file states of its data, if it ends before them; else 0."""
    with path.open("rb") as file:
        if file.read(12)[:4] != b"RIFF":
            return 0
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                return size if size < _UNKNOWN and file.tell() + size > path.stat().st_size else 0
            file.seek(size + size % 2, 1)
    return 0
