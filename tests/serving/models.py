"""Small models that the tests of serving share."""

import warnings
from functools import cache

import numpy as np
import torch

from graphmeta.data.tables import EntityTable
from graphmeta.published.catalogue import build
from graphmeta.serving.query import Query
from graphmeta.serving.served import Served
from graphmeta.system import System
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam

LOG = fake_log(sessions=60, items=23, length=7)
OPTIONS = {"maml": {"base": "if_san"}}
SESSIONS = [
    LOG.items.ids[LOG.item[a:b]].tolist()[: 1 + n % 6]
    for n, (a, b) in enumerate(zip(LOG.ptr, LOG.ptr[1:], strict=False))
]


@cache
def trained(name: str, seed: int = 0) -> System:
    """A system of the catalogue, trained for an epoch."""
    torch.manual_seed(seed)
    system = build(name, LOG.items, width=6, **OPTIONS.get(name, {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        list(train(system, LOG, epochs=1, batch_size=30, optimizer=Adam(lr=1e-2)))
    return system.eval()


def served(name: str = "maml", version: str = "1", seed: int = 0) -> Served:
    """A trained system, as it is served."""
    return Served(trained(name, seed), version)


def queries(number: int, k: int = 5) -> list[Query]:
    """Queries with sessions of different lengths."""
    return [Query(SESSIONS[n % len(SESSIONS)], k) for n in range(number)]


def equal(found: list, wanted: list) -> bool:
    """Whether recommendations are the same items in the same order, with the same scores up to rounding."""
    same = [one.item for one in found] == [one.item for one in wanted]
    return same and bool(np.allclose([one.score for one in found], [one.score for one in wanted], rtol=1e-4, atol=1e-5))


HOSTILE = {
    "<script>alert(1)</script>": '<img src=x onerror="alert(2)">',
    "\x1b[2Jclear": "\x1b]0;title\x07",
    "'; DROP TABLE--": "\u202egnp.exe",
    "a/b?c#d": "\u009b31mred",
    "日本": "ß" * 300,
}


def hostile() -> Served:
    """A model whose ids and names are markup, terminal escapes and right-to-left marks."""
    ids = [*HOSTILE, *(f"i{n}" for n in range(6))]
    labels = [*HOSTILE.values(), *(f"plain {n}" for n in range(6))]
    items = EntityTable(np.array(ids, dtype=object), {}, np.array(labels, dtype=object))
    torch.manual_seed(0)
    return Served(build("sr_gnn", items, width=4).eval(), "1", "# card\n<script>")
