"""Load a saved system: rebuild it from its build spec, then copy its weights.

A model file is validated before anything is built, and the system is first built on the meta device, without memory.
A build spec whose shapes differ from the weights, e.g. a huge one, is therefore refused at no cost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch_geometric.data import HeteroData

from graphmeta.build_spec import FORMAT, LIMITS, BuildSpec
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.inference.popularity import stored_events
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.published.registry import Published
from graphmeta.sampling.stored_histories import load_histories
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.storage import load_state
from graphmeta.storage.versions import whole_version
from graphmeta.system import System

# A relation's name in weights of hetero_gnn, in every format: it was renamed within format 6.
_CONTAINED_IN = re.compile(r"\bitem(_{2,3})tells\1session\b")
# A name in formats before 5.
_GRADIENT_SLOTS = re.compile(r"\badaptation\.start\.slopes\.")
# Names in formats before 5 (within format 4 some were renamed without a new format): systems, options, option values,
# and prefixes of weight names.
_SYSTEMS = {"second_look": "reranker"}
_OPTIONS = {"extras": "score_terms", "phases": "rounds"}
_VALUES = {"restart_from": {"hat": "retrained"}}
_TERMS = {"returns": "repeat_bias", "kin": "same_category", "evidence": "cooccurrence", "second_look": "reranker"}
_PARTS = re.compile(r"\bhead([./])extras\1(returns|kin|evidence|second_look)(?=[./_])")
# Renamed submodules of published systems, by the segment of a weight's name (after ``_PARTS``).
_SEGMENTS = {"ask": "query", "weigh": "score", "around": "context", "ago": "recency", "often": "frequency"}
_SEGMENTS |= {"readout.person": "readout.user", "reranker.forth": "reranker.next_share"}
_SEGMENTS |= {"reranker.back": "reranker.previous_share", "reranker.known": "reranker.item_statistics"}
_SEGMENT = re.compile(r"(?<=[./])(" + "|".join(map(re.escape, _SEGMENTS)) + r")(?=[./]|$)")


@dataclass(frozen=True)
class Document:
    """The validated content of a model file; ``place`` is the folder, for error messages."""

    place: str
    items: EntityTable
    users: EntityTable | None
    spec: BuildSpec | None
    limits: dict[str, int]
    notes: dict[str, Any]


def load(
    folder: str | Path,
    *,
    build: Callable[[EntityTable], System] | None = None,
    graph: EventLog | HeteroData | None = None,
) -> System:
    """Load the current version written by :meth:`System.save <graphmeta.system.System.save>`, in eval mode; runs no
    code from the folder.

    Args:
        build: makes the untrained system from the items; required only for a system that is not in the catalogue.
        graph: the log, or its graph, that the system's encoder reads, with its users' sessions: models are saved
            without; see :meth:`System.attach_graph <graphmeta.system.System.attach_graph>`.

    Raises:
        InputError: a file that is missing, damaged, modified, or of another system, or a graph for a system that reads
            none.
    """
    return whole_version(folder, partial(_load, build=build, graph=graph))


def _load(
    folder: Path, *, build: Callable[[EntityTable], System] | None, graph: EventLog | HeteroData | None
) -> System:
    """The system of one version."""
    with torch.inference_mode(False):  # weights must be trainable even if loaded in inference mode
        tensors, stored = load_state(folder, "model")
        document = read_document(stored, str(folder))
        tensors = {_CONTAINED_IN.sub(r"item\1contained_in\1session", k): v for k, v in tensors.items()}
        if stored["format"] < 5:
            tensors = {_GRADIENT_SLOTS.sub("adaptation.start.gradient_slots.", k): v for k, v in tensors.items()}
            tensors = {_weight_name(k, published=document.spec is not None): v for k, v in tensors.items()}
        if build is None:
            system = rebuilt(document, tensors)
        else:
            with _OwnGenerators():
                system = build(document.items)
        load_weights(system, tensors, str(folder))
    system.notes = document.notes
    system.events = stored_events(stored.get("events"), folder, system.items)
    system.histories = load_histories(folder, system.items) if system.reads_history else None
    for name, limit in document.limits.items():
        setattr(system, name, limit)
    if graph is not None:
        give_graph(system, graph)
    return system.eval()


def give_graph(system: System, graph: EventLog | HeteroData) -> None:
    """Let a system read a log or its graph, its users' sessions together with those that the system has.

    Raises:
        InputError: see :meth:`System.attach_graph <graphmeta.system.System.attach_graph>`.
    """
    stored = system.histories
    system.attach_graph(graph)
    if stored is not None and system.histories is not None and system.histories is not stored:
        system.histories = UserHistories.together(stored, system.histories.log())[0]


def read_document(stored: Any, place: str) -> Document:
    """Validate and parse the content of a model file.

    Raises:
        InputError: an unknown format version, or invalid content.
    """
    if not isinstance(stored, dict) or stored.get("format") not in range(1, FORMAT + 1):
        found = stored.get("format") if isinstance(stored, dict) else None
        raise InputError(f"{place}: unknown format {found!r}; update graphmeta")
    users, limits, notes = stored.get("users"), stored.get("limits", {}), stored.get("notes")
    counts = isinstance(limits, dict) and all(k in LIMITS and _is_count(v) for k, v in limits.items())
    if not counts or not isinstance(notes, dict):
        raise InputError(f"{place}: its {'notes are' if counts else 'limits are'} damaged; restore it from a copy")
    try:
        items, user_table = _table(stored["items"]), None if users is None else _table(users)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
        raise InputError(f"{place}: its items or users are damaged; restore it from a copy") from None
    spec = _spec(stored.get("recipe" if stored["format"] < 6 else "spec"), place)
    if spec is not None and stored["format"] < 5:
        arguments, name = _renamed(spec.arguments), _SYSTEMS.get(spec.name, spec.name)
        if name.startswith("cbml"):  # "attributes" was an option, and is cbml_f
            name = name if arguments.pop("attributes", True) else "cbml_f"
        spec = BuildSpec(spec.family, name, arguments)
    former = None if spec is None else _former(spec.name, spec.arguments)
    if former is not None:
        raise InputError(
            f"{place}: saved by an earlier version of the library, whose {former} was another model; fit it again"
        )
    return Document(place, items, user_table, spec, limits, notes)


def _weight_name(name: str, *, published: bool) -> str:
    """The current name of a weight saved in a format before 5."""
    name = _PARTS.sub(lambda old: f"head{old[1]}score_terms{old[1]}{_TERMS[old[2]]}", name)
    return _SEGMENT.sub(lambda old: _SEGMENTS[old[1]], name) if published else name


def _renamed(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a build spec of a format before 5 under their current names."""
    found = {_OPTIONS.get(name, name): value for name, value in arguments.items()}
    found |= {name: new.get(found[name], found[name]) for name, new in _VALUES.items() if name in found}
    if isinstance(found.get("score_terms"), list):
        found["score_terms"] = [_TERMS.get(str(term), term) for term in found["score_terms"]]
    if isinstance(found.get("options"), dict):
        found["options"] = _renamed(found["options"])
    if isinstance(found.get("base"), str):
        found["base"] = _SYSTEMS.get(found["base"], found["base"])
    return found


