"""The only birthplace of random generators.

A stream is named by what it is for, ``generator("noise", root_seed, corruption, draw, utterance_id)``, never by when
it is asked for: no draw depends on another's having happened, on the order of work, or on the process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


def seed_of(*key: str | int) -> int:
    """A 63-bit seed from a key of strings and whole numbers, the same in every process.

    >>> seed_of("noise", 0, "word-drop") == seed_of("noise", 0, "word-drop")
    True
    >>> seed_of("a", "bc") == seed_of("ab", "c")
    False
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}".replace("\x1f", "\x1f\x1f") for part in key)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def generator(*key: str | int) -> np.random.Generator:
    """A numpy generator for the stream named by ``key``."""
    return np.random.Generator(np.random.PCG64(seed_of(*key)))


@contextmanager
def torch_stream(*key: str | int) -> Iterator[None]:
    """Seed torch's own generators (weights, dropout) inside the block, and restore them after it."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed_of(*key))
        yield
