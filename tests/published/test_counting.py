"""Baselines as systems: the scores of the baseline itself, also after saving, on further items and in a stream."""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import graphmeta as gm
from graphmeta import baselines
from graphmeta.data.events import EventLog
from graphmeta.data.splits import period_edges, split_by_time
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.evaluation.queries import with_history
from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.published.load import load
from graphmeta.retrain.strategy import Full
from graphmeta.retrain.stream import Pretraining, stream
from graphmeta.sampling.samples import last_clicks
from graphmeta.storage import load_state, save_state
from graphmeta.storage.versions import current
from graphmeta.testing import fake_log
from graphmeta.training.loop import train

CLASSES = {
    "popularity": baselines.Popularity,
    "session_popularity": baselines.SessionPopularity,
    "item_knn": baselines.ItemKNN,
    "session_knn": baselines.SessionKNN,
    "stan": baselines.Stan,
    "personal_frequency": baselines.PersonalFrequency,
    "tifu_knn": baselines.TifuKNN,
    "up_cf": baselines.UPCF,
}
OF_USERS = {"personal_frequency", "tifu_knn", "up_cf"}


def sessions(*, repeats: bool = True, times: bool = True) -> EventLog:
    """Sessions of ten items; four of each of eight users."""
    random = np.random.default_rng(1)
    lengths = random.integers(2, 6, 32)
    session = np.repeat(np.arange(32), lengths)
    item = np.concatenate([random.choice(10, n, replace=repeats) for n in lengths])
    frame = pd.DataFrame({"s": session, "i": item, "u": [f"u{n % 8}" for n in session]})
    frame["t"] = 1.7e9 + 86400.0 * session + np.arange(len(session))
    if repeats:
        frame.loc[1, "i"] = frame.loc[0, "i"]
    return EventLog.read(frame, session="s", item="i", user="u", time="t" if times else None)


LOG = sessions()


def queries(system, log: EventLog = LOG):
    return with_history(system, last_clicks(log), log)


def fitted(name: str, log: EventLog = LOG):
    system = build(name, log.items)
    system.fit_statistics(log)
    return system


def test_every_class_is_a_system() -> None:
    assert CLASSES.keys() == {name for name, row in CATALOGUE.items() if row.counts}


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("name", CLASSES)
def test_its_scores_are_those_of_the_baseline(name: str, repeats: bool, times: bool, tmp_path) -> None:
    """As it is, loaded with and without the users' histories, and copied."""
    log = sessions(repeats=repeats, times=times)
    system = fitted(name, log)
    asked = queries(system, log)
    plain = baselines.match_repeats(log, CLASSES[name](log)).scores(asked)
    assert torch.equal(system.scores(asked), plain)
    assert torch.equal(copy.deepcopy(system).scores(asked), plain)
    system.save(tmp_path, keep_histories=True)
    again = load(tmp_path)
    assert torch.equal(again.scores(queries(again, log)), plain)
    again.save(tmp_path / "again", keep_histories=True)
    assert torch.equal(load(tmp_path / "again").scores(asked), plain)
    if name not in ("tifu_knn", "up_cf"):  # which exclude a user from their own neighbours
        system.save(tmp_path)
        assert torch.equal(load(tmp_path).scores(asked), plain)


@pytest.mark.parametrize("name", ["tifu_knn", "up_cf"])
def test_users_of_a_model_without_histories_are_unknown_to_it(name: str, tmp_path) -> None:
    """Its scores are those for new users with the same sessions; no id is written."""
    system = fitted(name)
    system.save(tmp_path)
    again = load(tmp_path)
    frame = LOG.to_frame().rename(columns={"session": "s", "item": "i", "time": "t", "user": "u"})
    others = EventLog.read(frame.assign(u="new " + frame.u), session="s", item="i", user="u", time="t")
    new = with_history(system, last_clicks(others), others)
    assert torch.equal(again.scores(queries(again)), system.scores(new))
    assert not torch.equal(again.scores(queries(again)), system.scores(queries(system)))
    for file in filter(Path.is_file, tmp_path.rglob("*")):
        assert not any(f"u{n}".encode() in file.read_bytes() for n in range(8)), file


def test_ids_are_not_kept_by_a_later_save_without_histories(tmp_path) -> None:
    fitted("tifu_knn").save(tmp_path / "kept", keep_histories=True)
    load(tmp_path / "kept").save(tmp_path / "plain")
    assert not any(b'"u3"' in file.read_bytes() for file in (tmp_path / "plain").rglob("*") if file.is_file())


@pytest.mark.filterwarnings("ignore:only 10 items can be ranked")
@pytest.mark.parametrize("name", CLASSES)
def test_training_counts_and_chooses_nothing(name: str) -> None:
    split = split_by_time(LOG)
    system = build(name, split.train.items)
    (report,) = train(system, split, epochs=3)
    assert (report.epoch, report.loss, report.best) == (0, 0.0, True) and report.valid
    direct = fitted(name, split.train)
    asked = queries(direct, split.train)
    assert torch.equal(system.scores(asked), direct.scores(asked))
    by_name = gm.fit(split, name)
    assert torch.equal(by_name.scores(asked), direct.scores(asked)) and not by_name.training
    assert gm.evaluate(by_name, split.test).metrics == gm.evaluate(direct, split.test).metrics