def _former(name: Any, arguments: Any) -> str | None:
    """The system that it is, or wraps, of which an earlier version of the library had another model.

    ``global_gnn`` was not GCE-GNN (``item_dropout`` is); ``wavenet`` had options for ungated convolutions.
    """
    if not isinstance(arguments, dict):
        return None
    if (name == "global_gnn" and "item_dropout" not in arguments) or (name == "wavenet" and "gated" in arguments):
        return str(name)
    return _former(arguments["base"], arguments.get("options")) if "base" in arguments else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _spec(stored: Any, place: str) -> BuildSpec | None:
    if stored is None:
        return None
    kinds = {"family": str, "name": str, "arguments": dict}
    if not isinstance(stored, dict) or any(not isinstance(stored.get(key), kind) for key, kind in kinds.items()):
        raise InputError(f"{place}: its build spec is damaged; restore it from a copy")
    return BuildSpec(**{key: stored[key] for key in kinds})


def _table(stored: Any) -> EntityTable:
    """Parse a table.

    Raises:
        ValueError: codes without a value, columns of different length, ids that are neither numbers nor strings.
    """
    table = EntityTable.from_json(stored)
    valid = table.ids.ndim == 1 and all(isinstance(i, int | str) for i in stored["ids"])
    valid &= table.labels is None or table.labels.shape == table.ids.shape
    valid &= all(one.is_consistent(len(table)) for one in table.columns.values())
    if not valid:
        raise ValueError("a damaged table")
    return table


