"""Samples carry the vocabulary that their indices refer to, and no evaluation takes those of another."""

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta.baselines import NoRepeats, Popularity
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.evaluation.ranking import evaluate, evaluate_sampled, evaluate_tasks
from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.published.models.cold_user import user_only_samples
from graphmeta.sampling.baskets import leave_one_out, next_items
from graphmeta.sampling.few_shot import sampled_tasks, support_from_clicks
from graphmeta.sampling.histories import every_event, sessions_by_user
from graphmeta.sampling.samples import Samples, last_clicks, prefixes, whole_sessions
from graphmeta.sampling.tasks import tasks_of
from graphmeta.testing import fake_log

LOG = fake_log(sessions=40)
OTHER = EventLog.read(LOG.to_frame().iloc[::-1], session="session", item="item", time=None)  # other numbers
MAKERS = [prefixes, last_clicks, leave_one_out, next_items, whole_sessions, every_event, user_only_samples]


class Bare:
    """A scorer without ids."""

    num_items = 40

    def scores(self, samples: Samples) -> torch.Tensor:
        return torch.zeros(len(samples), 40)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_samples_of_a_log_carry_its_tables(make) -> None:
    log = sessions_by_user(LOG) if make is every_event else LOG
    samples = make(log)
    assert samples.items is log.items and samples.users is log.users
    taken = samples.take(np.arange(3)).latest(2)
    assert taken.items is log.items and taken.users is log.users


def test_tasks_carry_their_tables() -> None:
    query = LOG.without_last_clicks().lengths[LOG.session] == np.arange(LOG.num_events) - LOG.ptr[:-1][LOG.session]
    for tasks in (tasks_of(LOG, ~query, query), sampled_tasks(LOG), support_from_clicks(last_clicks(LOG))):
        for part in (tasks.support, tasks.query):
            assert part.items is LOG.items and part.users is LOG.users


@pytest.mark.parametrize("name", [name for name, row in CATALOGUE.items() if row.counts])
def test_another_vocabulary_is_refused_by_every_baseline(name: str) -> None:
    system = build(name, LOG.items)
    system.fit_statistics(LOG)
    model = system.scorer()
    for scorer in (model, NoRepeats(model), system):
        with pytest.raises(InputError, match="other item indices"):
            evaluate(scorer, last_clicks(OTHER))
    assert OTHER.items.ids.tolist() != LOG.items.ids.tolist()
    evaluate(model, last_clicks(OTHER.aligned_to(LOG.items)))


def test_indices_that_a_scorer_without_ids_lacks_are_refused() -> None:
    more = LOG.with_entities(items=EntityTable.read(pd.DataFrame({"item": ["a"]}), key="item"))
    samples = last_clicks(more.aligned_to(EntityTable(more.items.ids[::-1], {})))  # the first item has number 40
    assert samples.target.max() == 40
    for call in (
        lambda: evaluate(Bare(), samples),
        lambda: evaluate_sampled(Bare(), samples, np.zeros((len(samples), 15), np.int64)),
        lambda: evaluate_tasks(Bare(), support_from_clicks(samples)),
    ):
        with pytest.raises(InputError, match=r"have item 40 and the model items 0 to 39: .* another vocabulary"):
            call()
    assert evaluate(Bare(), last_clicks(LOG)).metrics["hit@20"] == pytest.approx(0.5)
    assert evaluate(Popularity(LOG), last_clicks(LOG)).samples == 40


def test_sessions_in_separate_blocks_are_noted_without_times() -> None:
    frame = pd.DataFrame({"s": [0, 0, 1, 1, 0, 0, 1], "i": list("abcdefg"), "t": range(7)})
    with pytest.warns(UserWarning, match=r"^sessions in separate blocks of rows: 2 of 2 \(the first: 0\)"):
        EventLog.read(frame, session="s", item="i")
    EventLog.read(frame, session="s", item="i", time="t")  # warnings are errors: with times rows may be in any order
    EventLog.read(frame.iloc[:4], session="s", item="i")
