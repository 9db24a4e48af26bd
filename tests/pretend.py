"""A device that is not there: tensors that say they are on it, and are computed on the CPU.

What a machine without a GPU can find out about one with: an operation between tensors of two devices is refused, as a
GPU would (and indexing by tensors of the CPU, which it would copy); and all numbers are those of the CPU.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

if torch.cuda.is_available():  # of two accelerators PyTorch would take this one for everybody's
    pytest.skip("there is a GPU, which tests/gpu is about", allow_module_level=True)


class _Backend(_DummyBackendModule):
    """What PyTorch asks of any device; nothing is sampled on this one, so it has no generator to keep the state of."""

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


NAME = "pretend"
_setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
DEVICE = torch.device(f"{NAME}:0")
_CPU = torch.device("cpu")
Module = TypeVar("Module", bound=nn.Module)


class Pretended(Tensor):
    """A tensor of the device; ``inner`` holds its numbers."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    def __repr__(self) -> str:
        return f"Pretended({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def untyped_storage(self) -> Any:
        return self.inner.untyped_storage()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def tolist(self) -> Any:
        return self.cpu().tolist()


class Device(TorchDispatchMode):
    """Within it, tensors can be made on the device, and copied to it and back."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def moved(module: Module) -> Module:
    """The module's copy on the device."""
    made, memo = copy.deepcopy(module), {}
    for part in made.modules():
        for entries in (part._parameters, part._buffers):
            for name, tensor in entries.items():
                if tensor is not None and id(tensor) not in memo:
                    own = Pretended(tensor.detach())
                    own = nn.Parameter(own, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else own
                    memo[id(tensor)] = own, tensor
                entries[name] = None if tensor is None else memo[id(tensor)][0]
    return made


def numbers(x: Tensor) -> Tensor:
    """What a tensor of the device holds."""
    assert isinstance(x, Pretended), f"a tensor on {x.device}"
    return x.detach().inner


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name, there = func.overloadpacket.__name__, kwargs.get("device")
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    own = {id(x.inner): x for x in tensors if isinstance(x, Pretended)}
    if any(x.device.type == NAME and not isinstance(x, Pretended) for x in tensors):
        return func(*args, **kwargs)  # a tensor of another class, which answers for itself
    if own and name != "copy_" and any(x.device.type == "cpu" and x.dim() for x in tensors):
        raise RuntimeError(f"{func}: tensors of the CPU and of the device")
    target = tensors[0].device if tensors and there is None else torch.device(there or "cpu")
    if name != "_to_copy" and own:
        target = DEVICE
    if target.type == "cpu" and not own:
        return func(*args, **kwargs)
    plain, named = tree_map(lambda x: x.inner if isinstance(x, Pretended) else x, (args, kwargs))
    out = _KERNELS.get(name, func)(*plain, **(named | {"device": _CPU} if there is not None else named))
    if torch.Tag.inplace_view in func.tags:  # what says how it lies in memory has changed
        with no_dispatch():
            func(*args, **kwargs)
    if target.type == "cpu":
        return out
    return tree_map(lambda x: own[id(x)] if id(x) in own else Pretended(x) if isinstance(x, Tensor) else x, out)


def _gru_cell(x: Tensor, h: Tensor, state: Tensor, b_x: Tensor | None = None, b_h: Tensor | None = None) -> Any:
    """A kernel that PyTorch has for devices, and not for the CPU."""
    x, h = (x if b_x is None else x + b_x), (h if b_h is None else h + b_h)
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, 1), h.chunk(3, 1)
    reset, update = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    new = (xn + reset * hn).tanh()
    return new + update * (state - new), torch.cat([reset, update, new, state, hn], 1)


def _gru_cell_backward(slope: Tensor, kept: Tensor, biased: bool) -> Any:
    reset, update, new, state, hn = kept.chunk(5, 1)
    to_new = slope * (1 - update) * (1 - new * new)
    to_reset = to_new * hn * reset * (1 - reset)
    to_update = slope * (state - new) * update * (1 - update)
    to_x, to_h = torch.cat([to_reset, to_update, to_new], 1), torch.cat([to_reset, to_update, to_new * reset], 1)
    return to_x, to_h, slope * update, *((to_x.sum(0), to_h.sum(0)) if biased else (None, None))


def _lstm_cell(x: Tensor, h: Tensor, cell: Tensor, b_x: Tensor | None = None, b_h: Tensor | None = None) -> Any:
    x, h = (x if b_x is None else x + b_x), (h if b_h is None else h + b_h)
    i, f, g, o = (x + h).chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    new = f * cell + i * g
    return o * new.tanh(), new, torch.cat([i, f, g, o], 1)


def _lstm_cell_backward(
    slope: Tensor | None, of_cell: Tensor | None, before: Tensor, cell: Tensor, kept: Tensor, biased: bool
) -> Any:
    i, f, g, o = kept.chunk(4, 1)
    slope = torch.zeros_like(cell) if slope is None else slope
    to_cell = slope * o * (1 - cell.tanh() ** 2) + (0 if of_cell is None else of_cell)
    to_i, to_f = to_cell * g * i * (1 - i), to_cell * before * f * (1 - f)
    to_gates = torch.cat([to_i, to_f, to_cell * i * (1 - g * g), slope * cell.tanh() * o * (1 - o)], 1)
    return to_gates, to_cell * f, to_gates.sum(0) if biased else None


_KERNELS = {
    "_thnn_fused_gru_cell": _gru_cell,
    "_thnn_fused_gru_cell_backward": _gru_cell_backward,
    "_thnn_fused_lstm_cell": _lstm_cell,
    "_thnn_fused_lstm_cell_backward_impl": _lstm_cell_backward,
}