def rebuilt(document: Document, tensors: Mapping[str, Tensor]) -> System:
    """The untrained system of the build spec, built at full size only if its shapes match the weights.

    Raises:
        InputError: no build spec, a build spec that this version cannot build, or weights of another system.
    """
    entry, arguments = _entry(document)
    build = partial(entry.build, document.items, users=document.users, **arguments)
    try:
        entry.check_types(arguments)
        skeleton = _without_memory(build, tensors)
    except InputError as error:
        raise InputError(f"{document.place}: {error}") from None
    except Exception as error:  # any error that invalid numbers in a build spec can cause
        raise InputError(f"{document.place}: its build spec builds no system ({_line(error)})") from None
    load_weights(skeleton, {name: tensor.to("meta") for name, tensor in tensors.items()}, document.place)
    with _OwnGenerators():
        return build()


def load_weights(system: System, tensors: Mapping[str, Tensor], place: str) -> None:
    """Copy the weights into the system.

    Raises:
        InputError: weights of another system.
    """
    try:
        system.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise InputError(f"{place}: the weights do not fit the system ({_line(error)})") from None


def _line(error: Exception) -> str:
    """The last line of an error, truncated."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
    return line if len(line) <= 160 else f"{line[:160]}…"


def _entry(document: Document) -> tuple[Published, dict[str, Any]]:
    """The catalogue row of the build spec, and its arguments."""
    spec, place = document.spec, document.place
    if spec is None:
        raise InputError(f"{place}: a custom system; pass build=, the function that makes it from the items (--build)")
    entry = CATALOGUE.get(spec.name)
    if entry is None:
        raise InputError(f"{place}: the system {spec.name!r} is not in this version's catalogue; update graphmeta")
    return entry, spec.arguments


class _OwnGenerators(TorchFunctionMode):
    """Within it, random numbers come from separate generators, so loading does not affect a concurrent training."""

    def __init__(self) -> None:
        super().__init__()
        self.generators: dict[str, torch.Generator] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _RANDOM and kwargs.get("generator") is None:
            filled = name.endswith("_")  # in place, or a new tensor
            place = (args[0] if args else kwargs["tensor"]).device if filled else kwargs.get("device")
            device = torch.device(torch.get_default_device() if place is None else place)
            if device.type != "meta":
                own = self.generators.setdefault(str(device), torch.Generator(device))
                kwargs = {**kwargs, "generator": own}
        return func(*args, **kwargs)


_RANDOM = frozenset(
    {
        "uniform_", "normal_", "random_", "exponential_", "bernoulli_", "log_normal_", "cauchy_", "geometric_",
        "kaiming_uniform_", "rand", "randn", "randint", "randperm", "multinomial", "bernoulli",
    }
)  # fmt: skip


class _Budget(TorchFunctionMode):
    """Limits the number of torch calls: stops build specs with absurdly many layers, which cost time even on the meta
    device.
    """

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls -= 1
        if self.calls < 0:
            raise InputError("the build spec is of a far larger system than the weights; restore it from a copy")
        return func(*args, **(kwargs or {}))


def _without_memory(build: Callable[[], System], tensors: Mapping[str, Tensor]) -> System:
    """The system on the meta device: names and shapes only; uses no random numbers."""
    with torch.device("meta"), _Budget(10_000 + 100 * len(tensors)):
        return build()
