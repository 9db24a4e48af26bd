"""A module's twin for one call: modules of its own that share the memory of the weights.

A call with other weights, or in another mode, must leave no trace in the module that was called, whatever other threads
do with it at the same time. So the call goes to a twin: each module copied shallowly, parameters and buffers shared,
and weights put straight into the places of the twin. Nothing is swapped and put back, so nothing can be put back
wrongly: modules registered twice stay one module, tied weights one weight. A twin costs microseconds a module and no
memory of weights.

Lists, dictionaries, partial functions, bound methods and closures that hold modules are followed; an object of another
kind that holds one is copied shallowly too. Compiled modules are taken as what they were compiled from, since a
compiled graph has no second derivative. Scripted modules stay as they are.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from graphmeta.errors import InputError

# What nn.Module keeps of its own besides parameters, buffers and modules: hooks and settings, shared as they are.
_OWN = frozenset(nn.Module().__dict__)
_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size, type, range, slice)


class Twin:
    """The twin of a module for one call.

    Args:
        module: what is called.
        training: the mode of the twin; if not given, that of each module.
        apart: whether the weights are other tensors over the same memory, so that a training that writes into them
            meanwhile does not stop autograd from differentiating what was asked; if not, the parameters themselves.
    """

    def __init__(self, module: nn.Module, *, training: bool | None = None, apart: bool = False) -> None:
        self._memo: dict[int, Any] = {}
        self._training, self._apart = training, apart
        self._buffers: list[tuple[dict[str, Any], dict[str, Any], str, Tensor]] = []
        self.places: dict[int, list[tuple[dict[str, Any], str]]] = {}  # of each parameter and buffer, by its id
        self.recurrent: list[nn.RNNBase] = []
        self.memory: set[int] = set()
        self.original = module
        self.module: nn.Module = self._module(module)

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Put tensors into the places of the parameters or buffers of these names, wherever these are registered."""
        for name, weight in weights.items():
            for entries, key in self.places[id(_named(self.original, name))]:
                entries[key] = weight
                self._buffers = [own for own in self._buffers if own[1] is not entries or own[2] != key]
        for part in self.recurrent:
            names = part._flat_weights_names
            part.__dict__["_flat_weights"] = [part._parameters.get(name) for name in names]

    def hand_back(self) -> None:
        """Give the module the buffers that its twin has replaced in training (a running mean that is assigned)."""
        for original, own, name, shared in self._buffers:
            found = own[name]
            if found is not shared and isinstance(found, Tensor):
                original[name] = found.detach()

    def _module(self, module: nn.Module) -> nn.Module:
        found = self._memo.get(id(module))
        if found is not None:
            return found
        inner = module._modules.get("_orig_mod")
        if inner is not None and type(module).__name__ == "OptimizedModule":
            self._memo[id(module)] = twin = self._module(inner)
            return twin
        if isinstance(module, torch.jit.ScriptModule):
            self._memo[id(module)] = module
            return module
        twin = object.__new__(type(module))
        self._memo[id(module)] = twin
        entries = dict(module.__dict__)
        entries.pop("_compiled_call_impl", None)
        twin.__dict__ = entries
        entries["_parameters"] = self._tensors(module._parameters)  # pyright: ignore[reportArgumentType]
        entries["_buffers"] = self._tensors(module._buffers)
        entries["_modules"] = {
            name: None if part is None else self._module(part) for name, part in module._modules.items()
        }
        for name, value in module.__dict__.items():
            if (
                name not in _OWN
                and name not in ("_parameters", "_buffers", "_modules")
                and not isinstance(value, _PLAIN)
            ):
                entries[name] = self._value(value)
        if self._training is not None:
            entries["training"] = self._training
        if isinstance(module, nn.RNNBase):
            self.recurrent.append(twin)  # pyright: ignore[reportArgumentType]
        return twin

    def _tensors(self, named: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        own: dict[str, Tensor | None] = {}
        for name, tensor in named.items():
            if tensor is None:
                own[name] = None
            else:
                self.memory.add(tensor.untyped_storage().data_ptr())
                self.places.setdefault(id(tensor), []).append((own, name))
                own[name] = shared = self._shared(tensor)
                if not isinstance(tensor, nn.Parameter):
                    self._buffers.append((named, own, name, shared))
        return own

    def _shared(self, tensor: Tensor) -> Tensor:
        """The tensor for the twin: a parameter itself or another over its memory; of a buffer always another, so that
        what is noted on it stays in the call."""
        if not isinstance(tensor, nn.Parameter):
            return tensor.data if self._apart else tensor.view_as(tensor)
        if not self._apart:
            return tensor
        key = id(tensor)
        if key not in self._memo:
            self._memo[key] = nn.Parameter(tensor.data, requires_grad=tensor.requires_grad)
        return self._memo[key]

    def _value(self, value: Any, depth: int = 6) -> Any:
        """An attribute, with modules replaced by their twins wherever it holds some."""
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, nn.Module):
            return self._module(value)
        if depth == 0:
            return value
        if isinstance(value, Tensor):
            if not isinstance(value, nn.Parameter) or id(value) not in self.places:
                self.memory.add(value.untyped_storage().data_ptr())
            return value
        if id(value) in self._memo:
            return self._memo[id(value)]
        return self._object(value, depth - 1)

    def _object(self, value: Any, depth: int) -> Any:
        if isinstance(value, (list, tuple, set, frozenset)):
            made = [self._value(one, depth) for one in value]
            same = all(one is other for one, other in zip(made, value, strict=True))
            if same:
                return value
            return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
        if isinstance(value, dict):
            pairs = {key: self._value(one, depth) for key, one in value.items()}
            if all(one is value[key] for key, one in pairs.items()):
                return value
            changed = copy.copy(value)
            changed.update(pairs)
            return changed
        if isinstance(value, types.MethodType):
            owner = self._value(value.__self__, depth)
            return value if owner is value.__self__ else types.MethodType(value.__func__, owner)
        if isinstance(value, partial):
            func, args, options = (self._value(part, depth) for part in (value.func, value.args, value.keywords))
            same = func is value.func and args is value.args and options is value.keywords
            return value if same else partial(func, *args, **options)
        if isinstance(value, types.FunctionType):
            return self._closure(value, depth)
        return self._holder(value, depth)

    def _closure(self, function: types.FunctionType, depth: int) -> Any:
        cells = function.__closure__ or ()
        made = []
        for cell in cells:
            try:
                content = cell.cell_contents
            except ValueError:  # not filled yet
                made.append(cell)
                continue
            own = self._value(content, depth)
            made.append(cell if own is content else types.CellType(own))
        if all(one is other for one, other in zip(made, cells, strict=True)):
            return function
        twin = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, tuple(made)
        )
        twin.__kwdefaults__ = function.__kwdefaults__
        return twin

    def _holder(self, value: Any, depth: int) -> Any:
        """An object whose attributes hold a module, copied shallowly; any other object as it is."""
        held = getattr(value, "__dict__", None)
        if not held or depth == 0 or isinstance(value, (type, types.ModuleType)):
            return value
        if not any(isinstance(one, (nn.Module, nn.Parameter, list, tuple, dict)) for one in held.values()):
            return value
        made = {name: self._value(one, depth) for name, one in held.items()}
        if all(one is held[name] for name, one in made.items()):
            return value
        try:
            twin = copy.copy(value)
            twin.__dict__.update(made)
        except Exception as error:
            raise InputError(
                f"{type(value).__name__} holds a module and cannot be copied ({error}); register the module where it "
                f"is used"
            ) from error
        return twin


def _named(module: nn.Module, name: str) -> Tensor:
    owner, _, own = name.rpartition(".")
    part = module.get_submodule(owner)
    found = part._parameters.get(own)
    found = part._buffers.get(own) if found is None else found
    if found is None:
        raise InputError(f"no parameter or buffer is called {name!r}")
    return found
