"""Encoders with weights against the libraries that they come from, where weights lie and what is said where they do
not, and encoders in a plan. What all encoders promise is in ``contract/test_encoders.py``."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import opensmile
import pytest
import timm
import torch
import torchaudio
from calling import invoke, refused
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from random_networks import LONGEST, TIMM
from safetensors.torch import load_file, save_file
from tiny import write_corpus
from transformers import AutoModel, AutoTokenizer

from dual_bench import prepare
from dual_bench.features.encoder import audio_encoder, encode_in_batches, encoders_of, picture_encoder, text_encoder
from dual_bench.features.media import Picture
from dual_bench.features.vision import thinned
from dual_bench.features.wav2vec2 import FILE, URL
from dual_bench.features.weights import from_hub
from dual_bench.plan import check, load_corpus, read_plan
from dual_bench.seeding import generator
from dual_bench.types import UserError


def sound(seconds: float = 1.0) -> NDArray[np.float32]:
    return (0.1 * generator("test", "sound", repr(seconds)).normal(size=round(16_000 * seconds))).astype(np.float32)


def pictures(*shape: int) -> NDArray[np.uint8]:
    return generator("test", "pictures", *shape).integers(0, 256, shape, dtype=np.uint8)


# -------------------------------------------------------------------------------------------- wav2vec 2.0


@pytest.mark.parametrize("layer", [1, 12])
def test_wav2vec2_gives_the_layer_that_torchaudio_gives(layer: int, networks: Path) -> None:
    own = torchaudio.models.wav2vec2_base()
    own.load_state_dict(load_file(networks / "wav2vec2" / "model.safetensors"))
    with torch.inference_mode():
        expected = own.eval().extract_features(torch.from_numpy(sound())[None])[0][layer - 1][0].numpy()
    (found,) = audio_encoder(f"wav2vec2:layer={layer},weights={networks}/wav2vec2").encode([sound()], 16_000)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_weights_under_the_names_that_the_published_file_has_for_them_are_the_same(
    networks: Path, tmp_path: Path
) -> None:
    """It was written when torch kept a normalised weight as ``weight_g`` and ``weight_v``."""
    now = "encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original{}"
    then = "encoder.transformer.pos_conv_embed.conv.weight_{}"
    weights = load_file(networks / "wav2vec2" / "model.safetensors")
    for number, letter in enumerate("gv"):
        weights[then.format(letter)] = weights.pop(now.format(number))
    torch.save(weights, tmp_path / FILE)
    (found,) = audio_encoder(f"wav2vec2:layer=1,weights={tmp_path}").encode([sound()], 16_000)
    (expected,) = audio_encoder(f"wav2vec2:layer=1,weights={networks}/wav2vec2").encode([sound()], 16_000)
    np.testing.assert_array_equal(found, expected)


def test_on_an_accelerator_items_come_in_batches_and_the_precision_is_in_the_name(networks: Path) -> None:
    spec = f"wav2vec2:weights={networks}/wav2vec2"
    here, there = audio_encoder(spec), audio_encoder(spec, "cuda")
    assert (here.batch, there.batch) == (1, 8)
    assert (here.name, there.name.replace("fp16", "fp32")) == (there.name.replace("fp16", "fp32"), here.name)
    assert here.name != there.name


def test_sound_of_less_than_a_step_is_one_with_silence_after_it(networks: Path) -> None:
    encoder = audio_encoder(f"wav2vec2:layer=1,weights={networks}/wav2vec2")
    short = sound()[:100]
    found, padded = encoder.encode([short, np.pad(short, (0, 300))], 16_000)
    assert len(found) == len(padded) == 1
    np.testing.assert_allclose(found, padded, atol=1e-5)


def test_the_weights_are_downloaded_once_to_the_cache_of_torch_hub(
    networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(url: str, target: str, progress: bool) -> None:
        asked.append(url)
        weights = load_file(networks / "wav2vec2" / "model.safetensors")
        torch.save(weights, target)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    encoder = audio_encoder("wav2vec2:layer=1")
    (found,) = encoder.encode([sound()], 16_000)
    assert audio_encoder("wav2vec2:layer=1").name == encoder.name
    assert asked == [URL]
    assert (tmp_path / "hub" / "checkpoints" / FILE).is_file()
    (same,) = audio_encoder(f"wav2vec2:layer=1,weights={networks}/wav2vec2").encode([sound()], 16_000)
    np.testing.assert_array_equal(found, same)


def test_without_a_network_the_file_its_folder_and_the_way_out_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(url: str, target: str, progress: bool) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(UserError) as caught:
        audio_encoder("wav2vec2").name  # noqa: B018
    for part in (FILE, "no route to host", str(tmp_path / "hub" / "checkpoints"), "weights=FILE", "log-mel"):
        assert part in str(caught.value)


# ------------------------------------------------------------------------------------------------ eGeMAPS


@pytest.mark.parametrize("level", ["low", "functionals"])
def test_egemaps_are_those_of_opensmile(level: str) -> None:
    kind = {
        "low": opensmile.FeatureLevel.LowLevelDescriptors,
        "functionals": opensmile.FeatureLevel.Functionals,
    }[level]
    own = opensmile.Smile(feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=kind)
    encoder = audio_encoder(f"egemaps:level={level}")
    (found,) = encoder.encode([sound()], 16_000)
    np.testing.assert_array_equal(found, own.process_signal(sound(), 16_000).to_numpy())
    assert found.shape == ((16_000 // 160 - 4, 25) if level == "low" else (1, 88))
    assert encoder.width == found.shape[1]
    assert np.isnan(encoder.rate) == (level == "functionals")


def test_a_tone_has_its_pitch_in_semitones_above_27_5_hertz() -> None:
    times = np.arange(16_000) / 16_000
    voice = sum(np.sin(2 * np.pi * 220 * k * times) / k for k in range(1, 6)).astype(np.float32) / 4
    names = opensmile.Smile(feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level="lld").feature_names
    (found,) = audio_encoder("egemaps").encode([voice], 16_000)
    pitch = found[20:70, names.index("F0semitoneFrom27.5Hz_sma3nz")]
    np.testing.assert_allclose(pitch, 36, atol=0.2)  # three octaves


def test_without_opensmile_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(UserError, match=r"pip install 'dual-bench\[opensmile\]'"):
        audio_encoder("egemaps")


# --------------------------------------------------------------------------------------------------- timm


def test_timm_gives_what_the_network_pools_of_the_picture_that_its_own_evaluation_cuts(networks: Path) -> None:
    encoder = picture_encoder(f"timm:model={TIMM},weights={networks}/timm")
    assert encoder.picture == Picture(168, 168, colour=True, crop=True)
    run = pictures(3, 168, 168, 3)
    own = timm.create_model(TIMM)
    own.load_state_dict(load_file(networks / "timm" / "model.safetensors"))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(own), is_training=False)
    with torch.inference_mode():
        seen = torch.stack([transform(Image.fromarray(frame)) for frame in run])
        expected = own.eval().forward_head(own.forward_features(seen), pre_logits=True).numpy()
    (found,) = encoder.encode([run], 10)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert encoder.width == expected.shape[1]


def test_grey_frames_are_frames_whose_three_colours_are_alike(networks: Path) -> None:
    encoder = picture_encoder(f"timm:model={TIMM},weights={networks}/timm")
    grey = pictures(2, 32, 32)
    (found,) = encoder.encode([grey], 10)
    (coloured,) = encoder.encode([grey[..., None].repeat(3, axis=3)], 10)
    np.testing.assert_allclose(found, coloured, atol=1e-5)


def test_only_the_face_is_asked_for_where_that_is_wanted(networks: Path) -> None:
    encoder = picture_encoder(f"timm:model={TIMM},face=on,weights={networks}/timm")
    assert encoder.picture.face
    assert not picture_encoder("frame-dct:size=48").picture.face
    assert picture_encoder("frame-dct:size=48").picture == Picture(48, 48, colour=False)


def test_frames_of_another_shape_are_refused(networks: Path) -> None:
    encoder = picture_encoder(f"timm:model={TIMM},weights={networks}/timm")
    with pytest.raises(UserError, match=r"found \(2, 8, 8, 4\)"):
        encoder.encode([pictures(2, 8, 8, 4)], 10)


def test_weights_of_other_classes_are_as_good(networks: Path, tmp_path: Path) -> None:
    weights = load_file(networks / "timm" / "model.safetensors")
    assert {name for name in weights if name.startswith("fc.")} == {"fc.weight", "fc.bias"}
    feelings = weights | {"fc.weight": torch.zeros(7, weights["fc.weight"].shape[1]), "fc.bias": torch.zeros(7)}
    torch.save(feelings, tmp_path / "feelings.pth")
    run = pictures(2, 168, 168, 3)
    (found,) = picture_encoder(f"timm:model={TIMM},weights={tmp_path}").encode([run], 10)
    (whole,) = picture_encoder(f"timm:model={TIMM},weights={networks}/timm").encode([run], 10)
    np.testing.assert_array_equal(found, whole)


def test_the_published_weights_of_timm_come_from_the_cache_of_huggingface(
    networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, bool]] = []

    def download(repository: str, file: str, revision: str | None, local_files_only: bool = False) -> str:
        asked.append((repository, file, local_files_only))
        return str(networks / "timm" / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    run = pictures(2, 168, 168, 3)
    (found,) = picture_encoder(f"timm:model={TIMM}").encode([run], 10)
    assert asked == [(f"timm/{TIMM}", "model.safetensors", True)]
    (own,) = picture_encoder(f"timm:model={TIMM},weights={networks}/timm").encode([run], 10)
    np.testing.assert_array_equal(found, own)


def test_weights_in_the_cache_of_huggingface_that_are_not_what_they_are_called_are_refused(tmp_path: Path) -> None:
    named, kept = tmp_path / "snapshots" / "model.safetensors", tmp_path / "blobs" / sha256(b"weights").hexdigest()
    for folder in (named.parent, kept.parent):
        folder.mkdir()
    named.symlink_to(kept)
    kept.write_bytes(b"weights")
    for place in (named, named.parent):
        assert from_hub(lambda local_files_only, place=place: str(place)) == place
        kept.write_bytes(b"weight5")
        with pytest.raises(UserError, match=f"model.safetensors is damaged: expected sha256 {kept.name[:16]}…, found"):
            from_hub(lambda local_files_only, place=place: str(place))
        kept.write_bytes(b"weights")


def test_without_a_network_timm_names_the_file_the_cache_and_the_way_out() -> None:
    with pytest.raises(UserError) as caught:
        picture_encoder("timm").name  # noqa: B018
    for part in ("model.safetensors of timm/resnet50.", "huggingface", "weights=FILE", "frame-dct"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("resnet5", "unknown model 'resnet5'; did you mean 'resnet50'?"),
        ("???", r"unknown model '\?\?\?'; timm.list_models\(\) lists all"),
        ("test_resnet.r160_in2k", "unknown weights 'test_resnet.r160_in2k'; did you mean 'test_resnet.r160_in1k'?"),
    ],
)
def test_an_unknown_network_is_answered_with_the_nearest(model: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        picture_encoder(f"timm:model={model}")


@given(frames=st.integers(0, 60), given_rate=st.floats(1, 120), wanted=st.floats(1, 120))
def test_thinning_shows_at_each_time_the_last_frame_that_had_come(
    frames: int, given_rate: float, wanted: float
) -> None:
    item = np.arange(frames, dtype=np.int64)
    found = np.asarray(thinned(item, given_rate, wanted))
    if given_rate <= wanted:
        assert found.tolist() == item.tolist()
        return
    late = np.arange(len(found)) / wanted - found / given_rate
    assert (late > -1e-6).all()
    assert (late < 1 / given_rate + 1e-6).all()
    assert abs(len(found) - frames / given_rate * wanted) <= 1


def test_frames_that_come_too_fast_are_thinned(networks: Path) -> None:
    run = pictures(25, 32, 32)
    for spec in ("frame-dct", f"timm:model={TIMM},weights={networks}/timm"):
        encoder = picture_encoder(spec)
        (found,), (expected,) = (
            encoder.encode([run], 25),
            encoder.encode([run[[0, 2, 5, 7, 10, 12, 15, 17, 20, 22]]], 10),
        )
        np.testing.assert_array_equal(found, expected)


# ------------------------------------------------------------------------------------------------ weights


class _Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def spoil_pickle(folder: Path) -> None:
    (folder / "w.pth").write_bytes(pickle.dumps(_Evil(folder / "harm"), protocol=2))


def spoil_torch(folder: Path) -> None:
    torch.save({"weight": _Evil(folder / "harm")}, folder / "w.pth")


def spoil_names(folder: Path) -> None:
    torch.save([torch.zeros(3)], folder / "w.pt")


def spoil_bytes(folder: Path) -> None:
    (folder / "w.safetensors").write_bytes(b"not weights")


@pytest.mark.parametrize("spoil", [spoil_pickle, spoil_torch, spoil_names, spoil_bytes])
@pytest.mark.parametrize("name", ["wav2vec2", "timm"])
def test_a_file_that_is_no_table_of_tensors_is_refused_and_runs_nothing(
    name: str, spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    spoil(tmp_path)
    with pytest.raises(UserError, match=r"expected tensors by name in .*, and nothing else"):
        _encoded(f"{name}:weights={tmp_path}")
    assert not (tmp_path / "harm").exists()


def _encoded(spec: str) -> Any:
    if spec.startswith("wav2vec2"):
        return audio_encoder(spec).encode([sound()], 16_000)
    return picture_encoder(spec).encode([pictures(1, 32, 32)], 10)


def test_weights_of_another_network_are_refused_by_the_first_name_that_does_not_fit(networks: Path) -> None:
    with pytest.raises(UserError, match=r"has the weights of another network: Missing key.*feature_extractor\.conv_la"):
        _encoded(f"wav2vec2:weights={networks}/timm")
    with pytest.raises(UserError, match=r"has the weights of another network: Missing key.* \"layer1\.1"):
        _encoded(f"timm:model=resnet18,weights={networks}/timm")


def test_a_folder_must_hold_one_file_of_weights(networks: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="are missing; expected a file, or a folder with one"):
        _encoded(f"wav2vec2:weights={tmp_path / 'nowhere'}")
    with pytest.raises(UserError, match="found none; name the file"):
        _encoded(f"wav2vec2:weights={tmp_path}")
    for name in ("a.safetensors", "b.pth"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"found a\.safetensors, b\.pth; name the file"):
        _encoded(f"wav2vec2:weights={tmp_path}")


# --------------------------------------------------------------------------------------------------- text

MARKS = {"bert": (["[CLS]"], ["[SEP]"]), "roberta": (["<s>"], ["</s>"])}


@pytest.mark.parametrize("kind", MARKS)
@pytest.mark.parametrize("text", ["they were so angry", "nobody, 10 ☃", "one {mask} two {unk}", "late"])
def test_tokens_are_those_of_transformers_without_the_marks_around_the_text(
    kind: str, text: str, networks: Path
) -> None:
    model, tokenizer = AutoModel.from_pretrained(networks / kind), AutoTokenizer.from_pretrained(networks / kind)
    text = text.format(mask=tokenizer.mask_token, unk=tokenizer.unk_token)
    read = tokenizer(text, return_tensors="pt")
    before, after = MARKS[kind]
    tokens = tokenizer.convert_ids_to_tokens(read["input_ids"][0])
    assert (tokens[:1], tokens[-1:]) == (before, after)
    with torch.inference_mode():
        expected = model.eval()(**read).last_hidden_state[0, 1:-1].numpy()
    found = text_encoder(f"sentence-transformers:model={networks / kind}")(["so very late, late", text, ""])[1]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", MARKS)
def test_long_texts_are_cut_at_the_limit_of_the_model(kind: str, networks: Path) -> None:
    encoder = text_encoder(f"sentence-transformers:model={networks / kind}")
    (found, short) = encoder(["late " * 500, "late"])
    assert len(found) == LONGEST - 2
    assert len(short) >= 1


@pytest.mark.parametrize("kind", MARKS)
def test_the_unknown_token_is_that_of_the_tokenizer(kind: str, networks: Path) -> None:
    encoder = text_encoder(f"sentence-transformers:model={networks / kind}")
    assert encoder.unknown == {"bert": "[UNK]", "roberta": "<unk>"}[kind]
    assert len(encoder([encoder.unknown])[0]) == 1


def test_the_name_of_the_unknown_token_of_the_default_is_its_tokenizers_own() -> None:
    encoder: Any = text_encoder()
    assert encoder._model.tokenizer.unk_token == encoder.unknown


def test_other_weights_or_another_tokenizer_in_the_folder_are_another_encoder(networks: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(networks / "bert", tmp_path / "mine")
    spec = f"sentence-transformers:model={folder}"
    first = text_encoder(spec).name
    assert first.startswith("sentence-transformers/mine@")
    (folder / "README.md").write_text("what this is")
    assert text_encoder(spec).name == first
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    second = text_encoder(spec).name
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " ")
    assert len({first, second, text_encoder(spec).name}) == 3


def test_a_folder_without_a_model_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"text encoder {tmp_path} cannot be loaded"):
        text_encoder(f"sentence-transformers:model={tmp_path}")(["a word"])


def test_without_a_network_the_model_the_cache_and_the_way_out_are_named() -> None:
    with pytest.raises(UserError) as caught:
        text_encoder("sentence-transformers:model=all-mpnet-base-v2").name  # noqa: B018
    for part in ("sentence-transformers/all-mpnet-base-v2", "huggingface", "model=FOLDER", "all-MiniLM-L6-v2"):
        assert part in str(caught.value)


# ---------------------------------------------------------------------------------------------- in batches


class Lengths:
    """Says how long its items are, and remembers which came together."""

    name, width, rate = "lengths", 1, 1.0

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.together: list[list[int]] = []

    def encode(self, items: Sequence[NDArray[np.generic]], rate: float) -> list[NDArray[np.float32]]:
        self.together.append([len(item) for item in items])
        return [np.full((1, 1), len(item), np.float32) for item in items]


@given(lengths=st.lists(st.integers(0, 50), max_size=60), batch=st.integers(1, 5))
def test_every_item_is_encoded_once_and_few_are_held_at_a_time(lengths: list[int], batch: int) -> None:
    read = 0

    def items() -> Iterator[tuple[int, NDArray[np.generic]]]:
        nonlocal read
        for position, length in enumerate(lengths):
            read += 1
            yield position, np.zeros(length, np.float32)

    encoder = Lengths(batch)
    found = {}
    for position, rows in encode_in_batches(encoder, items(), 1.0):
        assert position not in found
        assert read - len(found) <= (1 if batch == 1 else 8 * batch)
        found[position] = rows.item()
    assert found == dict(enumerate(lengths))
    assert all(len(together) <= batch for together in encoder.together)


def test_items_of_like_length_come_together() -> None:
    encoder = Lengths(2)
    list(encode_in_batches(encoder, ((i, np.zeros(n)) for i, n in enumerate([9, 1, 8, 2])), 1.0))
    assert encoder.together == [[1, 2], [8, 9]]


# ----------------------------------------------------------------------------------------------- in a plan

SMALL = ["--models", "concat,text-only", "--seeds", "1", "--epochs", "1", "--draws", "1", "--no-dependency"]


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"sound": "log-mel"}, "unknown modality 'sound'"),
        ({"audoi": "log-mel"}, "unknown modality 'audoi'; did you mean 'audio'?"),
        ({"audio": "log-mal"}, "unknown encoder 'log-mal'; did you mean 'log-mel'?"),
        ({"audio": "log-mel:band=3"}, "encoder 'log-mel': unknown setting 'band'; did you mean 'bands'?"),
        ({"audio": "wav2vec2:layer=13"}, "encoder 'wav2vec2': layer: .*12.*13"),
        ({"vision": "log-mel"}, "encoder 'log-mel' reads audio, not vision"),
        ({"text": "dual_bench.features.audio:LogMel"}, "expected a dual_bench.features.encoder.EncoderSpec"),
    ],
)
def test_a_slip_in_an_encoder_is_found_when_the_plan_is_read(chosen: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_plan("default", {"encoders": chosen})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["audio"], "expected MODALITY=NAME, as in audio=log-mel, once each, found 'audio'"),
        (["audio=log-mel", "--encoder", "audio=egemaps"], "once each, found 'audio' twice"),
        (["audoi=log-mel"], "did you mean 'audio'?"),
    ],
)
@pytest.mark.parametrize("command", ["run", "tune"])
def test_a_slip_on_the_command_line_is_explained(command: str, given: list[str], says: str) -> None:
    assert says in refused(command, "--encoder", *given)


def test_features_made_elsewhere_take_no_encoder_but_words_do(tmp_path: Path) -> None:
    manifest = str(write_corpus(tmp_path))
    corpus = load_corpus(manifest, tmp_path)
    for modality, spec in (("audio", "log-mel"), ("vision", "frame-dct")):
        plan = read_plan("default", {"dataset": manifest, "encoders": {modality: spec}})
        with pytest.raises(UserError, match=f"for {modality} is given, which '.*' has as features, encoded elsewhere"):
            check(plan, corpus)
    check(read_plan("default", {"dataset": manifest, "encoders": {"text": "sentence-transformers"}}), corpus)


def ask(**fields: Any) -> prepare.Asked:
    fields = {"dataset": "synthetic:utterances=48", "models": ["concat"], "seeds": 1, **fields}
    return prepare.ask(read_plan("default", fields), None, Path(), Path(), "cpu")


def test_naming_the_defaults_changes_no_digest_and_naming_others_does() -> None:
    usual = ask()
    named = ask(encoders={"audio": "log-mel", "vision": "frame-dct:keep=8", "text": "sentence-transformers"})
    assert (named.digest, named.encoders) == (usual.digest, usual.encoders)
    other = ask(encoders={"audio": "egemaps"})
    assert other.digest != usual.digest
    assert other.encoders == {**usual.encoders, "audio": "egemaps-v02/v1/low"}
    assert usual.encoders == {
        "audio": "log-mel/v1/40x50Hz",
        "vision": "frame-dct/v1/32x32-8x8",
        "text": "all-MiniLM-L6-v2/v2/fp32",
    }


def test_a_flag_replaces_the_encoder_of_one_modality_of_a_study(tmp_path: Path) -> None:
    study = tmp_path / "mine.toml"
    text = 'name = "mine"\ndataset = "synthetic"\nmodels = ["concat"]\n[encoders]\naudio = "egemaps"\nvision = "{}"\n'
    study.write_text(text.format("frame-dct:keep=4"))
    assert read_plan(str(study), {}).encoders == {"audio": "egemaps", "vision": "frame-dct:keep=4"}
    assert read_plan(str(study), {"encoders": {"audio": "log-mel"}}).encoders == {
        "audio": "log-mel",
        "vision": "frame-dct:keep=4",
    }


@pytest.mark.usefixtures("no_figures")
def test_a_run_reads_through_the_encoders_that_are_named(networks: Path, tmp_path: Path) -> None:
    encoders = {
        "audio": "egemaps:level=functionals",
        "vision": f"timm:model={TIMM},weights={networks}/timm",
        "text": f"sentence-transformers:model={networks}/roberta",
    }
    flags = [part for modality, spec in encoders.items() for part in ("--encoder", f"{modality}={spec}")]
    noise = ["--corruptions", "token-unk,worst-case", "--rates", "0.5", "--regimes", "clean"]
    called = ["run", "--dataset", "synthetic:utterances=48", *SMALL, *noise, *flags, "--out", tmp_path / "out"]
    result = invoke(*called, "--jobs", 1)
    assert result.exit_code == 0, result.output
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    own = encoders_of(encoders)
    assert run["encoders"] == {"audio": own.audio.name, "vision": own.vision.name, "text": own.text.name}
    assert run["plan"]["encoders"] == encoders
    versions = run["provenance"]["packages"]
    assert {"timm", "torchvision", "opensmile", "av"} <= set(versions)


def test_list_shows_encoders_by_modality() -> None:
    shown = invoke("list", "encoders").stdout
    for name, modality in (("wav2vec2", "audio"), ("timm", "vision"), ("sentence-transformers", "text")):
        assert any(line.split()[:2] == [name, f"{modality}:"] for line in shown.splitlines())


def test_a_model_that_names_code_of_its_own_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    modules = [{"idx": 0, "name": "0", "path": "", "type": "evilmod.Evil"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (tmp_path / "evilmod.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"names code of its own, evilmod\.Evil, which is not run"):
        text_encoder(f"sentence-transformers:model={tmp_path}")(["a word"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{"types": {"q": "evil.Evil"}}, {"types": {"q": ["evil.Evil"]}}])
def test_a_router_of_a_text_model_names_no_code_of_its_own(tmp_path: Path, content: object) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "router_config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"names code of its own, .*evil\.Evil.*, which is not run"):
        text_encoder(f"sentence-transformers:model={tmp_path}")(["a word"])
