"""Networks with random weights on disk, in the formats that trained ones come in."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
import torchaudio
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from dual_bench.seeding import torch_stream

TIMM = "test_resnet.r160_in1k"
"""The smallest network of timm."""
LONGEST = 24
"""Tokens of a text that the text models read, their own marks among them."""
_SENTENCES = ["they were so angry at noon", "nobody was happy, she is late", "very very quiet"] * 4
_SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


def write(folder: Path) -> None:
    """``wav2vec2`` and ``timm``, each with a file of weights; ``bert`` and ``roberta``, folders of transformers."""
    with torch_stream("random networks"):
        weights = torchaudio.models.wav2vec2_base().state_dict()
        _save(folder / "wav2vec2", {name: tensor.half() for name, tensor in weights.items()})
        _save(folder / "timm", timm.create_model(TIMM).state_dict())
        write_bert(folder / "bert")
        write_roberta(folder / "roberta")


def _save(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")


def write_bert(folder: Path) -> None:
    """Whole words; [CLS] before a text and [SEP] after it."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted(set(" ".join(_SENTENCES).replace(",", " ,").split()))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(marks + words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    model = BertModel(BertConfig(vocab_size=tokenizer.get_vocab_size(), **_SIZES))
    _save_text(folder, model, tokenizer, dict(zip(("pad", "unk", "cls", "sep", "mask"), marks, strict=True)))


def write_roberta(folder: Path) -> None:
    """Byte-level pairs; <s> before a text and </s> after it, and a leading space that counts."""
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=marks, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=False)
    model = RobertaModel(RobertaConfig(vocab_size=tokenizer.get_vocab_size(), **_SIZES))
    _save_text(folder, model, tokenizer, dict(zip(("cls", "pad", "sep", "unk", "mask"), marks, strict=True)))


def _save_text(folder: Path, model: PreTrainedModel, tokenizer: Tokenizer, marks: dict[str, str]) -> None:
    named = {f"{role}_token": mark for role, mark in marks.items()}
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LONGEST, **named).save_pretrained(folder)
