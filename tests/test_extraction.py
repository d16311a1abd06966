"""From recordings to a corpus: what fails is named, and nothing is lost or counted twice."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from calling import invoke
from filelock import FileLock
from recordings import FAULTS, clip, write_recordings

from dual_bench.datasets import extracted, folder
from dual_bench.datasets.extracted import PROBLEMS, RECORD, TABLE
from dual_bench.extraction import Outcome, extract
from dual_bench.features.audio import LogMel
from dual_bench.features.encoder import audio_encoder, picture_encoder
from dual_bench.features.media import Clip, frames, sound
from dual_bench.features.vision import FrameDCT
from dual_bench.plan import check, read_plan
from dual_bench.prepare import in_silence
from dual_bench.store import read_run
from dual_bench.types import Corpus, UserError


def extracted_from(manifest: Path, out: Path, audio: str = "", vision: str = "", jobs: int = 1) -> Outcome:
    source = folder.read(manifest)
    return extract(source, "folder", out, audio_encoder(audio), picture_encoder(vision), "tests", jobs, in_silence)


def load(out: Path) -> Corpus:
    return extracted.load(Path("nowhere"), path=str(out))


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file() and p.name != "lock"}


# ------------------------------------------------------------------------------------------ what is well formed


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A corpus of 24 good clips, and what was extracted from it."""
    home = tmp_path_factory.mktemp("whole")
    manifest = write_recordings(home / "raw")
    assert not extracted_from(manifest, home / "out").problems
    return manifest, home / "out"


def test_features_are_those_of_the_encoders_at_their_documented_rates(whole: tuple[Path, Path]) -> None:
    manifest, out = whole
    corpus = load(out)
    assert (len(corpus), corpus.task.classes) == (24, ("calm", "loud"))
    assert (corpus.signals["audio"].rate, corpus.signals["vision"].rate) == (50, 10)
    path = manifest.parent / "clips" / "u05.mp4"
    heard = np.rint(sound(Clip(path)) * 32768) / 32768
    (voice,) = LogMel().encode([heard.astype(np.float32)], 16_000)
    (face,) = FrameDCT().encode([frames(Clip(path), 10, FrameDCT().picture)], 10)
    np.testing.assert_array_equal(corpus.signals["audio"].items[5], voice)
    np.testing.assert_array_equal(corpus.signals["vision"].items[5], face)
    assert (voice.shape, face.shape) == ((51, 40), (10, 64))


def test_the_sound_is_kept_for_a_recogniser(whole: tuple[Path, Path]) -> None:
    manifest, out = whole
    corpus = load(out)
    assert corpus.heard is not None
    assert corpus.heard.rate == 16_000
    expected = sound(Clip(manifest.parent / "clips" / "u03.mp4"))
    np.testing.assert_allclose(corpus.heard.items[3], expected, atol=1 / 32768)
    plan = read_plan("default", {"dataset": str(out), "corruptions": ["asr-loop"], "models": ["concat"]})
    assert check(plan, corpus).corruptions == ("asr-loop",)


