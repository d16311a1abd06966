"""What `dual-bench data check` finds, and how the commands of `dual-bench data` answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import trees
from calling import invoke, refused
from recordings import FAULTS, clip, write_recordings

from dual_bench.datasets import folder
from dual_bench.inspection import Inspection, inspect
from dual_bench.prepare import in_silence

BROKEN = dict(enumerate(FAULTS)) | {6: "silent", 7: "one-frame"}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips, of which the first eight have something about them, and one that no row names."""
    home = tmp_path_factory.mktemp("checked") / "raw"
    manifest = write_recordings(home, BROKEN)
    clip(home / "clips" / "spare.mp4", 1)
    table = pd.read_csv(manifest)
    table.loc[20, ["text", "speaker"]] = ["  Words THAT say calm number 16", table.loc[16, "speaker"]]
    table.to_csv(manifest, index=False)
    return home


@pytest.fixture(scope="module")
def found(raw: Path) -> Inspection:
    return inspect(folder.read(raw / "own.csv"), "folder", True, 1, in_silence)


def names(faults: Any) -> list[str]:
    return [BROKEN[int(fault.utterance[1:])] for fault in faults]


def test_what_is_missing_and_what_does_not_decode_is_named_with_its_reason(found: Inspection) -> None:
    audio, vision = found.media["audio"], found.media["vision"]
    assert names(audio.missing) == names(vision.missing) == ["missing"]
    assert names(audio.broken) == ["truncated", "empty", "no-audio", "text"]
    assert names(vision.broken) == ["truncated", "empty", "no-video", "text"]
    assert {fault.reason for fault in audio.broken} >= {"is empty (0 bytes)", "has no audio track"}
    assert audio.silent == ("u06",)
    assert found.faults == 10


def test_lengths_and_formats_are_of_what_decodes(found: Inspection) -> None:
    for media in found.media.values():
        assert media.clips == 24
        assert media.seconds is not None
        assert np.allclose(media.seconds, (0.1, 1.0, 1.0), atol=0.01)
        assert sum(media.formats.values()) == 24 - len(media.missing) - len(media.broken)
        assert media.hours * 3600 == pytest.approx(18 * 1.0 + 0.1, abs=0.1)
    assert list(found.media["audio"].formats) == ["alac, 16000 Hz, mono"]
    assert list(found.media["vision"].formats) == ["h264, 48x32, 10 frames a second"]


def test_parts_are_counted_by_class(found: Inspection) -> None:
    assert {name: part.utterances for name, part in found.parts.items()} == {"train": 12, "validation": 6, "test": 6}
    assert found.parts["train"].classes == {"calm": 6, "loud": 6}
    assert found.parts["test"].clusters == 3


def test_the_same_words_of_one_speaker_in_two_parts_are_found_whatever_their_case_and_space(found: Inspection) -> None:
    (twice,) = found.duplicates
    assert twice.text == "words that say calm number 16"
    assert twice.utterances == {"train": ("u16",), "validation": ("u20",)}


def test_a_file_that_no_row_names_is_named(found: Inspection) -> None:
    assert [Path(name).name for name in found.unused] == ["spare.mp4"]


def test_only_opening_finds_what_cannot_be_opened(raw: Path) -> None:
    opened = inspect(folder.read(raw / "own.csv"), "folder", False, 1, in_silence)
    assert not opened.decoded
    assert names(opened.media["vision"].missing) == ["missing"]
    assert set(names(opened.media["audio"].broken)) >= {"empty", "no-audio", "text"}
    assert opened.media["audio"].silent == ()


# ----------------------------------------------------------------------------------------------- the commands


def test_check_prints_a_table_writes_json_and_ends_with_1(raw: Path, tmp_path: Path) -> None:
    result = invoke("data", "check", raw, "--json", tmp_path / "found.json", "--jobs", "1")
    assert result.exit_code == 1
    assert "u01 (audio and vision): clips/u01.mp4 is empty (0 bytes)" in result.output
    assert "clips/spare.mp4" in result.output
    written = Inspection.model_validate(json.loads((tmp_path / "found.json").read_bytes()))
    assert names(written.media["audio"].missing) == ["missing"]


def test_check_of_what_is_whole_ends_with_0(tmp_path: Path) -> None:
    write_recordings(tmp_path / "raw", count=8)
    assert invoke("data", "check", tmp_path / "raw", "--fast", "--jobs", "1").exit_code == 0


