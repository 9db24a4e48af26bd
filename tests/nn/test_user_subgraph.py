"""ContextGNN and ID-GNN against loops over one query at a time, and what their scores may depend on."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import graphmeta as gm
from graphmeta.baselines import Popularity
from graphmeta.evaluation.next_basket import basket_queries, evaluate_next_basket, last_baskets
from graphmeta.evaluation.queries import with_history

DAY = 86400.0


def random_log(seed: int = 0) -> gm.EventLog:
    """Forty sessions of five users and a stranger, of up to six of twelve items, with repeated clicks."""
    random = np.random.default_rng(seed)
    session = np.repeat(np.arange(40), random.integers(1, 7, 40))
    frame = pd.DataFrame({"s": session, "i": [f"i{n}" for n in random.integers(0, 12, len(session))]})
    owner = random.integers(0, 6, 40)
    frame["u"] = pd.Series([None if owner[s] == 5 else f"u{owner[s]}" for s in session], dtype=object)
    frame["t"] = 1.7e9 + 0.7 * DAY * session + 60.0 * np.arange(len(session))
    return gm.EventLog.read(frame, session="s", item="i", user="u", time="t")


LOG = random_log()


def made(name: str, **arguments) -> gm.System:
    torch.manual_seed(3)
    system = gm.build(name, LOG.items, width=5, **arguments).double().eval()
    system.fit_statistics(LOG)
    return system


def by_loops(system: gm.System, clicks: list[int], past: list[tuple[float, list[int]]]) -> np.ndarray:
    """The scores of all items for the present clicks and (days ago, items) of the read sessions, the oldest first."""
    weight = {name: value.detach().numpy() for name, value in system.recommender.named_parameters()}

    def layer(name: str, x: np.ndarray) -> np.ndarray:
        bias = weight.get(f"{name}.bias")
        return weight[f"{name}.weight"] @ x + (0 if bias is None else bias)

    def active(name: str, x: np.ndarray) -> np.ndarray:
        """ReLU(LayerNorm(x))."""
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        return np.maximum(weight[f"{name}.weight"] * x + weight[f"{name}.bias"], 0)

    table = weight["features.item.weight"]
    items = {i: table[i] for i in sorted({*clicks, *(i for _, basket in past for i in basket)})}
    sessions = [layer("encoder.of_session", np.log1p([days, len(past) - n]) / 4) for n, (days, _) in enumerate(past)]
    events = [layer("encoder.of_click", np.log1p([len(clicks) - 1 - n]) / 4) for n in range(len(clicks))]
    user = weight["encoder.root"]
    for number in range(len(system.recommender.encoder.rounds)):
        at = f"encoder.rounds.{number}"

        def message(source: str, relation: str, target: str, x: np.ndarray, at: str = at) -> np.ndarray:
            return weight[f"{at}.messages.convs.<{source}___{relation}___{target}>.lin_l.weight"] @ x

        def new(kind: str, own: np.ndarray, messages: list[np.ndarray], at: str = at) -> np.ndarray:
            return active(f"{at}.norm.{kind}", layer(f"{at}.own.{kind}", own) + sum(messages, np.zeros(5)))

        sessions = [
            new("session", state, [message("item", "in", "session", items[i]) for i in past[n][1]])
            for n, state in enumerate(sessions)
        ]
        events = [
            new("event", state, [message("item", "in", "event", items[i])])
            for i, state in zip(clicks, events, strict=True)
        ]
        found = [message("session", "of", "user", s) for s in sessions]
        user = new("user", user, found + [message("event", "of", "user", e) for e in events])
        sessions = [new("session", s, [message("user", "owns", "session", user)]) for s in sessions]
        events = [new("event", e, [message("user", "owns", "event", user)]) for e in events]
        items = {
            i: new(
                "item",
                state,
                [message("session", "has", "item", s) for s, (_, basket) in zip(sessions, past, strict=True)
                 for other in basket if other == i]
                + [message("event", "has", "item", e) for e, c in zip(events, clicks, strict=True) if c == i],
            )
            for i, state in items.items()
        }  # fmt: skip
    total = sum(items.values(), np.zeros(5))
    state = active("head.readout.norm", layer("head.readout.of_items", total))
    query = layer("head.project", state)
    other = layer("head.offset_other", query)[0]
    towers = system.recommender.head.towers
    scores = np.array([other + (query @ table[i] if towers else 0) for i in range(12)])
    for i, own in items.items():
        scores[i] = state @ own + layer("head.of_item", own)[0] + layer("head.offset_pair", query)[0]
    return scores


def asked(session: int, history: int) -> tuple[list[int], list[tuple[float, list[int]]]]:
    """The clicks of a session but the last, and the user's latest earlier sessions, read from the log's frame."""
    frame = LOG.to_frame()
    rows = {name: part for name, part in frame.groupby("session")}
    own = rows[LOG.sessions[session]]
    number = {one: n for n, one in enumerate(LOG.items.ids)}
    begin = own["time"].iloc[0]
    past = [
        ((begin - part["time"].iloc[-1]) / DAY, [number[i] for i in part["item"]])
        for part in rows.values()
        if isinstance(user := own["user"].iloc[0], str) and (part["user"] == user).all() and part["time"].max() < begin
    ]
    past.sort(key=lambda one: -one[0])
    return [number[i] for i in own["item"]][:-1], past[-history:]


@pytest.mark.parametrize(("name", "rounds"), [("context_gnn", 1), ("id_gnn", 1), ("context_gnn", 2)])
def test_scores_are_those_of_loops_over_the_sub_graph(name, rounds):
    system = made(name, history=3, rounds=rounds)
    queries = with_history(system, gm.last_clicks(LOG), LOG)
    found = system.scores(queries).numpy()
    for row, session in enumerate(queries.session):
        np.testing.assert_allclose(found[row], by_loops(system, *asked(session, 3)), rtol=1e-9, atol=1e-9)
    assert max(len(asked(session, 3)[1]) for session in queries.session) == 3
    assert min(len(asked(session, 3)[1]) for session in queries.session) == 0


def test_an_empty_basket_has_the_sub_graph_of_the_earlier_sessions():
    system = made("context_gnn", history=4)
    last = LOG.of_sessions(np.isin(np.arange(LOG.num_sessions), [37, 38, 39])).aligned_to(LOG.items, LOG.users)
    baskets = basket_queries(system, last, [LOG])
    found = system.scores(baskets.samples).numpy()
    for row, session in enumerate((37, 38, 39)):
        np.testing.assert_allclose(found[row], by_loops(system, [], asked(session, 4)[1]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["context_gnn", "id_gnn"])
def test_nothing_after_the_query_changes_a_score(name):
    system, random = made(name), np.random.default_rng(1)
    queries = gm.last_clicks(LOG)
    before = system.scores(with_history(system, queries, LOG))
    for row, session in enumerate(queries.session):
        begin, end = LOG.time[LOG.ptr[session]], LOG.ptr[session + 1] - 1
        later = (LOG.time >= begin) & (LOG.session != session)
        later[end] = True  # the target
        changed = np.where(later, random.integers(0, 12, LOG.num_events), LOG.item)
        other = replace(LOG, item=changed)
        one = gm.last_clicks(other).take(slice(row, row + 1))
        after = system.scores(with_history(system, one, other))
        torch.testing.assert_close(after[0], before[row], rtol=0, atol=1e-12)


def test_an_earlier_session_changes_the_score_of_its_items_more_than_of_others():
    system = made("id_gnn")
    queries = gm.last_clicks(LOG)
    scores = system.scores(with_history(system, queries, LOG))
    for row, session in enumerate(queries.session):
        clicks, past = asked(session, 50)
        inside = {*clicks, *(i for _, basket in past for i in basket)}
        outside = sorted(set(range(12)) - inside)
        assert len(scores[row, outside].unique()) <= 1  # tied
        assert len(scores[row, sorted(inside)].unique()) == len(inside)


def test_it_learns_a_user_s_habits_and_finds_them_in_the_next_basket():
    random = np.random.default_rng(0)
    session = np.repeat(np.arange(400), 3)
    favourite = random.integers(0, 40, (20, 4))
    item = favourite[session % 20, random.integers(0, 4, len(session))]
    frame = pd.DataFrame({"s": session, "i": item, "u": session % 20, "t": 1.7e9 + DAY * session + np.arange(1200) % 3})
    log = gm.EventLog.read(frame, session="s", item="i", user="u", time="t")
    known, last = last_baskets(log)
    torch.manual_seed(0)
    system = gm.build("context_gnn", log.items, width=16, empty=1.0)
    list(gm.train(system, known, epochs=2, batch_size=64, optimizer=gm.Adam(lr=1e-2)))
    found, popular = (
        evaluate_next_basket(model, last, history=known, ks=(4,)).metrics
        for model in (system.eval(), Popularity(known))
    )
    assert found["recall@4"] > 0.9 > 2 * popular["recall@4"] and found["map@4"] > 2 * popular["map@4"]


def test_a_log_without_users_has_sub_graphs_of_the_session_alone():
    log = replace(LOG, users=None, session_user=None)
    system = made("context_gnn")
    queries = gm.last_clicks(LOG)
    assert gm.evaluate(system, log, ks=(5,)).samples == len(queries)
    alone = system.scores(gm.last_clicks(log)).numpy()
    for row, session in enumerate(queries.session):
        np.testing.assert_allclose(alone[row], by_loops(system, asked(session, 3)[0], []), rtol=1e-9, atol=1e-9)


def test_a_share_outside_its_range_is_refused():
    with pytest.raises(gm.InputError, match="share of the training samples"):
        gm.build("context_gnn", LOG.items, empty=1.5)
