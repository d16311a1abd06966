"""Weights of networks that others trained: where they lie, what they are, and how they are read without running code.

Files are safetensors, or what ``torch.load(weights_only=True)`` reads: never a pickle that may do anything.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from textwrap import shorten

import safetensors
import safetensors.torch
import torch
from torch import nn

from dual_bench.durable import sha256_of
from dual_bench.types import UserError

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def chosen(named: str, who: str) -> Path:
    """The weight file that the setting ``weights`` of encoder ``who`` names: a file, or the only one in a folder."""
    path = Path(named).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{who}: weights {path} are missing; expected a file, or a folder with one")
    found = sorted(file.name for file in path.iterdir() if file.suffix in _SUFFIXES)
    if len(found) != 1:
        raise UserError(
            f"{who}: expected one file of weights ({', '.join(_SUFFIXES)}) in {path}, found "
            f"{', '.join(found) or 'none'}; name the file"
        )
    return path / found[0]


def from_hub(get: Callable[..., str]) -> Path:
    """What ``get``, a download of huggingface_hub, gives: from the cache where it is there, and without a look whether
    there is something newer; OSError or ValueError where it cannot be had, UserError where it is damaged."""
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # only the command line may write to the screen
    try:
        found = Path(get(local_files_only=True))
    except LocalEntryNotFoundError:
        found = Path(get())
    for file in found.rglob("*") if found.is_dir() else [found]:
        _check(file)
    return found


def _check(file: Path) -> None:
    """UserError where a file of the hub's cache is not what it is called there: large ones, as weights are, go by their
    sha256 (https://huggingface.co/docs/huggingface_hub/guides/manage-cache)."""
    kept = file.resolve()
    if len(kept.name) == 64 and not set(kept.name) - set("0123456789abcdef"):
        found = sha256_of(kept)
        if found != kept.name:
            raise UserError(
                f"{file} is damaged: expected sha256 {kept.name[:16]}…, found {found[:16]}…; remove {kept}, and it is "
                "downloaded again"
            )


def digest(files: Iterable[Path]) -> str:
    """The first 12 digits of a sha256 of what the files hold, in their order."""
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:12]


def read(path: Path, who: str) -> dict[str, torch.Tensor]:
    """Tensors by name, on the CPU; UserError where the file holds anything else."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as parts:  # torch compresses none: one that is may swell to more than any memory
                if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
                    raise ValueError("compressed")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (
        safetensors.SafetensorError,
        pickle.UnpicklingError,
        EOFError,
        RuntimeError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
    ):
        found = None
    if not (isinstance(found, Mapping) and all(isinstance(tensor, torch.Tensor) for tensor in found.values())):
        raise UserError(
            f"{who}: expected tensors by name in {path}, and nothing else; save the state_dict of the network as "
            ".safetensors"
        )
    return dict(found)


def fill(
    network: nn.Module, state: Mapping[str, torch.Tensor], where: Path, who: str, spare: Iterable[str] = ()
) -> None:
    """Put ``state`` into ``network``; that of modules ``spare`` is left over. UserError unless all the rest fits."""
    left = tuple(f"{module}." for module in spare)
    try:
        network.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith(left)})
    except RuntimeError as error:
        reason = shorten(" ".join(str(error).splitlines()[1:]), 160)
        raise UserError(f"{who}: {where} has the weights of another network: {reason}") from None


def precision(device: str) -> str:
    """What networks compute in: half precision where it is the faster one, by autocast."""
    return "fp16" if device.startswith("cuda") else "fp32"


def autocast(device: str) -> torch.autocast:
    """A block in which networks compute in ``precision``."""
    kind = device.partition(":")[0]
    return torch.autocast(kind, torch.float16, enabled=precision(device) == "fp16")
