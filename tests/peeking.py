"""A model that looks for the labels of the test part wherever its process may have them, and notes what it finds.

Those labels are numbers that nothing else has: ``planted``. It looks at every object that Python knows of, at every
frame and module, and at every byte of memory that no library was loaded into. It opens no file.
"""

from __future__ import annotations

import gc
import itertools
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from dual_bench.models.fusion import Concat, ConcatSettings
from dual_bench.types import Batch, Output, Task, Widths

LOW = 1 + 27_180_469 / 10**8
HIGH = LOW + 1e-10
_DIGITS = b"96408172.1"
"""Of a planted label, backwards."""
_FEW = 8
"""So many of one number in single precision, or of its digits, are no chance."""
_BLOCK = 1 << 20
looked: set[str] = set()


def planted(count: int) -> list[float]:
    """Labels that no computation comes to by chance."""
    return [LOW + (1 + i) * 1e-12 for i in range(count)]


def found() -> set[str]:
    """In what there are labels."""
    return {f"object {type(thing).__name__}" for thing in _reachable() if _tells(thing)} | set(_in_memory())


def _reachable() -> Iterator[Any]:
    """What the collector knows, what frames and modules hold, and what these refer to: arrays and numbers are not
    known to it."""
    roots: list[Any] = [*gc.get_objects(), *map(vars, list(sys.modules.values()))]
    for frame in _frames():
        roots.append(frame.f_locals)
    kinds = (float, torch.Tensor, np.ndarray, np.memmap)  # ``isinstance`` would wake what is loaded late
    things = (thing for thing in itertools.chain(roots, gc.get_referents(*roots)) if type(thing) in kinds)
    yield from {id(thing): thing for thing in things}.values()


def _frames() -> Iterator[FrameType]:
    for frame in sys._current_frames().values():
        above: FrameType | None = frame
        while above is not None:
            yield above
            above = above.f_back


def _tells(thing: Any) -> bool:
    if type(thing) is float:
        return LOW < thing < HIGH
    if type(thing) is torch.Tensor:
        if thing.device.type != "cpu" or thing.layout is not torch.strided:
            return False
        thing = thing.detach().float().numpy()
    return thing.dtype.kind == "f" and int((thing.astype(np.float32) == np.float32(LOW)).sum()) >= _FEW


def _in_memory() -> Iterator[str]:
    """Doubles and decimals in what is mapped, but for libraries; nothing where the system does not show it."""
    if not Path("/proc/self/maps").exists():
        return
    written = 0
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in Path("/proc/self/maps").read_text().splitlines():
            area, rights, *_, name = [*line.split(maxsplit=5), ""][:6]
            if not rights.startswith("r") or ".so" in name or name.startswith(("[v", sys.prefix, sys.base_prefix)):
                continue
            start, end = (int(part, 16) for part in area.split("-"))
            for place in range(start, end, _BLOCK):
                try:
                    memory.seek(place)
                    data = memory.read(min(_BLOCK, end - place))
                except OSError:  # a part that nobody may read
                    continue
                doubles = np.frombuffer(data, np.float64, len(data) // 8)
                if ((doubles > LOW) & (doubles < HIGH)).any():
                    yield "memory, as doubles"
                written += data.count(_DIGITS[::-1])
    if written >= _FEW:
        yield "memory, as text"


class Peeking(Concat):
    """Looks in the first batch of a process that it trains on, that it answers after training; and notes where an
    attack asks it."""

    def forward(self, batch: Batch) -> Output:
        above = {frame.f_code.co_name for frame in _frames()}
        later = "attack" if above & {"attack", "attacked"} else "predict_all" if "predict_all" in above else ""
        phase = "trained" if self.training else later
        if phase and phase not in looked:
            looked.add(phase)
            with np.errstate(all="ignore"):
                where = ";".join(sorted(found())) if phase != "attack" else "whatever there is"
            with open(os.environ["PEEKED"], "a", encoding="utf-8") as notes:
                notes.write(f"{os.getpid()}|{phase}|{where}\n")
        return super().forward(batch)


def build(widths: Widths, task: Task, width: int = 8) -> Peeking:
    return Peeking(widths, task, ConcatSettings(width=width))


class Forgetting(Concat):
    """Counts its batches where no ``state_dict`` has it, and is the surer the more there were."""

    batches = 0

    def forward(self, batch: Batch) -> Output:
        self.batches += self.training
        found = super().forward(batch)
        return replace(found, logits=found.logits * (1 + self.batches))


def forgetting(widths: Widths, task: Task, width: int = 8) -> Forgetting:
    return Forgetting(widths, task, ConcatSettings(width=width))
