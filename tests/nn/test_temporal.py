"""Temporal biases, term by term, against the equations written as a loop."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.nn.heads.temporal import TemporalDot, TemporalItems
from graphmeta.nn.readout import Last
from graphmeta.sampling.samples import last_clicks, sessions_without_target
from graphmeta.sampling.session_batch import session_batch

DAY = 86_400.0


def log_of():
    rows = [(s, (s + c) % 4, DAY * s * 2.5 + 3600 * c, s % 3) for s in range(9) for c in range(3)]
    return EventLog.read(pd.DataFrame(rows, columns=["s", "i", "t", "u"]), session="s", item="i", time="t", user="u")


@torch.no_grad()
def test_the_score_is_the_sum_of_its_terms():
    torch.manual_seed(0)
    log = log_of()
    head = TemporalDot(Last(), nn.Linear(5, 3), num_users=3, width=3, rank=2, periods=4).double()
    items = TemporalItems(4, 3, rank=2).double()
    for parameter in (*head.parameters(), *items.parameters()):
        parameter.normal_()
    head.fit_statistics(log)
    samples = last_clicks(log)
    samples.user[0] = -1
    batch = session_batch(samples, num_items=4)
    x, table = items(batch["item"].n_id)
    assert torch.equal(x, items.item.weight[batch["item"].n_id, :3])
    states = torch.randn(batch["event"].num_nodes, 5, dtype=torch.float64)
    found = head(states, batch, table)
    length = np.ptp(log.time) / 4
    for row in range(len(samples)):
        user, t = int(samples.user[row]), log.time[samples.end[row] - 1]
        who = slice(None) if user < 0 else log.session_user[log.session] == user
        days = (t - log.time[who].mean()) / DAY
        e_u, a_u, b_u = torch.zeros(5, dtype=torch.float64).split([3, 1, 1])
        if user >= 0:
            e_u, a_u, b_u = head.users.user.weight[user].split([3, 1, 1])
        z = e_u + (1 + a_u) * head.project(states[batch["sample"].last[row]])
        period = head.periods.weight[min(int((t - log.time.min()) // length), 3)]
        shift = (head.mean + b_u + (1 + a_u) * float(np.sign(days) * abs(days) ** 0.4)).squeeze()
        for k in range(4):
            vector, factors, bias = items.item.weight[k].split([3, 2, 1])
            torch.testing.assert_close(
                found[row, k], z @ vector + period @ factors + bias[0] + shift, rtol=0, atol=1e-9
            )


def test_missing_inputs_are_named():
    head = TemporalDot(Last(), nn.Linear(5, 3), num_users=3, width=3)
    without = EventLog.read(pd.DataFrame({"s": [1, 1], "i": ["a", "b"]}), session="s", item="i")
    with pytest.raises(InputError, match="name the log's time and user columns"):
        head.fit_statistics(without)
    batch = session_batch(sessions_without_target([np.array([0])]), num_items=4)
    with pytest.raises(InputError, match="pass times"):
        head.query(torch.zeros(1, 5), batch)
