"""Protocols whose members are submodules or parameters, which ``inspect.getattr_static`` does not find."""

import importlib
import inspect
import pkgutil

import pytest
from torch import nn

import graphmeta
from graphmeta.nn import Dot, ItemFeatures, Last
from graphmeta.protocols import CatalogueLoss, EmbeddingTable, HasReadout, ProductHead, ProjectedHead, TiedItems
from graphmeta.protocols.members import ReadsMembers, has_members
from graphmeta.published.catalogue import build
from graphmeta.testing import fake_log


def test_submodules_and_parameters_are_members() -> None:
    head, features = Dot(Last()), ItemFeatures(3, 2)
    assert isinstance(head, ProductHead) and isinstance(head, ProjectedHead) and isinstance(head, HasReadout)
    assert isinstance(features, TiedItems) and isinstance(features.item, EmbeddingTable)
    assert not isinstance(features, ProductHead) and not isinstance(nn.Linear(1, 1), EmbeddingTable)


def test_members_are_looked_up_as_attributes() -> None:
    """What ``isinstance`` does from Python 3.12 on, where its own look-up fails."""
    table = ItemFeatures(3, 2).item
    assert has_members(table, EmbeddingTable, ["weight", "all_rows"])
    assert not has_members(nn.Linear(1, 1), EmbeddingTable, ["weight", "all_rows"])


def test_a_method_that_is_none_is_no_member() -> None:
    class Changed(Dot):
        cross_entropy = None

    assert has_members(Dot(Last()), CatalogueLoss, ["cross_entropy"])
    assert not has_members(Changed(Last()), CatalogueLoss, ["cross_entropy"])


def test_a_class_that_inherits_from_a_protocol_is_checked_by_its_name() -> None:
    class Own(nn.Module, HasReadout):
        pass

    assert not isinstance(Dot(Last()), Own) and isinstance(Own(), Own)


PROTOCOLS = sorted(
    {
        one
        for found in pkgutil.walk_packages(graphmeta.__path__, "graphmeta.")
        for one in vars(importlib.import_module(found.name)).values()
        if inspect.isclass(one) and one.__module__.startswith("graphmeta") and vars(one).get("_is_runtime_protocol")
    },
    key=lambda one: one.__name__,
)


@pytest.fixture(scope="module")
def parts():
    log = fake_log(sessions=20)
    systems = [build(name, log.items, width=4) for name in ("niser", "mamo", "personal_reranker", "meta_hin")]
    return [log, log.items, *systems, *(part for system in systems for part in system.modules())]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda one: one.__name__)
def test_an_object_is_of_a_protocol_if_it_has_every_member(protocol, parts):
    assert type(protocol) is ReadsMembers
    bases = [base for base in protocol.__mro__ if base.__module__.startswith("graphmeta")]
    names = {name for base in bases for name in (*vars(base), *vars(base).get("__annotations__", {}))}
    names = {name for name in names if not name.startswith(("_abc", "__")) and name[:4] not in ("_is_", "_non")}
    assert names
    for part in parts:
        values = [getattr(part, name, Ellipsis) for name in names]
        methods = [callable(getattr(protocol, name, None)) for name in names]
        has = not any(v is Ellipsis or (v is None and m) for v, m in zip(values, methods, strict=True))
        assert isinstance(part, protocol) == has, (type(part), names)
