"""Models of one shape as one: seeds trained together, each parameter with a leading dimension of models.

Small models leave a processor waiting for the next small product; M of them stacked make products M times the size.
Every model has its own batches, its own dropout and its own losses, and the gradient of their sum reaches each from its
own loss alone. So it learns what it would alone, but for rounding, which depends on how many are stacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from dual_bench.seeding import seed_of
from dual_bench.types import Batch, Output


class Stack(nn.Module):
    """M modules of one shape, whose settings and buffers are the same. A batch has the shape (M, B, …), logits are
    (M, B, K), losses (M,)."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.inner = _stacked(modules)

    def forward(self, batch: Batch) -> Output:
        found = self.inner(batch)
        return found if isinstance(found, Output) else Output(found)

    def state_of(self, number: int) -> dict[str, Tensor]:
        """The parameters of one module, by the names that they have there."""
        return {name: value[number].detach().clone() for name, value in self.inner.named_parameters()}

    def seed(self, streams: Sequence[tuple[str | int, ...]]) -> None:
        """From now on the dropout of each module draws from a stream of its own: on the CPU, what it would draw alone.
        The kernels of an accelerator draw in another order; there the masks are others, and as likely."""
        device = next(self.inner.parameters()).device
        generators = [torch.Generator(device).manual_seed(seed_of(*stream)) for stream in streams]
        for module in self.inner.modules():
            if isinstance(module, _Dropout):
                module.generators = generators


def _stacked(modules: Sequence[nn.Module]) -> nn.Module:
    """One module in the place of several; what it is made of is known by its type."""
    first = modules[0]
    known = {nn.Linear: _Linear, nn.LayerNorm: _LayerNorm, nn.LSTM: _Lstm, nn.Dropout: _Dropout}
    if type(first) in known:
        return known[type(first)](modules)
    torchs_own = type(first).__module__.startswith("torch.") and not list(first.children())
    if torchs_own and (first.state_dict() or hasattr(first, "p")):
        raise ValueError(f"a {type(first).__name__} cannot be stacked; {', '.join(k.__name__ for k in known)} can")
    found = deepcopy(first)
    for name, _ in first.named_children():
        setattr(found, name, _stacked([getattr(module, name) for module in modules]))
    for name, _ in first.named_parameters(recurse=False):
        setattr(found, name, _together(modules, name))
    return found


def _together(modules: Sequence[nn.Module], name: str) -> nn.Parameter:
    if getattr(modules[0], name) is None:
        raise ValueError(f"a {type(modules[0]).__name__} without {name} cannot be stacked")
    return nn.Parameter(torch.stack([getattr(module, name).detach() for module in modules]))


class _Linear(nn.Module):
    def __init__(self, modules: Sequence[Any]) -> None:
        super().__init__()
        self.weight, self.bias = _together(modules, "weight"), _together(modules, "bias")

    def forward(self, x: Tensor) -> Tensor:
        found = torch.baddbmm(self.bias[:, None], x.flatten(1, -2), self.weight.transpose(1, 2))
        return found.view(*x.shape[:-1], -1)


class _LayerNorm(nn.Module):
    def __init__(self, modules: Sequence[Any]) -> None:
        super().__init__()
        self.shape, self.eps = modules[0].normalized_shape, modules[0].eps
        self.weight, self.bias = _together(modules, "weight"), _together(modules, "bias")

    def forward(self, x: Tensor) -> Tensor:
        shape = (len(x), *(1,) * (x.dim() - 2), -1)
        normed = nn.functional.layer_norm(x, self.shape, eps=self.eps)
        return torch.addcmul(self.bias.view(shape), normed, self.weight.view(shape))


class _Dropout(nn.Module):
    def __init__(self, modules: Sequence[Any]) -> None:
        super().__init__()
        self.p = modules[0].p
        self.generators: list[torch.Generator] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        kept = torch.empty_like(x, memory_format=torch.contiguous_format)
        for own, generator in zip(kept, self.generators, strict=True):
            own.bernoulli_(1 - self.p, generator=generator)
        return x * kept.div_(1 - self.p)


class _Lstm(nn.Module):
    """One layer in one direction, batch first: the four gates, step by step."""

    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter
    bias_hh_l0: nn.Parameter

    def __init__(self, modules: Sequence[Any]) -> None:
        super().__init__()
        first = modules[0]
        if (first.num_layers, first.bidirectional, first.batch_first, first.proj_size) != (1, False, True, 0):
            raise ValueError("only an LSTM of one layer and one direction, batch first, can be stacked")
        for name, _ in first.named_parameters():
            self.register_parameter(name, _together(modules, name))

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """(M, B, T, d) to the states (M, B, T, h)."""
        bias = (self.bias_ih_l0 + self.bias_hh_l0)[:, None]
        gates = torch.baddbmm(bias, x.flatten(1, 2), self.weight_ih_l0.transpose(1, 2)).view(*x.shape[:3], -1)
        to_gates = self.weight_hh_l0.transpose(1, 2)
        states: list[Tensor] = []
        memory = h = None
        for at_step in gates.unbind(dim=2):
            u = at_step if h is None else torch.baddbmm(at_step, h, to_gates)
            entering, forget, candidate, leaving = u.chunk(4, dim=-1)
            new = entering.sigmoid() * candidate.tanh()
            memory = new if memory is None else torch.addcmul(new, forget.sigmoid(), memory)
            h = leaving.sigmoid() * memory.tanh()
            states.append(h)
        return torch.stack(states, dim=2), None