@pytest.mark.usefixtures("no_figures")
def test_a_recogniser_listens_to_what_was_extracted(whole: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    named = ("--models", "constant", "--regimes", "clean", "--corruptions", "asr-loop", "--rates", "0,0.5")
    sizes = ("--draws", "1", "--seeds", "1", "--no-dependency", "--jobs", "1", "--out", tmp_path / "run")
    result = invoke("run", "default", "--dataset", whole[1], *named, *sizes)
    assert result.exit_code == 0, result.output
    rows = read_run(tmp_path / "run").predictions
    heard = rows[(rows["corruption"] == "asr-loop") & (rows["rate"] == 0.5)]
    assert len(heard) == 6
    assert (heard["wer"] > 0.5).all(), "nobody says a word in a tone"


def test_one_folder_is_written_by_one_process_at_a_time(whole: tuple[Path, Path]) -> None:
    manifest, out = whole
    with FileLock(out / "lock"), pytest.raises(UserError, match="another process is extracting"):
        extracted_from(manifest, out)


def test_a_second_extraction_decodes_nothing_and_changes_no_byte(whole: tuple[Path, Path]) -> None:
    manifest, out = whole
    before = contents(out)
    assert extracted_from(manifest, out).decoded == 0
    assert contents(out) == before


def test_processes_side_by_side_give_the_same_corpus(whole: tuple[Path, Path], tmp_path: Path) -> None:
    manifest, out = whole
    extracted_from(manifest, tmp_path / "out", jobs=2)
    assert load(tmp_path / "out").fingerprint == load(out).fingerprint


def test_another_encoder_decodes_no_sound_again(whole: tuple[Path, Path], tmp_path: Path) -> None:
    manifest, _ = whole
    out = tmp_path / "out"
    extracted_from(manifest, out)
    assert extracted_from(manifest, out, audio="log-mel:bands=24").decoded == 0
    assert load(out).signals["audio"].items[0].shape[1] == 24
    assert extracted_from(manifest, out, vision="frame-dct:rate=5").decoded == 24
    assert len(load(out).signals["vision"].items[0]) == 5


def test_a_clip_that_changed_is_decoded_again_and_no_other(tmp_path: Path) -> None:
    manifest, out = write_recordings(tmp_path / "raw", count=8), tmp_path / "out"
    extracted_from(manifest, out)
    before = load(out)
    clip(tmp_path / "raw" / "clips" / "u02.mp4", 2, seconds=0.5)
    assert extracted_from(manifest, out).decoded == 2, "sound and picture of one clip"
    after = load(out)
    changed = [i for i in range(8) if len(before.signals["audio"].items[i]) != len(after.signals["audio"].items[i])]
    assert changed == [2]
    assert before.fingerprint != after.fingerprint


# ------------------------------------------------------------------------------------------------ what fails

BROKEN = {i + 2: fault for i, fault in enumerate(FAULTS)} | {8: "silent", 9: "one-frame"}
NO_VOICE, NO_FACE = (
    {"truncated", "empty", "no-audio", "text", "missing"},
    {"truncated", "empty", "no-video", "text", "missing"},
)


@pytest.mark.parametrize("name", ["lock", "sound", "sound/values", "corpus.json"])
def test_nothing_is_written_through_a_link_in_an_extraction(
    name: str, whole: tuple[Path, Path], tmp_path: Path
) -> None:
    mine, out = tmp_path / "mine", tmp_path / "out"
    mine.write_text("dear diary")
    (out / name).parent.mkdir(parents=True)
    (out / name).symlink_to(mine)
    with pytest.raises(UserError, match=re.escape(f"{out / name} is a link to {mine}")):
        extracted_from(whole[0], out)
    assert mine.read_text() == "dear diary"


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    home = tmp_path_factory.mktemp("faulty")
    return home / "out", extracted_from(write_recordings(home / "raw", BROKEN), home / "out")


def test_every_clip_that_fails_is_named_once_for_each_modality_it_lacks(faulty: tuple[Path, Outcome]) -> None:
    out, outcome = faulty
    named = [(p.utterance, p.modality) for p in outcome.problems]
    expected = [(f"u{i:02d}", "audio") for i, fault in BROKEN.items() if fault in NO_VOICE]
    expected += [(f"u{i:02d}", "vision") for i, fault in BROKEN.items() if fault in NO_FACE]
    assert sorted(named) == sorted(expected)
    reasons = {(p.utterance, p.modality): p.reason for p in outcome.problems}
    assert reasons["u03", "audio"] == "is empty (0 bytes)"
    assert reasons["u04", "audio"] == "has no audio track"
    assert reasons["u05", "vision"] == "has no video track"
    assert reasons["u07", "vision"] == "is missing"
    lines = pd.read_csv(out / PROBLEMS)
    assert len(lines) == len(named)
    assert all(str(line.file).endswith(f"{line.utterance}.mp4") for line in lines.itertuples())


def test_every_utterance_stays_and_what_failed_is_absent(faulty: tuple[Path, Outcome]) -> None:
    out, _ = faulty
    corpus = load(out)
    assert [u.id for u in corpus.utterances] == [f"u{i:02d}" for i in range(24)]
    for modality, lacking in (("audio", NO_VOICE), ("vision", NO_FACE)):
        lengths = np.array([len(item) for item in corpus.signals[modality].items])  # type: ignore[index]
        assert set(np.flatnonzero(lengths == 0)) == {i for i, fault in BROKEN.items() if fault in lacking}
    assert corpus.heard is not None
    assert len(corpus.heard.items[2]) == 0
    assert not corpus.heard.items[8].any()
    assert len(corpus.heard.items[8]) == 16_000, "silence is sound, too"
    assert len(corpus.signals["vision"].items[9]) == 1


def test_the_report_will_say_how_many_have_no_voice_and_where(faulty: tuple[Path, Outcome]) -> None:
    notes = load(faulty[0]).notes
    assert any(note.startswith("5 of 24 utterances have no voice (") for note in notes)
    assert any("have no face (" in note and "test" in note for note in notes)
    assert any(note.startswith("Not as expected of this corpus: 1 media file missing") for note in notes)


def test_a_clip_that_was_mended_loses_its_line(tmp_path: Path) -> None:
    manifest, out = write_recordings(tmp_path / "raw", {1: "empty"}, count=8), tmp_path / "out"
    assert len(extracted_from(manifest, out).problems) == 2
    clip(tmp_path / "raw" / "clips" / "u01.mp4", 1)
    assert extracted_from(manifest, out).problems == ()
    assert len(load(out).signals["audio"].items[1]) == 51


KILLED = """
import os, signal
from pathlib import Path
from dual_bench.datasets import folder
from dual_bench.extraction import extract
from dual_bench.features.encoder import audio_encoder, picture_encoder

def report(stage, done, total, detail):
    if (stage, done) == ("{stage}", 9):
        os.kill(os.getpid(), signal.SIGKILL)

source = folder.read(Path("{manifest}"))
extract(source, "folder", Path("{out}"), audio_encoder(), picture_encoder(), "tests", 1, report)
"""


@pytest.mark.parametrize(("stage", "left"), [("sound", 24 + 15), ("vision", 24)])
def test_a_killed_extraction_goes_on_and_ends_like_one_that_was_not(
    whole: tuple[Path, Path], tmp_path: Path, stage: str, left: int
) -> None:
    manifest, undisturbed = whole
    out = tmp_path / "out"
    code = KILLED.format(stage=stage, manifest=manifest, out=out)
    died = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": "tests"}, check=False)
    assert died.returncode == -signal.SIGKILL
    with pytest.raises(UserError, match="an extraction that was stopped"):
        load(out)
    assert extracted_from(manifest, out).decoded == left, "sounds that were finished are not decoded again"
    assert load(out).fingerprint == load(undisturbed).fingerprint
    assert (out / TABLE).read_bytes() == (undisturbed / TABLE).read_bytes()


# ----------------------------------------------------------------------------------------------- what is refused


def test_a_folder_that_holds_something_else_is_left_alone(whole: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="holds something else than an extraction"):
        extracted_from(whole[0], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def copied(out: Path, to: Path) -> Path:
    for name, data in contents(out).items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes(data)
    return to


def test_features_that_are_not_whole_are_refused(whole: tuple[Path, Path], tmp_path: Path) -> None:
    out = copied(whole[1], tmp_path)
    (rows,) = out.glob("audio-*/rows.f32")
    rows.write_bytes(rows.read_bytes()[:-400])
    with pytest.raises(UserError, match=r"rows.f32 is not whole: expected \d+ bytes, found \d+"):
        load(out)


def rewritten(out: Path, column: str, value: object) -> None:
    """Put a value into the fourth row of the table, and record it as if it had been written so."""
    table = pd.read_parquet(out / TABLE).astype({column: object})
    table.loc[3, column] = value
    table.to_parquet(out / TABLE)
    record = json.loads((out / RECORD).read_bytes())
    record["table_sha256"] = hashlib.sha256((out / TABLE).read_bytes()).hexdigest()
    (out / RECORD).write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize("name", ["../secret.wav", "/etc/passwd"])
def test_a_sound_outside_the_folder_is_refused(whole: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    out = copied(whole[1], tmp_path)
    rewritten(out, "sound", name)
    with pytest.raises(UserError, match="outside its folder"):
        load(out)


@pytest.mark.parametrize(
    ("column", "value"),
    [("split", "dev"), ("text", None), ("audio_start", -5), ("vision_steps", -1), ("sound_sha256", None)],
)
def test_a_table_that_holds_something_else_is_refused(
    whole: tuple[Path, Path], tmp_path: Path, column: str, value: object
) -> None:
    out = copied(whole[1], tmp_path)
    rewritten(out, column, value)
    with pytest.raises(UserError, match="holds something else than utterances"):
        load(out)


def test_a_table_that_was_changed_or_is_none_is_refused(whole: tuple[Path, Path], tmp_path: Path) -> None:
    out = copied(whole[1], tmp_path)
    table = pd.read_parquet(out / TABLE)
    table.loc[3, "text"] = "other words"
    table.to_parquet(out / TABLE)
    with pytest.raises(UserError, match="is not the one that"):
        load(out)
    (out / TABLE).write_bytes(b"PAR1 and nothing else")
    with pytest.raises(UserError, match="cannot be read"):
        load(out)


def test_a_sound_that_changed_is_refused_and_decoded_again(whole: tuple[Path, Path], tmp_path: Path) -> None:
    manifest, _ = whole
    out = copied(whole[1], tmp_path)
    names = pd.read_parquet(out / TABLE)["sound"]
    (out / "sound" / names[3]).write_bytes((out / "sound" / names[4]).read_bytes())
    heard = load(out).heard
    assert heard is not None
    with pytest.raises(UserError, match="it has changed"):
        _ = heard.items[3]
    assert extracted_from(manifest, out).decoded == 1
    assert load(out).fingerprint == load(whole[1]).fingerprint


def test_the_folder_of_another_corpus_is_left_alone(whole: tuple[Path, Path], tmp_path: Path) -> None:
    out = copied(whole[1], tmp_path / "out")
    other = write_recordings(tmp_path / "raw", count=8).rename(tmp_path / "raw" / "other.csv")
    with pytest.raises(UserError, match="holds an extraction of 'own', not of 'other'"):
        extracted_from(other, out)
    assert contents(out) == contents(whole[1])


@pytest.mark.parametrize(("column", "value"), [("split", "train"), ("id", "u01")])
def test_what_no_study_can_be_made_of_is_refused_before_anything_is_decoded(
    tmp_path: Path, column: str, value: str
) -> None:
    manifest = write_recordings(tmp_path / "raw", count=8)
    table = pd.read_csv(manifest)
    table[column] = value
    table.to_csv(manifest, index=False)
    with pytest.raises(UserError, match=r"the validation split is empty|twice|already"):
        extracted_from(manifest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_weights_are_noticed_before_anything_is_decoded(whole: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights .* are missing"):
        extracted_from(whole[0], tmp_path / "out", vision=f"timm:weights={tmp_path}/nowhere")
    assert not (tmp_path / "out").exists()


def test_a_pipe_and_a_link_to_a_device_are_no_clips(tmp_path: Path) -> None:
    manifest = write_recordings(tmp_path / "raw", count=8)
    pipe, link = (tmp_path / "raw" / "clips" / f"u0{i}.mp4" for i in (2, 3))
    for path in (pipe, link):
        path.unlink()
    os.mkfifo(pipe)
    source = folder.read(manifest)
    link.symlink_to("/dev/zero")
    outcome = extract(source, "folder", tmp_path / "out", LogMel(), FrameDCT(), "tests", 1, in_silence)
    assert {p.utterance for p in outcome.problems} == {"u02", "u03"}


def test_a_folder_may_have_any_name(whole: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    extracted_from(whole[0], Path("my:corpus, x"))
    assert load(Path("my:corpus, x")).fingerprint == load(whole[1]).fingerprint


@pytest.mark.parametrize(
    ("old", "new"), [('"version": 1', '"version": 9'), ('"folder": "audio', '"folder": "../audio')]
)
def test_a_record_of_another_kind_is_refused(whole: tuple[Path, Path], tmp_path: Path, old: str, new: str) -> None:
    out = copied(whole[1], tmp_path)
    text = (out / RECORD).read_text(encoding="utf-8")
    assert old in text
    (out / RECORD).write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError, match="extract the corpus again"):
        load(out)