def test_extract_says_what_is_absent_and_what_to_do_next(raw: Path, tmp_path: Path) -> None:
    result = invoke("data", "extract", raw, "--out", tmp_path / "out", "--jobs", "1")
    assert result.exit_code == 0, result.output
    assert "24 utterances, 5 without voice and 5 without face" in result.output
    assert f"next: dual-bench run --dataset {tmp_path / 'out'}" in result.output.replace("\n", "")


def test_extract_ends_with_1_where_not_one_clip_gives_anything(tmp_path: Path) -> None:
    write_recordings(tmp_path / "raw", dict.fromkeys(range(8), "no-video"), count=8)
    result = invoke("data", "extract", tmp_path / "raw", "--jobs", "1")
    assert result.exit_code == 1
    assert "not one clip gives a face" in result.stderr
    assert (tmp_path / "raw-features" / "problems.csv").is_file()


def test_an_encoder_for_what_is_features_already_is_refused(tmp_path: Path) -> None:
    raw = trees.mmsa(tmp_path / "raw.pkl")
    asked = ("--layout", "mmsa:low=-3,high=3", "--encoder", "audio=log-mel")
    assert "has no clips of audio to encode" in refused("data", "extract", raw, *asked)


def test_names_of_files_do_not_reach_the_terminal_as_commands(tmp_path: Path) -> None:
    write_recordings(tmp_path / "raw", count=8)
    (tmp_path / "raw" / "clips" / "a\x1b]0;owned\x07.mp4").write_bytes(b"")
    result = invoke("data", "check", tmp_path / "raw", "--fast", "--jobs", "1")
    assert "owned" in result.output
    assert "\x1b]" not in result.output


def test_what_no_study_can_be_made_of_is_said(tmp_path: Path) -> None:
    manifest = write_recordings(tmp_path / "raw", count=8)
    pd.read_csv(manifest).assign(split="train").to_csv(manifest, index=False)
    result = invoke("data", "check", tmp_path / "raw", "--fast", "--jobs", "1")
    assert "no study can be made of it: the validation split is empty" in result.output


def test_a_stretch_behind_the_end_of_its_file_is_named(tmp_path: Path) -> None:
    manifest = write_recordings(tmp_path / "raw", count=8)
    pd.read_csv(manifest).assign(start=0, end=[1.0] * 7 + [1000.0]).to_csv(manifest, index=False)
    found = inspect(folder.read(manifest), "folder", True, 1, in_silence)
    assert found.media["audio"].beyond == found.media["vision"].beyond == ("u07",)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("check", "{raw}/owm.csv"), "owm.csv is missing"),
        (("check", "{raw}/clips"), "is arranged like no corpus that is known"),
        (("check", "{raw}", "--layout", "fodler"), "unknown layout 'fodler'; did you mean 'folder'?"),
        (("extract", "{raw}", "--layout", "folder:encodign=latin-1"), "did you mean 'encoding'?"),
        (("extract", "{raw}", "--encoder", "audio=log-mell"), "unknown encoder 'log-mell'; did you mean 'log-mel'?"),
        (("extract", "{raw}", "--encoder", "voice=log-mel"), "unknown modality 'voice'"),
        (("extract", "{raw}", "--encoder", "text=sentence-transformers"), "dual-bench run --encoder text="),
        (("export", "synthetic", "{raw}"), "holds something already"),
        (("export", "synthetic", "{raw}/new", "--layout", "melt"), "did you mean 'meld'?"),
        (("fetch", "medl"), "did you mean 'meld'?"),
        (("fetch", "iemocap"), "https://sail.usc.edu/iemocap/"),
    ],
)
def test_a_slip_is_answered_in_a_sentence(raw: Path, arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused("data", *(part.format(raw=raw) for part in arguments))


def test_a_corpus_that_cannot_be_seen_or_heard_is_not_rendered(tmp_path: Path, shared_data: Path) -> None:
    said = refused("data", "export", "ravdess", tmp_path / "new", "--data", shared_data)
    assert "'ravdess' has features of audio, which cannot be seen or heard" in said
    assert not (tmp_path / "new").exists()


def test_a_run_on_raw_media_says_to_extract_them_first(raw: Path) -> None:
    assert "`dual-bench data extract`" in refused("run", "--dataset", raw)
