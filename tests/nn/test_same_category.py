"""A bonus for items of a clicked kind: by hand, in every engine, and that it finds what clicks do not tell."""

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta.data.events import EventLog
from graphmeta.data.tables import Categorical, EntityTable
from graphmeta.errors import InputError
from graphmeta.evaluation.ranking import evaluate
from graphmeta.nn.score_terms.same_category import SameCategory
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import Samples, last_clicks, sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam

pytestmark = pytest.mark.usefixtures("float64")
KINDS = Categorical(np.array([1, 2, 1, 0, 2, 3, 0]), np.array(["", "a", "b", "c"]))  # of seven items


def filled() -> SameCategory:
    torch.manual_seed(2)
    same_category = SameCategory(KINDS)
    torch.nn.init.normal_(same_category.recency.weight)
    return same_category


def samples() -> Samples:
    known = sessions_without_target(
        [np.array(s) for s in ([0, 4, 2], [3], [5, 3, 1, 1, 6], [1, 0, 5, 4, 1, 2, 0, 3, 3, 3, 3])]
    )
    return Samples(known.item, known.begin, known.end, np.array([2, 0, 4, 1]), known.session)


def test_the_bonus_of_each_item_by_hand() -> None:
    same_category, queries = filled(), samples()
    row, column, value = same_category(session_batch(queries, num_items=7))
    bonus, kind = same_category.recency.weight.squeeze(1).tolist(), KINDS.codes.tolist()
    for s in range(len(queries)):
        clicks = queries.item[queries.begin[s] : queries.end[s]].tolist()
        expected = {}
        for item in range(7):
            steps = [ago for ago, click in enumerate(reversed(clicks)) if kind[click] == kind[item] != 0]
            if steps:
                expected[item] = bonus[min(steps[0], 7)]
        got = dict(zip(column[row == s].tolist(), value[row == s].tolist(), strict=True))
        assert got == pytest.approx(expected)
        assert len(got) == int((row == s).sum())


@pytest.mark.parametrize("score_terms", [[], ["same_category"]])
def test_it_learns_category_loyalty(score_terms: list[str]) -> None:
    """Four items of a kind, sampled anew, most of them clicked a few times: only the kind tells what is next."""
    random = np.random.default_rng(0)
    kind = random.integers(0, 40, 200)
    clicks = kind[:, None] + 40 * random.integers(0, 10, (200, 4))
    frame = pd.DataFrame({"s": np.repeat(np.arange(200), 4), "i": clicks.ravel(), "t": np.arange(800)})
    items = EntityTable.read(pd.DataFrame({"i": range(400), "kind": [f"k{i % 40}" for i in range(400)]}), key="i")
    log = EventLog.read(frame, session="s", item="i", time="t", items=items)
    learn, queries = (
        log.of_sessions(part).aligned_to(log.items) for part in (np.arange(200) < 120, np.arange(200) >= 120)
    )
    torch.manual_seed(0)
    system = build("sr_gnn", log.items, width=8, score_terms=score_terms)
    for _ in train(
        system, learn, epochs=8, optimizer=Adam(lr=0.1, weight_decay=1e-2, decay_tables=True), batch_size=20
    ):
        pass
    found = evaluate(system, last_clicks(queries), ks=(10,)).metrics["hit@10"]
    assert (found > 0.8) == bool(score_terms), found


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="choose from repeat_bias, same_category, cooccurrence"):
        build("niser", fake_log().items, score_terms=["more"])


def test_items_without_attributes_share_no_category() -> None:
    items = EntityTable.read(pd.DataFrame({"i": range(4)}), key="i")
    with pytest.raises(InputError, match="needs an attribute"):
        build("niser", items, score_terms=["same_category"])