def test_recommending_is_that_of_the_scores() -> None:
    system = fitted("item_knn")
    ids = LOG.items.ids[:2].tolist()
    best = system.recommend(ids, k=3)
    frame = pd.DataFrame({"s": 0, "i": [*ids, ids[0]], "t": [0.0, 1.0, 2.0]})
    asked = last_clicks(EventLog.read(frame, session="s", item="i", time="t").aligned_to(LOG.items))
    top = system.scores(asked)[0].sort(descending=True, stable=True)
    assert [one.item for one in best] == LOG.items.ids[top.indices[:3].numpy()].tolist()


@pytest.mark.parametrize("name", sorted(OF_USERS))
def test_a_system_of_histories_refuses_a_log_without_users(name: str) -> None:
    log = fake_log(sessions=20)
    frame = log.to_frame().drop(columns="user", errors="ignore")
    plain = EventLog.read(frame, session="session", item="item", time="time")
    with pytest.raises(InputError, match="reads the earlier sessions of users, and the log has no users"):
        build(name, plain.items).fit_statistics(plain)


@pytest.mark.filterwarnings("ignore:in period .* left to sample")
@pytest.mark.parametrize("name", CLASSES)
def test_a_stream_counts_what_has_come(name: str) -> None:
    """After each period its scores are those of all events until then."""
    edges = period_edges(LOG, events=LOG.num_events // 4)
    system = build(name, LOG.items)
    for report in stream(system, LOG, edges=edges, strategy=Full(), begin=Pretraining(1)):
        known = LOG.before(edges[report.period + 1]).aligned_to(LOG.items, LOG.users)
        direct = fitted(name, known)
        asked = with_history(direct, last_clicks(known), known)
        assert torch.equal(system.scores(asked), direct.scores(asked))


def test_further_items_have_no_count() -> None:
    system = fitted("item_knn")
    more = system.extended(EntityTable(np.array([100, 101]), {}))
    found = more.scores(last_clicks(LOG.aligned_to(more.items, LOG.users)))
    assert torch.equal(found[:, :-2], system.scores(last_clicks(LOG))) and (found[:, -2:] <= 0).all()
    assert len(more.recommend([100, int(LOG.items.ids[0])], k=3)) == 3


def test_before_it_has_counted_and_around_others_it_refuses() -> None:
    system = build("item_knn", LOG.items)
    with pytest.raises(InputError, match="has counted no log yet"):
        system.scores(last_clicks(LOG))
    for ask in (lambda: system.losses(last_clicks(LOG)), lambda: system.load_matching(system)):
        with pytest.raises(InputError, match="no weights"):
            ask()
    with pytest.raises(InputError, match="does not adapt"):
        fitted("item_knn").scores(last_clicks(LOG), steps=1)
    with pytest.raises(InputError, match="item_knn only counts"):
        build("cbml", LOG.items, base="item_knn")
    with pytest.raises(InputError, match="its base only counts"):
        build("cbml", base=system)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("item", torch.tensor([99], dtype=torch.int32)),
        ("item", torch.tensor([-1], dtype=torch.int32)),
        ("ptr", torch.tensor([3, 1])),
        ("ptr", torch.tensor([0, 2**40])),
        ("time", torch.zeros(3, dtype=torch.float64)),
        ("owner", torch.full((32,), 2**30, dtype=torch.int32)),
        ("owner", torch.zeros(1, dtype=torch.int32)),
    ],
)
def test_forged_counts_are_refused(name: str, value: torch.Tensor, tmp_path) -> None:
    fitted("tifu_knn").save(tmp_path)
    place = current(tmp_path)
    tensors, document = load_state(place, "model")
    save_state(place, "model", {**tensors, f"recommender.{name}": value}, document)
    with pytest.raises(InputError, match="damaged"):
        load(tmp_path).scores(last_clicks(LOG))


def test_only_what_a_baseline_reads_is_stored(tmp_path) -> None:
    """Times for STAN, the numbers of users for those that mix users; ids with kept histories of the latter alone."""
    kept = {}
    for name in CLASSES:
        fitted(name).save(tmp_path / name, keep_histories=True)
        tensors, document = load_state(current(tmp_path / name), "model")
        sizes = {key: len(tensors[f"recommender.{key}"]) > 0 for key in ("time", "owner")}
        kept[name] = {*(key for key, some in sizes.items() if some), *document["notes"]}
    mixing = {"owner", "training_users"}
    assert kept == {
        name: {"time"} if name == "stan" else mixing if name in ("tifu_knn", "up_cf") else set() for name in CLASSES
    }


@pytest.mark.parametrize("name", CLASSES)
def test_what_is_recommended_without_knowledge_is_popular_and_flagged(name: str) -> None:
    log = sessions(repeats=False)
    system = fitted(name, log).extended(EntityTable(np.array([100]), {}))
    counts = log.support
    wanted = log.items.ids[np.argsort(-counts, kind="stable")[:3]].tolist()
    for session in ([], ["?"], [100]):
        found = system.recommend(session, 3, unknown="ignore")
        known = name in ("popularity", "session_popularity", "personal_frequency") and session == [100]
        assert [one.item for one in found] == wanted
        assert known or {one.why for one in found} == {"popular"}
    clicked = log.items.ids[:2].tolist()
    every = system.recommend(clicked, 100)
    assert not {one.item for one in every} & set(clicked)  # sessions repeat no item
    with pytest.raises(InputError, match="no session of its log repeats one"):
        system.explain(clicked, clicked[0])
    of_users_alone = name in ("tifu_knn", "up_cf")
    assert {one.why for one in every} == {"popular" if of_users_alone else "model"}
