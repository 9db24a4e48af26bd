"""Histories from several files without times: a later file is later; refused where no order is named."""

import warnings

import numpy as np
import pandas as pd
import pytest

import graphmeta as gm
from graphmeta.baselines import PersonalFrequency
from graphmeta.errors import InputError
from graphmeta.evaluation.next_basket import evaluate_next_basket
from graphmeta.evaluation.queries import queries_of
from graphmeta.sampling.file_order import in_file_order
from graphmeta.sampling.given_histories import given_earlier
from graphmeta.sampling.user_histories import UserHistories

SESSIONS, ITEMS = 12, 9


def table(seed):
    """Sessions 0, 1, 2 … of three users, two events each, in the order of time."""
    random = np.random.default_rng(seed)
    session = np.repeat(np.arange(SESSIONS), 2)
    user = random.integers(0, 3, SESSIONS)[session]
    return pd.DataFrame(
        {"session": session, "item": random.integers(0, ITEMS, len(session)), "user": [f"u{u}" for u in user]}
    )


def read(frame, time=None):
    return gm.EventLog.read(frame, session="session", item="item", user="user", time=time)


def both():
    """Two files, and the same events in one file with times; all with the same items."""
    first, second = table(0), table(1)
    whole = pd.concat([first, second.assign(session=second.session + SESSIONS)], ignore_index=True)
    log = read(whole.assign(at=np.arange(len(whole)) * 10.0), time="at")
    a, b = (one.aligned_to(log.items, one.users) for one in map(read, (first, second)))
    return a, b, log


@pytest.mark.filterwarnings("ignore:the sessions are of 2 files")
def test_a_second_file_is_later_than_the_first():
    """Each query of the second file has the earlier sessions that it has in one file with times."""
    a, b, whole = both()
    model = PersonalFrequency(a)
    timed = queries_of(PersonalFrequency(whole), whole).earlier
    given = queries_of(model, b, a).earlier
    late = slice(SESSIONS, None)
    assert given.sessions.tolist() == timed.sessions[late].tolist() and given.sessions.max() > 3
    assert given.columns().age.tolist() == timed.take(late).columns().age.tolist()
    known = [whole.items.ids[given.columns().n_id].tolist(), whole.items.ids[timed.take(late).columns().n_id].tolist()]
    assert known[0] == known[1]
    wanted = evaluate_next_basket(PersonalFrequency(whole), whole, ks=(2,)).metrics
    assert evaluate_next_basket(model, b, history=a, ks=(2,)).metrics == wanted


def test_there_is_one_warning():
    a, b, _ = both()
    with pytest.warns(UserWarning, match="2 files without times: those of a later file are taken to be later") as told:
        queries_of(PersonalFrequency(a), b, a)
    assert len(told) == 1


def test_parts_and_repeats_of_one_file_are_one_file():
    """A split, the log itself and a file that has grown have one numbering already."""
    log = read(pd.concat([table(0), table(1).assign(session=lambda t: t.session + SESSIONS)]))
    split = gm.split_by_time(log, test=0.3, valid=0.2)
    whole = log.aligned_to(split.train.items, split.train.users)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        placed = in_file_order(whole, *split.parts, split.test)
        assert all(one is same for one, same in zip(placed, (whole, *split.parts, split.test), strict=True))
        histories, _ = UserHistories.together(UserHistories.of(split.train), whole)
    assert histories.sessions.tolist() == UserHistories.of(whole).sessions.tolist()


def test_histories_of_two_files_are_refused_where_no_order_is_named():
    *logs, _ = both()
    with pytest.raises(InputError, match=r"several files without times.*time=.*together"):
        UserHistories.of(*logs)
    with pytest.warns(UserWarning, match="2 files"):
        together, placed = UserHistories.together(None, *logs)
    assert len(together.sessions) == 2 * SESSIONS and placed[1].starts.min() > placed[0].time.max()


def test_a_request_with_times_reads_all_of_a_history_without():
    """Row numbers are not seconds: nothing is compared with them."""
    log = read(table(0))
    kept = UserHistories.of(log)
    for found in (
        given_earlier(None, ["u0"], items=log.items, kept=kept, times=[[5.0]]),
        given_earlier(log, ["u0"], items=log.items, kept=None, times=[[5.0]]),
    ):
        assert found.sessions[0] == (table(0).drop_duplicates("session").user == "u0").sum()
