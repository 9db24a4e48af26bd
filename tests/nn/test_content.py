"""Content vectors against a loop over rows and values."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import HeteroData

from graphmeta.data.column_types.numeric import Numeric
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.features.content import Content, ContentFeatures, UserContent
from graphmeta.published.catalogue import build
from graphmeta.published.load import load
from graphmeta.sampling.few_shot import RandomQueries
from graphmeta.testing import fake_ratings

pytestmark = pytest.mark.usefixtures("float64")

MOVIES = pd.DataFrame({"i": [1, 2, 3], "rate": ["G", None, "R"], "genre": ["a|b", None, "c|a|b"]})
TABLE = EntityTable.read(MOVIES, key="i", several={"genre": "|"})


def by_hand(content: Content, table: EntityTable, row: int) -> torch.Tensor:
    """The fields of one row, value by value; row -1 knows nothing."""
    parts = []
    for name, column in {**table.attributes, **table.several}.items():
        if name in table.several:
            codes = column.codes[column.ptr[row] : column.ptr[row + 1]] if row >= 0 else [0]
        else:
            codes = [column.codes[row] if row >= 0 else 0]
        field = content.fields[f"field_{name}"]
        vectors = [field.table.weight[c] if field.seen[c] else torch.zeros(content.width // 2) for c in codes]
        parts.append(sum(vectors) / len(vectors))
    return torch.cat(parts)


def test_a_field_is_the_mean_of_its_values() -> None:
    content = Content(TABLE, 3)
    rows = torch.tensor([2, -1, 0, 1, 2])
    torch.testing.assert_close(content(rows), torch.stack([by_hand(content, TABLE, int(r)) for r in rows]))
    assert content(rows[:0]).shape == (0, 6)


def test_values_that_training_never_saw_are_zeros() -> None:
    content = Content(TABLE, 3)
    content.fit_rows(np.array([0, 0]))
    assert content.fields["field_genre"].seen.tolist() == [False, True, True, False]
    rows = torch.tensor([0, 1, 2, -1])
    torch.testing.assert_close(content(rows), torch.stack([by_hand(content, TABLE, int(r)) for r in rows]))
    assert not content(rows)[1].any()


MIXED = EntityTable.read(
    pd.DataFrame(
        {
            "i": [1, 2, 3, 4],
            "rate": ["G", None, "R", "G"],
            "price": [1.0, None, 3.0, 8.0],
            "image": ["1 2", "3 4", None, "0 9"],
            "title": list("abcd"),
        }
    ),
    key="i",
    types={"price": "numeric", "image": "vector", "title": "text"},
)


def test_numbers_and_vectors_are_standardised_and_projected() -> None:
    content = Content(MIXED, 3)
    assert list(content.fields) == ["field_rate", "field_price", "field_image"] and content.width == 9
    content.fit_rows(np.array([0, 1, 2]))  # the price of the last row is not seen in training
    weight = content.fields["field_price"].project.weight
    wanted = [weight @ torch.tensor([z, k]) for z, k in ((-1.0, 1.0), (0.0, 0.0), (1.0, 1.0), (6.0, 1.0), (0.0, 0.0))]
    found = content(torch.tensor([0, 1, 2, 3, -1]))
    torch.testing.assert_close(found[:, 3:6], torch.stack(wanted))
    assert not found[4, 3:].any() and found[:, 6:].any(1).tolist() == [True, True, False, True, False]


def test_a_rating_system_reads_numbers_and_keeps_them(tmp_path) -> None:
    log = fake_ratings()
    price = Numeric(np.where(np.arange(log.num_items) % 3 == 0, np.nan, np.arange(log.num_items, dtype=float)))
    items = replace(log.items, columns={**log.items.columns, "price": price})
    system = build("melu_rating", items, users=log.users, width=4).eval()
    system.fit_statistics(replace(log, items=items))
    tasks = RandomQueries(queries=4, min_events=6)(log).take(np.arange(3))
    scores = system.scores(tasks)
    assert system.adaptation is not None and not system.adaptation.fell_back
    system.save(tmp_path)
    assert torch.equal(load(tmp_path).scores(tasks), scores)
    field = system.recommender.get_submodule("features.content.fields.field_price")
    torch.nn.init.zeros_(field.project.weight)
    assert not torch.equal(system.scores(tasks), scores)


def test_a_table_without_features_is_refused() -> None:
    titles = EntityTable.read(MOVIES[["i"]].assign(title=list("abc")), key="i", types={"title": "text"})
    with pytest.raises(InputError, match=r"a column of values or numbers; the table's columns are: title \(text\)"):
        Content(titles, 3)


def test_gradients_reach_the_values_in_equal_parts() -> None:
    content = Content(TABLE, 1)
    content(torch.tensor([2])).sum().backward()
    grad = content.fields["field_genre"].table.weight.grad
    assert grad is not None and grad.flatten().tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])


def test_items_without_events_and_unknown_users_have_vectors() -> None:
    log = fake_ratings()
    features, readout = ContentFeatures(log.items, 2), UserContent(log.users, 2)
    x, every = features(torch.tensor([4, 4, 0]))
    assert every.shape == (log.num_items, 4) and torch.equal(x, every[[4, 4, 0]])
    batch = HeteroData(sample={"user": torch.tensor([3, -1]), "num_nodes": 2, "last": torch.tensor([0, 0])})
    known, unknown = readout(torch.zeros(0, 1), batch)
    torch.testing.assert_close(unknown, readout.content.fields["field_age"].table.weight[0])
    assert not torch.equal(known, unknown)


def test_fitting_notes_what_the_training_log_has() -> None:
    log = fake_ratings()
    part = log.select((log.session < 1) & (log.items.ids[log.item] % 5 == 0)).aligned_to(log.items, log.users)
    features, readout = ContentFeatures(log.items, 2), UserContent(log.users, 2)
    features.fit_statistics(part)
    readout.fit_statistics(part)
    genre, age = log.items.several["genre"].values, log.users.attributes["age"].values
    rated = log.items.ids[part.item]
    expected = {f"g{n % 5}" for n in rated} | {f"g{n % 3}" for n in rated}
    assert set(genre[features.content.fields["field_genre"].seen.numpy()]) == expected
    assert age[readout.content.fields["field_age"].seen.numpy()].tolist() == ["a0"]
