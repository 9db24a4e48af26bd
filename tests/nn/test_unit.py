"""Unit vectors: lengths in training and out of it, and what is left alone."""

import torch

from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.features.unit_norm import UnitFeatures


def test_vectors_have_length_one_with_and_without_dropout():
    torch.manual_seed(0)
    inner = ItemFeatures(9, 16)
    features, n_id = UnitFeatures(inner, dropout=0.5), torch.arange(9)
    for training in (True, False):
        x, candidates = features.train(training)(n_id)
        torch.testing.assert_close(x.norm(dim=1), torch.ones(9))
        assert bool((x == 0).any()) == training
        assert candidates is inner.item.weight
    torch.testing.assert_close(x * inner.item.weight.norm(dim=1, keepdim=True), inner.item.weight)
