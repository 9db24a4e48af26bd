"""Pauses and their bins, by hand; they come from the training log alone and look where they may."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.nn.encoders.dwell_time import DwellBins, DwellEmbedding, dwell_times
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import last_clicks, sessions_without_target, whole_sessions
from graphmeta.sampling.session_batch import session_batch

TIMES = {"a": [0, 10, 40], "b": [100, 105], "c": [200, 300, 301, 361]}


def log_of(times=TIMES):
    rows = [(session, f"i{at % 3}", t) for session, clicks in times.items() for at, t in enumerate(clicks)]
    return EventLog.read(pd.DataFrame(rows, columns=["s", "i", "t"]), session="s", item="i", time="t")


def batch_of(samples):
    return session_batch(samples, num_items=3)


def test_dwell_times_before_and_after():
    log = log_of()
    batch = batch_of(last_clicks(log))
    assert dwell_times(batch, lag=1).tolist() == [-1, 10, -1, -1, 100, 1]
    assert dwell_times(batch, lag=0).tolist() == [10, 30, 5, 100, 1, 60]


def test_the_dwell_time_after_the_last_click_is_unknown_without_the_next():
    batch = batch_of(sessions_without_target([np.array([0, 1])], times=[np.array([5.0, 9.0])]))
    assert dwell_times(batch, lag=1).tolist() == [-1, 4]
    after = dwell_times(batch, lag=0)
    assert after[0] == 4 and after[1].isnan()
    without = batch_of(sessions_without_target([np.array([0, 1])]))
    assert dwell_times(without, lag=1)[0] == -1 and dwell_times(without, lag=1)[1].isnan()
    assert DwellBins(max_bins=7)(without).tolist() == [0, 8]


def test_a_completed_dwell_time_does_not_leak_the_next_click():
    log = log_of()
    later = log_of(TIMES | {"c": [200, 300, 301, 3000]})
    before, after = (dwell_times(batch_of(last_clicks(one)), lag=1) for one in (log, later))
    assert torch.equal(before, after)
    before, after = (dwell_times(batch_of(last_clicks(one)), lag=0) for one in (log, later))
    assert before[:-1].equal(after[:-1]) and before[-1] != after[-1]


@pytest.mark.parametrize("scope", ["encoder_head", "predictor", "all"])
@pytest.mark.parametrize("lag", [1, pytest.param(0, marks=pytest.mark.filterwarnings("ignore:dwell_lag=0"))])
def test_an_adapted_system_reads_the_time_of_the_target_only_with_lag_0(lag, scope):
    """Its start and its inner steps too: the time of the next click changes no score, unless the encoder reads it."""
    torch.manual_seed(0)
    log, later = log_of(), log_of(TIMES | {"c": [200, 300, 301, 302]})  # a dwell time in the other of two bins
    base = build("asars_time_cat", log.items, width=4, dwell_lag=lag)
    system = build("cbml", log.items, base=base, clusters=2, scope=scope).eval()
    system.fit_statistics(log)
    one, other = (system.scores(last_clicks(each)) for each in (log, later))
    assert torch.equal(one[:-1], other[:-1]) and torch.equal(one[-1], other[-1]) == (lag == 1)


@pytest.mark.parametrize("logarithm", [False, True])
def test_scotts_rule(logarithm):
    random = np.random.default_rng(0)
    gaps = np.round(random.gamma(0.7, 50, 400))
    gaps[:4] = 50_000
    log = log_of({f"s{n}": [n * 1e6, n * 1e6 + gap] for n, gap in enumerate(gaps)})
    bins = DwellBins(logarithm=logarithm, max_bins=1000)
    bins.fit_statistics(log)
    seen = np.minimum(gaps, np.quantile(gaps, 0.99))
    seen = np.log1p(seen) if logarithm else seen
    width = 3.49 * math.sqrt(((seen - seen.mean()) ** 2).mean()) / len(seen) ** (1 / 3)
    count = math.ceil((seen.max() - seen.min()) / width)
    assert int(bins.bins) == count and count > 3
    counted, _ = np.histogram(seen, bins=count)
    found = bins(batch_of(whole_sessions(log_of({f"s{n}": [0, gap, gap] for n, gap in enumerate(gaps)}))))
    assert np.bincount(found.numpy())[1:].tolist() == counted.tolist()  # by the id, that of no pause aside


def test_ids_by_hand():
    bins = DwellBins(max_bins=4)
    sessions = {f"s{n}": [n * 100, n * 100 + n % 41] for n in range(410)}  # pauses 0 … 40, ten of each
    bins.fit_statistics(log_of(sessions))
    assert int(bins.bins) == 4 and float(bins.low) == 0 and float(bins.size) == 10
    clicks = sessions_without_target([np.zeros(6, np.int64)], times=[np.cumsum([0, 9, 10, 39, 40, 5000]).astype(float)])
    assert bins(batch_of(clicks)).tolist() == [0, 1, 2, 4, 4, 4]
    assert bins.num_ids == 6


def test_bins_come_from_the_log_that_is_fitted_and_are_saved():
    one, other = DwellBins(), DwellBins()
    one.fit_statistics(log_of())
    assert float(one.low) == 1
    other.load_state_dict(one.state_dict())
    batch = batch_of(last_clicks(log_of()))
    assert torch.equal(one(batch), other(batch)) and not torch.equal(one(batch), DwellBins()(batch))


def test_equal_dwell_times_are_one_bin():
    bins = DwellBins()
    bins.fit_statistics(log_of({"a": [0, 7, 14]}))
    assert int(bins.bins) == 1
    assert bins(batch_of(last_clicks(log_of({"a": [0, 7, 14]})))).tolist() == [0, 1]


def test_none_and_unknown_begin_as_zeros():
    dwell = DwellEmbedding(DwellBins(max_bins=5), 3)
    vectors = dwell(batch_of(sessions_without_target([np.array([0, 1])], times=[np.array([5.0, 9.0])])))
    assert vectors[0].eq(0).all() and vectors[1].ne(0).any()
    assert dwell(batch_of(sessions_without_target([np.array([0, 1])]))).eq(0).all()


def test_invalid_options_are_named():
    without = EventLog.read(pd.DataFrame({"s": [1, 1], "i": ["a", "b"]}), session="s", item="i")
    with pytest.raises(InputError, match="name the log's time column"):
        DwellBins().fit_statistics(without)
    with pytest.raises(InputError, match="dwell_lag=2 must be 1.*or 0"):
        DwellBins(lag=2)
    with pytest.raises(InputError, match="no session has two clicks"):
        DwellBins().fit_statistics(log_of({"a": [1], "b": [2]}))
    log = log_of()
    with pytest.warns(UserWarning, match="leaks the time of the next click; dwell_lag=1") as caught:
        DwellBins(lag=0).fit_statistics(log)
    assert len(caught) == 1
