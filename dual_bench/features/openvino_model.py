"""The networks of sentence-transformers by OpenVINO, Intel's library for inference, which is faster on most CPUs.

The network is traced once, in memory. What it gives then is compared with what torch gives for texts of other lengths,
as a trace may have fixed what depends on the lengths.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dual_bench.types import UserError

Forward = Callable[[Mapping[str, torch.Tensor]], NDArray[np.float32]]
"""What the tokenizer gives, each (B, T), to token embeddings (B, T, d), which are overwritten by the next call."""

_TRACED = ["a", "a longer text"]
_COMPARED = ["one", "two words", "and a text that is longer than all of the others"]
_COSINE = 0.99
"""Less than this, for any token, is no rounding but another network."""


class _Tokens(nn.Module):
    """Tensors in the order of ``names`` to token embeddings."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *read: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(dict(zip(self.names, read, strict=True)))["token_embeddings"]
        return found


def converted(model: Any, precision: str, who: str) -> Forward:
    """A SentenceTransformer ``model`` on the CPU, in ``precision`` fp32 or bf16, with as many threads as torch has.

    UserError where OpenVINO is not installed, or cannot do what ``model`` does, or not in ``precision``, which it takes
    for a hint (https://docs.openvino.ai, "Precision Control").
    """
    openvino = _openvino()
    example, other = (dict(model.tokenizer(texts, padding=True, return_tensors="pt")) for texts in (_TRACED, _COMPARED))
    tokens = _Tokens(model, list(example)).eval()
    wanted = {"fp32": "f32", "bf16": "bf16"}[precision]
    settings = {
        "INFERENCE_PRECISION_HINT": wanted,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        with torch.inference_mode():
            expected = tokens(*other.values()).numpy()
            graph = _traced(openvino, tokens, tuple(example.values()))
        compiled = openvino.Core().compile_model(graph, "CPU", settings)
        used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        request = compiled.create_infer_request()

        def forward(read: Mapping[str, torch.Tensor]) -> NDArray[np.float32]:
            given = [read[name].numpy() for name in tokens.names]
            request.infer(given, share_inputs=True, share_outputs=True)
            found: NDArray[np.float32] = request.get_output_tensor(0).data
            return found

        found = forward(other)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:  # of the library: anything
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{who} cannot be converted for OpenVINO ({reason}); use backend=torch") from error
    if used != wanted:
        raise UserError(
            f"{who}: expected OpenVINO to compute in {wanted}, found {used}, which is what it does on this CPU; use "
            f"{'precision=fp32' if precision == 'bf16' else 'backend=torch'}"
        )
    if found.shape != expected.shape or not (_cosine(found, expected)[other["attention_mask"] > 0] > _COSINE).all():
        raise UserError(f"{who} gives other numbers when it is converted for OpenVINO; use backend=torch")
    return forward


def _openvino() -> Any:
    # it would report each import and conversion to its makers; without that package it does not
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError:
        raise UserError(
            "the text backend openvino needs OpenVINO; run `pip install 'dual-bench[openvino]'`, or use torch"
        ) from None
    return openvino


def _traced(openvino: Any, tokens: nn.Module, example: tuple[torch.Tensor, ...]) -> Any:
    from transformers.utils import logging

    told = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            # torch.jit.trace, which OpenVINO calls, warns of its age and of what it fixes: that is compared afterwards
            warnings.simplefilter("ignore")
            return openvino.convert_model(tokens, example_input=example)
    finally:
        logging.set_verbosity(told)


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.asarray((one * other).sum(axis=-1) / np.maximum(lengths, 1e-12))
