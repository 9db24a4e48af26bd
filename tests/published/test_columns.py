"""A system that reads only some item columns names the others in one warning, with the systems that read them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from graphmeta.data.tables import EntityTable
from graphmeta.published.catalogue import build
from graphmeta.published.columns import warn_none_read
from graphmeta.published.fit import fit
from graphmeta.published.load import load
from graphmeta.published.models.session import if_san
from graphmeta.testing import fake_log

LOG = fake_log(sessions=60)
FRAME = pd.DataFrame({"sku": LOG.items.ids, "brand": ["x", "y"] * 20, "price": np.arange(40), "tags": "a|b"})
TYPES = {"price": "numeric", "title": "text"}
ITEMS = EntityTable.read(FRAME.assign(title="red shoe"), key="sku", several={"tags": "|"}, types=TYPES)
LINE = "price (numeric), title (text) (read by no system of the catalogue)"


def of_users(found):
    """The UserWarnings; torch-geometric adds a DeprecationWarning per layer on Python 3.13."""
    return [one for one in found if one.category is UserWarning]


@pytest.mark.parametrize("name", ["if_san", "hetero_gnn", "cbml", "dropout_net", "reranker", "meta_hin"])
def test_columns_that_are_not_read_are_named(name):
    with pytest.warns(UserWarning) as found:
        build(name, ITEMS, width=4)
    (warning,) = of_users(found)
    assert str(warning.message) == f"{name} ignores item columns: {LINE}"
    assert warning.filename == __file__


@pytest.mark.parametrize("name", ["sr_gnn", "gru4rec", "melu_rating"])
def test_a_system_without_columns_or_with_all_of_them_does_not_warn(name, recwarn):
    items = ITEMS.without("text")
    build(name, items, users=items, width=4)
    build("if_san", items.without("several", "numeric"), width=4)
    assert not recwarn.list


def test_same_category_reads_categories_only():
    with pytest.warns(UserWarning, match="niser ignores item columns: price"):
        build("niser", ITEMS, width=4, score_terms=["same_category"])


@pytest.mark.parametrize("name", ["cbml", "reranker"])
def test_a_training_in_stages_warns_once(name):
    with pytest.warns(UserWarning) as found:
        fit(replace(LOG, items=ITEMS), name, epochs=1, width=4)
    (warning,) = of_users(found)
    assert str(warning.message) == f"{name} ignores item columns: {LINE}" and warning.filename == __file__


def test_a_model_is_loaded_without_a_warning(tmp_path, recwarn):
    if_san(ITEMS, width=4).save(tmp_path)
    load(tmp_path)
    assert not recwarn.list


def test_a_system_without_column_readers_is_named_with_what_reads_the_columns():
    items = ITEMS.without("text", "several", "numeric")
    with pytest.warns(UserWarning, match=r"sr_gnn reads no item columns: brand \(categorical\) \(read by .*if_san"):
        warn_none_read("sr_gnn", items, users=None)


@pytest.mark.parametrize("name", ["if_san", "cbml", "reranker"])
def test_a_system_that_reads_columns_is_not(name, recwarn):
    warn_none_read(name, ITEMS, users=None)
    assert not recwarn.list
