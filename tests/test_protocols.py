"""Protocols whose members are submodules or parameters, which ``inspect.getattr_static`` does not find."""

from torch import nn

from graphmeta.nn import Dot, ItemFeatures, Last
from graphmeta.protocols import CatalogueLoss, EmbeddingTable, HasReadout, ProductHead, ProjectedHead, TiedItems
from graphmeta.protocols.members import has_members


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
