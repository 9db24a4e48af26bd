"""A per-call copy ("twin") of a module: modules are copied shallowly, weights are shared.

A call with other weights, or in another mode, must not modify the called module, also with concurrent threads. The
call therefore uses a twin: each module is copied shallowly, parameters and buffers are shared, and task-specific
weights are set in the twin. Nothing is swapped and restored. Modules registered twice stay one module, tied weights
one weight. A twin costs microseconds per module and no memory for weights.

Attributes are followed: lists, dictionaries, deques, partial functions, bound methods, closures and default arguments,
weak references, hooks, and objects of any kind with attributes. Containers are copied once per twin, so that what
forward stores in them is local to the call. Compiled modules are replaced by their originals, since a compiled graph
has no second derivative. Scripted modules are not copied. Other references (globals, class attributes, C objects,
deeply nested lists) point to the originals: reading one of these instead of a task's own weight raises an error with
its name (:class:`~graphmeta.adapt.stacked.guard.Guard`).

In training, what forward assigns to its module is copied back: replaced buffers, and numbers (a counter, an annealed
temperature). Tensors in plain attributes are not.
"""

from __future__ import annotations

import copy
import functools
import types
import weakref
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from graphmeta.adapt.stacked.guard import Guard
from graphmeta.adapt.stacked.notes import address
from graphmeta.errors import InputError

_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size, type, range, slice)
_EXACT = frozenset(_PLAIN)
_TENSORS = ("_parameters", "_buffers", "_modules")
# Containers that every module has: hooks, and the names of buffers that are not saved.
_HOOKS = frozenset(name for name, value in nn.Module().__dict__.items() if isinstance(value, (dict, set)))
_HOOKS -= frozenset(_TENSORS)
_RECURRENT = ("_flat_weights", "_flat_weight_refs")  # cached weights of nn.RNN, rebuilt by put()
_DEPTH = 8
# Objects of these packages hold no modules, and may be large.
_OPAQUE = frozenset({"numpy", "pandas", "torch", "_thread", "threading", "logging", "re", "pathlib", "collections.abc"})


