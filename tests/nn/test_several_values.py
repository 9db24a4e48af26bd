"""Attributes with several values per item: every system that reads attributes reads them, against loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import graphmeta as gm
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.nn.encoders.hetero import BACK, CONTAINED_IN, CONTAINS, MESSAGES, HeteroSession
from graphmeta.nn.features.attribute_sum import AttributeComposed
from graphmeta.nn.features.attributes import AttributeFeatures
from graphmeta.nn.features.tables import Table
from graphmeta.nn.score_terms.cooccurrence import NeighbourPairs
from graphmeta.nn.score_terms.reranker import Reranker
from graphmeta.nn.score_terms.same_category import SameCategory
from graphmeta.sampling.batch_rows import NEXT
from graphmeta.sampling.samples import prefixes
from graphmeta.sampling.session_batch import session_batch
from graphmeta.sampling.subgraph import SubgraphSampler
from graphmeta.testing import check_encoder, check_log

ITEMS = 23
VALUES = [["a", "b"][: n % 3] + [f"c{n % 5}"] * (n % 4 > 0) for n in range(ITEMS)]  # none to three per item


def log_of(values: list[list[str]] = VALUES) -> EventLog:
    random = np.random.default_rng(2)
    frame = pd.DataFrame({"s": np.repeat(np.arange(30), 5), "i": random.integers(0, ITEMS, 150)})
    frame.loc[: ITEMS - 1, "i"] = np.arange(ITEMS)  # every item, in order: its number is its id
    table = pd.DataFrame(
        {"i": np.arange(ITEMS), "tags": values, "kind": [f"k{n % 4}" if n % 6 else None for n in range(ITEMS)]}
    )
    return EventLog.read(
        frame, session="s", item="i", items=EntityTable.read(table, key="i", attributes=["kind"], several={"tags": "|"})
    )


LOG = log_of()
TAGS, KIND = LOG.items.several["tags"], LOG.items.attributes["kind"]


def codes_of(item: int) -> list[int]:
    """The values of an item; 0 is unknown."""
    return TAGS.codes[TAGS.ptr[item] : TAGS.ptr[item + 1]].tolist()


def test_composed_items_have_the_mean_of_their_values() -> None:
    torch.manual_seed(0)
    table = AttributeComposed(Table(ITEMS, 4), LOG.items.categories, drop=0.0).eval()
    torch.nn.init.normal_(table.weight)
    clicked = LOG.without(LOG.item > 14)
    table.fit_statistics(clicked)
    seen = {code for item in range(15) for code in codes_of(item)}
    kinds = {int(KIND.codes[item]) for item in range(15)}
    names = list(LOG.items.categories)
    first = dict(zip(names, (ITEMS, ITEMS + LOG.items.categories[names[0]].size), strict=True))
    for item in range(ITEMS):
        wanted = table.weight[item] * (item < 15)
        for code in codes_of(item):
            wanted = wanted + table.weight[first["tags"] + code] / len(codes_of(item)) * (code in seen)
        code = int(KIND.codes[item])
        wanted = wanted + table.weight[first["kind"] + code] * (code in kinds)
        torch.testing.assert_close(table(torch.tensor([item]))[0], wanted)
        torch.testing.assert_close(table.all_rows()[item], wanted)


def test_attribute_features_read_the_mean_of_the_values() -> None:
    torch.manual_seed(0)
    features = AttributeFeatures(ITEMS, 4, {"tags": TAGS})
    x, _ = features(torch.arange(ITEMS))
    table = features.fields.get_parameter("field_tags.weight")
    for item in range(ITEMS):
        wanted = torch.stack([table[code] for code in codes_of(item)]).mean(0)
        torch.testing.assert_close(x[item, 4:], wanted)


def test_same_category_adds_the_mean_over_the_candidates_values() -> None:
    term = SameCategory(TAGS).requires_grad_(False)
    torch.nn.init.normal_(term.recency.weight)
    samples = prefixes(LOG).take(slice(40, 70))
    row, column, value = term(session_batch(samples, num_items=ITEMS))
    found = torch.zeros(len(samples), ITEMS).index_put((row, column), value, accumulate=True)
    for sample in range(len(samples)):
        clicks = samples.item[samples.begin[sample] : samples.end[sample]].tolist()
        recency = {
            code: min(ago, 7)
            for ago, item in reversed(list(enumerate(reversed(clicks))))
            for code in codes_of(item)
            if code
        }
        for item in range(ITEMS):
            wanted = sum(float(term.recency.weight[recency[code], 0]) for code in codes_of(item) if code in recency)
            assert float(found[sample, item]) == pytest.approx(wanted / len(codes_of(item)), abs=1e-5)


def test_the_rerankers_category_features_are_means_over_the_values() -> None:
    reranker = Reranker(ITEMS, [KIND, TAGS])
    sample, item = torch.arange(3).repeat_interleave(ITEMS), torch.arange(ITEMS).repeat(3)
    nothing = torch.zeros(0, dtype=torch.int64)
    pairs = NeighbourPairs(sample, item, nothing, nothing, nothing)
    sessions = [[1, 5, 2], [3], [7, 4, 11, 8]]
    rows = torch.arange(3).repeat_interleave(torch.tensor([3, 1, 4])), torch.tensor(sum(sessions, []))
    last, distinct = torch.tensor([clicks[-1] for clicks in sessions]), torch.tensor([3, 1, 4])
    codes, shares = (table.split(reranker.widths, 1)[1] for table in (reranker.categories, reranker.shares))
    found = reranker._same_category((codes, shares), TAGS.size, pairs, rows, (last, distinct, None))
    for at, (one, candidate) in enumerate(zip(sample.tolist(), item.tolist(), strict=True)):
        clicks, own = sessions[one], codes_of(candidate)
        share = [sum(code in codes_of(click) for click in clicks) / len(clicks) * (code > 0) for code in own]
        common = [code > 0 and code in codes_of(clicks[-1]) for code in own]
        assert found[at].tolist() == pytest.approx([np.mean(share), np.mean(common)])


@pytest.mark.parametrize("name", MESSAGES)
def test_the_session_graph_has_a_node_per_sample_and_value(name: str) -> None:
    """The encoder on a graph that is built by loops, one row per value that occurs in a sample."""
    torch.manual_seed(0)
    encoder = HeteroSession(4, {"tags": TAGS}, messages=MESSAGES[name]).double().eval()
    samples = prefixes(LOG).take(slice(40, 60))
    batch = SubgraphSampler(LOG, **vars(encoder.neighbourhood))(samples)
    x = torch.randn(batch["item"].num_nodes, 4, dtype=torch.float64)
    nodes: dict[tuple, int] = {}
    has = []
    for row, (sample, item) in enumerate(zip(batch["item"].batch.tolist(), batch["item"].n_id.tolist(), strict=True)):
        for code in codes_of(item):
            key = (sample, code) if code else (sample, code, row)
            has.append((row, nodes.setdefault(key, len(nodes))))
    values = encoder.fields["field_tags"](torch.tensor([key[1] for key in nodes]))
    has, contains = torch.tensor(has).t(), torch.stack([batch["event"].batch, batch["event"].item])
    step = batch[NEXT].edge_index
    inward = {CONTAINED_IN: contains.flip(0), ("item", "has", "field_tags"): has}
    outward = {NEXT: step, BACK: step.flip(0), CONTAINS: contains, ("field_tags", "of", "item"): has.flip(0)}
    states = {"item": x, "session": encoder.mean(x[batch["event"].item], batch), "field_tags": values}
    wanted = encoder.rounds[0](states, (inward, outward))["item"][batch["event"].item]
    torch.testing.assert_close(encoder(x, batch), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mean", "attention"])
def test_the_encoder_keeps_its_contract(name: str) -> None:
    known = check_log().items.categories
    report = check_encoder(lambda width: HeteroSession(width, known, messages=MESSAGES[name]), width=4)
    assert report.ok and "supports every operation" in str(report), report


@pytest.mark.parametrize(
    "name", ["if_san", "cbml", "hetero_gnn", "meta_hin", "dropout_net", "reranker", "niser + same_category"]
)
def test_scores_change_with_the_values(name: str) -> None:
    """Every system with attributes reads the column: other values, other scores, the same weights."""
    other = log_of([values[1:] + ["c1"] for values in VALUES]).items
    found = []
    for items in (LOG.items, EntityTable(LOG.items.ids, {**LOG.items.columns, "tags": other.several["tags"]})):
        torch.manual_seed(0)
        base, *terms = name.split(" + ")
        options = {"score_terms": terms} if terms else {}
        system = gm.build(base, items.without("categorical"), width=4, **options)  # pyright: ignore[reportArgumentType]
        if name == "cbml":
            system = gm.build(name, items.without("categorical"), width=4, base="if_san")
        log = EventLog(LOG.session, LOG.item, LOG.time, LOG.sessions, items.without("categorical"))
        system.fit_statistics(log)
        torch.manual_seed(1)
        for weight in system.eval().parameters():
            weight.data = torch.randn(weight.shape) * 0.3
        found.append(system.scores(prefixes(LOG).take(slice(0, 10))))
    assert (found[0] - found[1]).abs().max() > 1e-4
