"""Positions: counted from the last click, added to whatever states there are."""

import numpy as np
import torch

from graphmeta.nn.encoders.attention import Clicks
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.encoders.positions import Positions, clicks_left
from graphmeta.sampling.samples import sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import check_encoder

SESSIONS = [[3, 1, 3], [5], [2, 2, 7, 8]]


def test_places_count_from_the_end_and_the_farthest_share_one():
    batch = session_batch(sessions_without_target([np.array(s) for s in SESSIONS]), num_items=9)
    assert clicks_left(batch).tolist() == [2, 1, 0, 0, 3, 2, 1, 0]
    encoder, x = Positions(Clicks(), 4, longest=2), torch.randn(batch["item"].num_nodes, 4)
    added = encoder(x, batch) - x[batch["event"].item]
    torch.testing.assert_close(added, encoder.place.weight[[1, 1, 0, 0, 1, 1, 1, 0]])


def test_the_contract_holds_stacked():
    report = check_encoder(lambda width: Positions(GatedSessionGraph(width), width, longest=4), width=4)
    assert report.ok, report
    assert "falls back" not in str(report)