class Snapshot:
    """The buffers and numbers of a module before a call, which may change them in training.

    Args:
        written: the names of the buffers that calls write into; None if not known yet (all are copied).
    """

    def __init__(self, module: nn.Module, written: set[str] | None) -> None:
        self._of = [(part, dict(part._buffers), _numbers_of(part)) for part in module.modules() if part.training]
        dense = {n: b for n, b in module.named_buffers() if b.layout == torch.strided} if module.training else {}
        self._buffers = {name: (buffer, buffer._version) for name, buffer in dense.items()}
        wanted = self._buffers if written is None else self._buffers.keys() & written
        self._values = {name: self._buffers[name][0].clone() for name in wanted}
        self._known = set() if written is None else written

    def written_buffers(self) -> set[str]:
        """The names of the buffers that calls write into (batch norm does so without a new version)."""
        found = {name for name, (buffer, version) in self._buffers.items() if buffer._version != version}
        unsure = self._values.keys() - found - self._known
        return self._known | found | {n for n in unsure if not torch.equal(self._buffers[n][0], self._values[n])}

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the snapshot."""
        for name, value in self._values.items():
            self._buffers[name][0].copy_(value)
        for part, buffers, numbers in self._of:
            part._buffers.update(buffers)
            for name in _numbers_of(part).keys() - numbers.keys():
                del part.__dict__[name]
            part.__dict__.update(numbers)


def _numbers_of(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in module.__dict__.items() if type(value) in _EXACT}


class Twin:
    """The twin of a module for one call.

    Args:
        module: the called module.
        training: the mode of the twin; if not given, that of each module.
        detached_views: whether the weights are new tensors over the same memory, so that in-place updates by a
            concurrent training do not invalidate autograd of this call; if not, the parameters themselves.
        constant: whether the parameters are constants (tensors over the same memory, without gradients); those that
            :meth:`put` sets are as given.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        training: bool | None = None,
        detached_views: bool = False,
        constant: bool = False,
    ) -> None:
        self._memo: dict[int, Any] = {}
        self._training, self._detached_views, self._constant = training, detached_views, constant
        self._pairs: list[tuple[nn.Module, nn.Module]] = []
        self._kept: list[Any] = []
        self._held_outside_modules: set[int] = set()
        self._buffers: list[tuple[dict[str, Any], dict[str, Any], str, Tensor]] = []
        self.places: dict[int, list[tuple[dict[str, Any], str]]] = {}  # of each parameter and buffer, by its id
        self.recurrent: list[nn.RNNBase] = []
        self.memory: set[int] = set()
        self.parameters: set[int] = set()  # addresses of the memory of parameters
        self.original = module
        self.module: nn.Module = self._module(module)
        self._attributes()

    def of(self, module: nn.Module) -> nn.Module:
        """The twin of another module (a loss), which shares submodules with this twin."""
        begin = len(self._pairs)
        twin = self._module(module)
        self._pairs, before = self._pairs[begin:], self._pairs[:begin]
        self._attributes()
        self._pairs = before + self._pairs
        return twin

    @property
    def has_gradient_hooks(self) -> bool:
        """Whether a module sees the gradients that reach it."""
        return any(part._backward_hooks or part._backward_pre_hooks for part in self.module.modules())

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Set the parameters or buffers of these names, wherever they are registered."""
        for name, weight in weights.items():
            own = _named(self.original, name)
            if id(own) in self._held_outside_modules:
                raise InputError(
                    f"{name} is also held in a list or a closure, where it cannot be replaced per task; read it "
                    f"from its module"
                )
            for entries, key in self.places[id(own)]:
                entries[key] = weight
                self._buffers = [kept for kept in self._buffers if kept[1] is not entries or kept[2] != key]
        for part in self.recurrent:
            names = part._flat_weights_names
            part.__dict__["_flat_weights"] = [part._parameters.get(name) for name in names]

    def watch(self, guard: Guard, weights: Mapping[str, Tensor]) -> None:
        """Register with a guard the originals of these weights, and the tensors that must not be written."""
        originals = {name: _named(self.original, name) for name in weights}
        replaced = {id(own) for own in originals.values()}
        guard.replaced = {own.data_ptr(): name for name, own in originals.items()}
        guard.shared_parameters = frozenset(self.places.keys() - replaced)
        plain = (w for w in weights.values() if type(w) in (Tensor, nn.Parameter))
        guard.parameters = self.parameters | {address(w) for w in plain if address(w) > 0}

    def assigned(self) -> list[tuple[dict[str, Any], str, Tensor]]:
        """The buffers that the twin has replaced: the original's entries, the name and the new value of each."""
        found = [(original, name, own.get(name), shared) for original, own, name, shared in self._buffers]
        return [(entries, name, x) for entries, name, x, shared in found if x is not shared and isinstance(x, Tensor)]

    def name_of(self, entries: dict[str, Any], name: str) -> str:
        """The full name of a buffer among these entries of the original."""
        parts = self.original.named_modules()
        return next((f"{prefix}.{name}" for prefix, part in parts if prefix and part._buffers is entries), name)

    def hand_back(self) -> None:
        """Copy back the buffers and numbers that the twin has assigned in training."""
        for entries, name, found in self.assigned():
            entries[name] = found.detach()
        for module, twin in self._pairs:
            for name, value in twin.__dict__.items():
                if type(value) in _EXACT and name != "training" and getattr(module, name, None) is not value:
                    module.__dict__[name] = value

    def _module(self, module: nn.Module) -> nn.Module:
        found = self._memo.get(id(module))
        if found is not None:
            return found
        inner = module._modules.get("_orig_mod")
        if inner is not None and type(module).__name__ == "OptimizedModule":
            self._memo[id(module)] = twin = self._module(inner)
            if twin is not inner:  # a scripted module is not copied
                twin.__class__ = _uncompiled(type(twin))
            return twin
        if isinstance(module, torch.jit.ScriptModule):
            self._memo[id(module)] = module
            return module
        twin = object.__new__(_uncached(type(module)) if "parametrizations" in module._modules else type(module))
        self._memo[id(module)] = twin
        entries = dict(module.__dict__)
        entries.pop("_compiled_call_impl", None)
        object.__setattr__(twin, "__dict__", entries)
        parameters: Any = module._parameters
        entries["_parameters"] = self._tensors(parameters)
        entries["_buffers"] = self._tensors(module._buffers)
        entries["_modules"] = {n: None if part is None else self._module(part) for n, part in module._modules.items()}
        self._pairs.append((module, twin))
        if self._training is not None:
            entries["training"] = self._training
        if isinstance(module, nn.RNNBase):
            self.recurrent.append(twin)  # pyright: ignore[reportArgumentType]
        return twin

    def _attributes(self) -> None:
        """Follow the attributes of the modules, once all of these have their twins."""
        for module, twin in self._pairs:
            shared = getattr(type(module), "shared_with_twins", ())
            shared += _RECURRENT if isinstance(module, nn.RNNBase) else ()
            entries = twin.__dict__
            for name, value in module.__dict__.items():
                kind = type(value)
                if kind in _EXACT or name in _TENSORS or name in shared:
                    continue
                # A hook that forward registers is local to the call.
                entries[name] = kind() if name in _HOOKS and not value else self._value(value)
            for name in _slots_of_kind(type(module)):
                if hasattr(module, name):
                    object.__setattr__(twin, name, self._value(getattr(module, name)))

    def _tensors(self, named: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        own: dict[str, Tensor | None] = {}
        for name, tensor in named.items():
            if tensor is None:
                own[name] = None
            else:
                if not is_lazy(tensor) and address(tensor) > 0:  # sparse and empty ones have no memory of their own
                    self.memory.add(address(tensor))
                    if isinstance(tensor, nn.Parameter):
                        self.parameters.add(address(tensor))
                self.places.setdefault(id(tensor), []).append((own, name))
                own[name] = shared = self._shared(tensor)
                if not isinstance(tensor, nn.Parameter):
                    self._buffers.append((named, own, name, shared))
        return own

    def _shared(self, tensor: Tensor) -> Tensor:
        """The twin's tensor: a parameter itself or a new tensor over its memory; for a buffer always a new tensor, so
        that notes on it are local to the call."""
        if not isinstance(tensor, nn.Parameter):
            if tensor.layout != torch.strided:
                return tensor.detach()
            return tensor.data if self._detached_views else tensor.view_as(tensor)
        if not self._detached_views and not self._constant:
            return tensor
        key = id(tensor)
        found = self._memo.get(key)
        if found is None:
            found = tensor.detach() if self._constant else nn.Parameter(tensor.data, requires_grad=tensor.requires_grad)
            self._memo[key] = found
        return found

    def _value(self, value: Any, depth: int = _DEPTH) -> Any:
        """An attribute, with all modules in it replaced by their twins."""
        if type(value) in _EXACT or isinstance(value, _PLAIN):
            return value
        if isinstance(value, nn.Module):
            new = id(value) not in self._memo
            twin = self._module(value)
            if new and self._pairs and self._pairs[-1][0] is value:  # held by an attribute, not registered
                for name, held in value.__dict__.items():
                    if name not in _TENSORS and not isinstance(held, _PLAIN):
                        twin.__dict__[name] = self._value(held, depth - 1) if depth else held
            return twin
        if isinstance(value, Tensor):
            return self._tensor(value)
        if depth == 0:
            return value
        if id(value) not in self._memo:
            self._kept.append(value)  # kept alive, so that its id is not reused
            self._memo[id(value)] = value  # for self-references
            self._memo[id(value)] = self._object(value, depth - 1)
        return self._memo[id(value)]

    def _tensor(self, value: Tensor) -> Tensor:
        """A tensor that is a plain attribute: a constant of the module, or a parameter held twice."""
        if id(value) in self.places and isinstance(value, nn.Parameter):
            self._held_outside_modules.add(id(value))
            return self._shared(value)
        if not is_lazy(value) and value.layout == torch.strided:
            self.memory.add(value.untyped_storage().data_ptr())
        return value

    def _object(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return self._mapping(value, depth)
        if isinstance(value, (list, set, deque)):
            made = copy.copy(value)
            self._memo[id(value)] = made
            parts = [self._value(one, depth) for one in value]
            made.clear()
            made.update(parts) if isinstance(made, set) else made.extend(parts)
            return made
        if isinstance(value, (tuple, frozenset)):
            parts = [self._value(one, depth) for one in value]
            same = all(one is other for one, other in zip(parts, value, strict=True))
            return value if same else type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        if isinstance(value, types.MappingProxyType):
            return types.MappingProxyType({k: self._value(one, depth) for k, one in value.items()})
        if isinstance(value, (type({}.values()), type({}.keys()))):
            return [self._value(one, depth) for one in value]
        if isinstance(value, (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)):
            return type(value)((self._value(key, depth), self._value(one, depth)) for key, one in value.items())
        if isinstance(value, weakref.ref):
            target = value()
            return value if target is None else weakref.ref(self._value(target, depth))
        if isinstance(value, (types.MethodType, partial, types.FunctionType, functools._lru_cache_wrapper)):
            return self._callable(value, depth)
        return self._holder(value, depth)

    def _mapping(self, value: dict[Any, Any], depth: int) -> dict[Any, Any]:
        made = {} if type(value) is dict else copy.copy(value)
        self._memo[id(value)] = made
        pairs = [(self._value(key, depth), self._value(one, depth)) for key, one in value.items()]
        made.clear()
        made.update(pairs)
        return made

    def _callable(self, value: Any, depth: int) -> Any:
        if isinstance(value, types.MethodType):
            owner = self._value(value.__self__, depth)
            return value if owner is value.__self__ else types.MethodType(value.__func__, owner)
        if isinstance(value, partial):
            func, args, options = (self._value(part, depth) for part in (value.func, value.args, value.keywords))
            return partial(func, *args, **options)
        if isinstance(value, functools._lru_cache_wrapper):
            inner = self._value(value.__wrapped__, depth)
            return value if inner is value.__wrapped__ else functools.lru_cache(**value.cache_parameters())(inner)
        return self._closure(value, depth)

    def _closure(self, function: types.FunctionType, depth: int) -> Any:
        cells = function.__closure__ or ()
        made = []
        for cell in cells:
            try:
                content = cell.cell_contents
            except ValueError:  # an empty cell
                made.append(cell)
                continue
            own = self._value(content, depth)
            made.append(cell if own is content else types.CellType(own))
        defaults, keywords = (self._value(part, depth) for part in (function.__defaults__, function.__kwdefaults__))
        same = all(one is other for one, other in zip(made, cells, strict=True))
        if same and defaults is function.__defaults__ and keywords == function.__kwdefaults__:
            return function
        twin = types.FunctionType(function.__code__, function.__globals__, function.__name__, defaults, tuple(made))
        twin.__kwdefaults__ = keywords
        twin.__dict__.update(function.__dict__)
        return twin

    def _holder(self, value: Any, depth: int) -> Any:
        """An object with attributes, copied shallowly if any of them contains a module, else unchanged."""
        kind = type(value)
        if kind.__module__.split(".")[0] in _OPAQUE or isinstance(value, (types.ModuleType, types.BuiltinFunctionType)):
            return value
        held = {
            **getattr(value, "__dict__", {}),
            **{n: getattr(value, n) for n in _slots_of(value) if hasattr(value, n)},
        }
        made = {name: self._value(one, depth) for name, one in held.items() if not isinstance(one, _PLAIN)}
        if not any(self._leads(one, held[name]) for name, one in made.items()):
            return value
        try:
            twin = copy.copy(value)
            for name, one in made.items():
                object.__setattr__(twin, name, one)
        except Exception as error:
            raise InputError(
                f"{kind.__name__} holds a module and cannot be copied ({error}); register the module where it is used"
            ) from error
        return twin

    def _leads(self, made: Any, value: Any) -> bool:
        """Whether an attribute contains a module; in a copied container, at least one entry was then replaced."""
        if made is value:
            return False
        if isinstance(value, (list, set, deque)):
            return any(one is not other for one, other in zip(made, value, strict=True))
        if isinstance(value, dict):
            return any(one is not other for one, other in zip(made.values(), value.values(), strict=True))
        return True


def _uncached(kind: type) -> type:
    """A class whose parametrized weights are computed at each use.

    ``torch.nn.utils.parametrize.cached`` stores one value per module, which all twins would share.
    """
    found = vars(kind).get(_UNCACHED)  # kept with the class, which lives as long as its module
    if found is None:
        own = {name: one for name, one in vars(kind).items() if getattr(one, "fget", None) is not None}
        own = {n: _computed(n, one) for n, one in own.items() if one.fget.__name__ == "get_parametrized"}
        found = type(kind.__name__, (kind,), {**own, "__module__": kind.__module__}) if own else kind
        setattr(kind, _UNCACHED, found)
    return found


def _computed(name: str, found: property) -> property:
    return property(lambda self: self.parametrizations[name](), found.fset)


def _uncompiled(kind: type) -> type:
    """The class of a compiled module's original, with the names of the compiled module's parameters beside its own."""
    found = vars(kind).get(_UNCOMPILED)  # kept with the class, as in _uncached
    if found is None:
        own = {"_orig_mod": property(lambda self: self), "__module__": kind.__module__}
        found = type(kind.__name__, (kind,), own)
        setattr(kind, _UNCOMPILED, found)
    return found


_UNCACHED, _UNCOMPILED = "_graphmeta_uncached", "_graphmeta_uncompiled"


def _slots_of(value: Any) -> tuple[str, ...]:
    return _slots_of_kind(type(value))


def _slots_of_kind(kind: type) -> tuple[str, ...]:
    """The names of the slots of a class."""
    found = _SLOTS.get(kind)
    if found is not None:
        return found
    names: list[str] = []
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    _SLOTS[kind] = found = tuple(name for name in names if name not in ("__dict__", "__weakref__"))
    return found


_SLOTS: weakref.WeakKeyDictionary[type, tuple[str, ...]] = weakref.WeakKeyDictionary()  # a class may hold a module


def _named(module: nn.Module, name: str) -> Tensor:
    owner, _, own = name.rpartition(".")
    part = module
    for step in owner.split(".") if owner else ():
        inner = part._modules.get(step)
        part = part.get_submodule(step) if inner is None else inner
    found = part._parameters.get(own)
    found = part._buffers.get(own) if found is None else found
    if found is None:
        raise InputError(f"no parameter or buffer is called {name!r}")
    return found
