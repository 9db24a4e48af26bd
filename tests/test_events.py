"""A log keeps what was written, in time order, and a cut forgets everything outside it."""

import warnings
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from graphmeta.data.events import EventLog, Inactivity
from graphmeta.data.graph import build_graph
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.sampling.samples import last_clicks, prefixes
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import fake_log

FRAME = pd.DataFrame(
    {
        "basket": ["x", "y", "x", "y", "z"],
        "sku": [30, 10, 20, 30, 10],
        "when": [100.0, 50.0, 120.0, 60.0, 200.0],
        "who": ["ann", "bob", "ann", "bob", "ann"],
        "paid": [1.5, 2.5, 3.5, 4.5, 5.5],
    }
)
SKUS = pd.DataFrame(
    {"sku": [10, 20, 30, 40], "brand": ["A", "B", None, "C"], "title": ["ten", "twenty", "thirty", "?"]}
)
PEOPLE = pd.DataFrame({"who": ["bob", "ann"], "age": [40, 30]})


def full(frame: pd.DataFrame = FRAME) -> EventLog:
    return EventLog.read(
        frame, session="basket", item="sku", time="when", user="who", value="paid",
        items=EntityTable.read(SKUS, key="sku", label="title"), users=EntityTable.read(PEOPLE, key="who"),
    )  # fmt: skip


def rows(log: EventLog) -> list[tuple]:
    """Every event in original ids: session, item, time, user, value, brand."""
    user = [None] * log.num_sessions if log.session_user is None else log.users.ids[log.session_user]
    value = [None] * log.num_events if log.value is None else log.value
    brand = log.items.attributes.get("brand")
    return [
        (log.sessions[s], log.items.ids[i], t, user[s], v, None if brand is None else brand.values[brand.codes[i]])
        for s, i, t, v in zip(log.session, log.item, log.time, value, strict=True)
    ]


def in_order(events: list[tuple]) -> list[tuple]:
    """Events (each session's in a row) with the sessions by their starts, ties as they are."""
    sessions: dict = {}
    for event in events:
        sessions.setdefault(event[0], []).append(event)
    return [event for own in sorted(sessions.values(), key=lambda own: own[0][2]) for event in own]


def check(log: EventLog) -> None:
    """What holds for every log, whatever it was read from."""
    assert len(log.session) == len(log.item) == len(log.time) == log.num_events
    assert log.session.dtype == log.item.dtype == np.int64 and log.time.dtype == np.float64
    assert np.isfinite(log.time).all()
    assert (np.diff(log.session) >= 0).all() and (np.diff(log.starts) >= 0).all()
    assert (np.diff(log.time)[np.diff(log.session) == 0] >= 0).all()
    assert (log.lengths > 0).all() and log.lengths.sum() == log.num_events
    assert sorted(set(log.session.tolist())) == list(range(log.num_sessions))
    assert not len(log.item) or 0 <= log.item.min() <= log.item.max() < log.num_items
    for known in (log.sessions, log.items.ids, *([] if log.users is None else [log.users.ids])):
        assert len(set(known.tolist())) == len(known)
        assert len({type(k) for k in known.tolist()}) <= 1
    assert log.support.sum() == log.num_events and len(log.support) == log.num_items


def fingerprint(log: EventLog) -> list:
    """Every byte of a log, and of the graph made from it."""
    arrays = [log.session, log.item, log.time, log.ptr, log.starts, log.support]
    arrays += [a for a in (log.session_user, log.value) if a is not None]
    tables = [t for t in (log.items, log.users) if t is not None]
    arrays += [attribute.codes for table in tables for attribute in table.attributes.values()]
    words = [log.sessions.tolist(), [t.ids.tolist() for t in tables]]
    words += [a.values.tolist() for t in tables for a in t.attributes.values()]
    graph = build_graph(log)
    for store in graph.stores:
        for key, value in store.items():
            arrays += [value.numpy()] if hasattr(value, "numpy") else []
            words += [(str(store._key), key, getattr(value, "dtype", value))]
    return [*((a.dtype, a.shape, a.tobytes()) for a in arrays), *words]


# Reading


def test_a_log_in_full() -> None:
    log = full()
    check(log)
    assert rows(log) == [
        ("y", 10, 50.0, "bob", 2.5, "A"),
        ("y", 30, 60.0, "bob", 4.5, ""),
        ("x", 30, 100.0, "ann", 1.5, ""),
        ("x", 20, 120.0, "ann", 3.5, "B"),
        ("z", 10, 200.0, "ann", 5.5, "A"),
    ]
    assert log.item.tolist() == [0, 1, 1, 2, 0] and log.session.tolist() == [0, 0, 1, 1, 2]
    assert log.ptr.tolist() == [0, 2, 4, 5] and log.lengths.tolist() == [2, 2, 1]
    assert log.support.tolist() == [2, 2, 1]
    assert log.users.ids.tolist() == ["bob", "ann"] and log.session_user.tolist() == [0, 1, 1]
    assert [log.items.describe(i) for i in range(3)] == ["ten [10]", "thirty [30]", "twenty [20]"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.tsv.gz", "a.parquet"])
def test_every_format_gives_the_same_log(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        FRAME.to_parquet(path)
    else:
        FRAME.to_csv(path, index=False, sep="\t" if ".tsv" in name else ",")
    log = EventLog.read(path, session="basket", item="sku", time="when", user="who", value="paid")
    assert rows(log) == [(*row[:5], None) for row in rows(full())]
    assert EventLog.read(str(path), session="basket", item="sku").num_sessions == 3


def test_iso_times_and_seconds_give_the_same_log() -> None:
    dates = FRAME.assign(when=pd.to_datetime(FRAME["when"], unit="s", utc=True).map(lambda t: t.isoformat()))
    assert fingerprint(full(dates)) == fingerprint(full())


def test_without_times_the_order_of_the_rows_is_the_order_of_the_world() -> None:
    log = EventLog.read(FRAME, session="basket", item="sku")
    check(log)
    assert not log.has_time and full().has_time
    assert [(s, i, t) for s, i, t, *_ in rows(log)] == [
        ("x", 30, 0), ("x", 20, 2), ("y", 10, 1), ("y", 30, 3), ("z", 10, 4)
    ]  # fmt: skip


def test_equal_times_keep_the_order_of_the_rows() -> None:
    frame = pd.DataFrame({"s": [2, 1, 2, 1], "i": ["b", "d", "a", "c"], "t": [7, 7, 7, 7]})
    log = EventLog.read(frame, session="s", item="i", time="t")
    assert [row[:2] for row in rows(log)] == [(2, "b"), (2, "a"), (1, "d"), (1, "c")]


def test_sessions_that_begin_at_once_are_ordered_by_their_first_events_rows() -> None:
    """And not by a later event that stands above: it would be the future that decides."""
    frame = pd.DataFrame({"s": ["a", "b", "a"], "i": [1, 2, 3], "t": [90, 5, 5]})
    assert EventLog.read(frame, session="s", item="i", time="t").sessions.tolist() == ["b", "a"]


def test_a_single_event_is_a_log() -> None:
    log = EventLog.read(FRAME.iloc[[0]], session="basket", item="sku", time="when")
    check(log)
    assert rows(log) == [("x", 30, 100.0, None, None, None)]
    assert len(prefixes(log)) == len(last_clicks(log)) == 0


def test_numeric_ids_stay_text_if_one_is_not_numeric(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("s,i\n1,007\n1,7\n2,007\n")
    log = EventLog.read(tmp_path / "a.csv", session="s", item="i")
    assert log.items.ids.tolist() == ["007", "7"] and log.sessions.tolist() == [1, 2]


def test_repeated_rows_are_dropped_with_times_and_kept_without() -> None:
    frame = pd.DataFrame({"s": [1, 1, 1, 2, 2], "i": [5, 5, 6, 5, 5], "t": [1, 1, 2, 1, 1], "x": [0, 0, 0, 0, 1]})
    with pytest.warns(
        UserWarning, match=r"repeat an earlier row in every column: 1 row \(the first: row 2\)"
    ) as caught:
        log = EventLog.read(frame, session="s", item="i", time="t")
    assert caught[0].filename == __file__
    assert log.num_events == 4
    assert EventLog.read(frame, session="s", item="i").num_events == 5


def test_rows_with_lists_can_repeat_too() -> None:
    frame = pd.DataFrame({"s": [1, 1, 1], "i": [5, 5, 6], "t": [1, 1, 2], "x": [[0], [0], [0]]})
    with pytest.warns(UserWarning, match="every column: 1 row "):
        assert EventLog.read(frame, session="s", item="i", time="t").num_events == 2


def test_row_numbers_are_those_of_the_file_when_repeated_rows_are_gone() -> None:
    frame = pd.DataFrame({"s": [1, 1, 1, 1], "i": ["a", "a", "b", None], "t": [1, 1, 2, 3], "u": [1, 1, 1, 2]})
    with pytest.warns(UserWarning, match="repeat"), pytest.raises(InputError, match="column 'i', row 4: the item"):
        EventLog.read(frame, session="s", item="i", time="t")
    with pytest.warns(UserWarning, match="repeat"), pytest.raises(InputError, match="row 4: session 1 has"):
        EventLog.read(frame.fillna("c"), session="s", item="i", time="t", user="u")


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        ({}, {"item": "nope"}, "no column 'nope' for the item; the table has: basket, sku, when, who, paid"),
        ({}, {"session": "nope"}, "no column 'nope' for the session"),
        ({}, {"time": "nope"}, "no column 'nope' for the time"),
        ({}, {"user": "nope"}, "no column 'nope' for the user"),
        ({}, {"value": "nope"}, "no column 'nope' for the value"),
        ({}, {"session": None, "user": None}, "no session column: name one .*, or user and time"),
        ({}, {"session": None, "time": None}, "no session column: name one .*, or user and time"),
        ({}, {"session": 0.0}, "inactivity of 0.0 seconds.*must be positive"),
        ({}, {"session": float("nan")}, "must be positive"),
        ({"when": [1, 2, np.nan, 4, 5]}, {}, "column 'when', row 3: the time is missing"),
        ({"when": ["1", "2", "3", "soon", "5"]}, {}, "column 'when', row 4: the time 'soon' cannot be read"),
        ({"sku": [1, 2, 3, 4, None]}, {}, "column 'sku', row 5: the item is missing"),
        ({"sku": pd.Series([1, 2, "3", 4, 5], dtype=object)}, {}, "column 'sku', row 3: the item '3' is text"),
        ({"paid": [1, 2, np.inf, 4, 5]}, {}, "column 'paid', row 3: the value inf"),
        ({"who": ["ann", "bob", "bob", "bob", "ann"]}, {}, "row 3: session 'x' has events of users 'ann' and 'bob'"),
        ({}, {"items": EntityTable.read(SKUS[1:], key="sku", complete=True)}, "item table: no row for 10"),
        ({}, {"users": EntityTable.read(PEOPLE[:1], key="who", complete=True)}, "user table: no row for 'ann'"),
        ({}, {"users": EntityTable.read(PEOPLE, key="who"), "user": None}, "a user table without a user column"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line_that_names_the_place(change: dict, options: dict, says: str) -> None:
    names = {"session": "basket", "item": "sku", "time": "when", "user": "who", "value": "paid"}
    with pytest.raises(InputError, match=says) as error:
        arguments = names | options
        if isinstance(arguments["session"], float):
            arguments["session"] = Inactivity(arguments["session"])
        EventLog.read(FRAME.assign(**change), **arguments)
    assert "\n" not in str(error.value)


def test_an_empty_log_is_refused() -> None:
    with pytest.raises(InputError, match="no rows"):
        EventLog.read(FRAME.iloc[:0], session="basket", item="sku")


def test_an_item_without_a_row_is_unknown_if_allowed() -> None:
    table = EntityTable.read(SKUS[1:], key="sku", attributes=["brand"], complete=False)
    log = EventLog.read(FRAME, session="basket", item="sku", time="when", items=table)
    assert log.items.ids.tolist() == [10, 30, 20]
    assert log.items.attributes["brand"].codes.tolist() == [0, 0, 1]


def test_a_table_in_text_fits_a_log_in_numbers() -> None:
    table = EntityTable.read(SKUS.assign(sku=["10", "20", "30", "x40"]), key="sku", attributes=["brand"])
    assert table.ids.dtype == object
    log = EventLog.read(FRAME, session="basket", item="sku", time="when", items=table)
    assert [row[5] for row in rows(log)] == ["A", "", "", "B", "A"]


# Sessions by inactivity


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from(["u", "v", "u#1"]), st.integers(0, 60)), min_size=1, max_size=25),
    st.sampled_from([1, 4, 10, 1000]),
)
def test_sessions_by_inactivity_against_a_plain_loop(events: list[tuple[str, int]], pause: int) -> None:
    clicks: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row, (user, time) in enumerate(events):
        clicks[user].append((time, row))
    expected = {}
    for user, own in clicks.items():
        number, previous = 0, None
        for time, row in sorted(own):
            number += previous is not None and time - previous > pause
            previous = time
            expected[row] = (f"{user}#{number}", user)
    frame = pd.DataFrame(events, columns=["u", "t"]).assign(row=range(len(events)))
    log = EventLog.read(frame, item="row", user="u", time="t", session=Inactivity(pause))
    check(log)
    assert {item: (session, user) for session, item, _, user, *_ in rows(log)} == expected


# Cuts


EVENTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 7), st.integers(0, 30)), min_size=1, max_size=40)


def frame_of(events: list[tuple[int, int, int]]) -> pd.DataFrame:
    frame = pd.DataFrame(events, columns=["s", "i", "t"]).astype(np.int64)
    return frame.assign(u=frame["s"] // 2, v=np.arange(len(frame)) / 2)


def log_of(events: list[tuple[int, int, int]]) -> EventLog:
    table = pd.DataFrame({"i": range(8), "brand": list("AABBCC") + [None, "A"], "i2": list("xyxyxyxy")})
    users = pd.DataFrame({"u": range(4), "brand": ["k", "l", "k", None]})
    return EventLog.read(
        frame_of(events), session="s", item="i", time="t", user="u", value="v",
        items=EntityTable.read(table, key="i"), users=EntityTable.read(users, key="u"),
    )  # fmt: skip


@settings(max_examples=30)
@given(EVENTS, st.integers(-1, 31))
def test_before_and_after_against_a_plain_loop(events: list, cut: int) -> None:
    log = log_of(events)
    starts = {s: t for s, _, t, *_ in reversed(rows(log))}
    before, after = log.before(cut), log.after(cut)
    check(before), check(after)
    assert rows(before) == [row for row in rows(log) if row[2] < cut]
    assert rows(after) == [row for row in rows(log) if starts[row[0]] >= cut]
    assert set(before.items.ids) == {row[1] for row in rows(before)}
    assert set(after.users.ids) == {row[3] for row in rows(after)}


@settings(max_examples=30)
@given(EVENTS, st.data())
def test_select_keeps_ids_and_numbers_anew(events: list, data: st.DataObject) -> None:
    log = log_of(events)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=log.num_events, max_size=log.num_events)), dtype=bool)
    kept = log.select(mask)
    check(kept)
    assert rows(kept) == in_order([row for row, keep in zip(rows(log), mask, strict=True) if keep])
    assert set(kept.item) == set(range(kept.num_items))
    sessions = data.draw(st.sets(st.integers(0, log.num_sessions - 1)))
    chosen = np.isin(np.arange(log.num_sessions), list(sessions))
    names = set(log.sessions[chosen])
    assert rows(log.of_sessions(chosen)) == [row for row in rows(log) if row[0] in names]


@settings(max_examples=30)
@given(EVENTS, st.integers(1, 12))
def test_periods_leave_no_event_out(events: list, seconds: int) -> None:
    log = log_of(events)
    first = min(row[2] for row in rows(log))
    periods = list(log.periods(seconds))
    for number, period in enumerate(periods):
        check(period)
        assert rows(period) == in_order([row for row in rows(log) if (row[2] - first) // seconds == number])
    assert sum(period.num_events for period in periods) == log.num_events
    assert periods[-1].num_events


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_period_has_a_length(seconds: float) -> None:
    with pytest.raises(InputError, match="longer than 0 seconds"):
        next(full().periods(seconds))


@settings(max_examples=30)
@given(EVENTS, st.integers(1, 4), st.integers(1, 4))
def test_filter_against_a_naive_loop(events: list, support: int, length: int) -> None:
    log = log_of(events)
    left = rows(log)
    while True:
        items, sessions = Counter(row[1] for row in left), Counter(row[0] for row in left)
        kept = [row for row in left if items[row[1]] >= support and sessions[row[0]] >= length]
        if kept == left:
            break
        left = kept
    if not left:
        with pytest.raises(InputError, match=f"at least {support} events and sessions of at least {length}"):
            log.filter(min_item_support=support, min_session_length=length)
        return
    filtered = log.filter(min_item_support=support, min_session_length=length)
    check(filtered)
    assert rows(filtered) == in_order(left)
    assert rows(filtered.filter(min_item_support=support, min_session_length=length)) == rows(filtered)


def test_filter_drops_users_of_few_sessions_to_a_fixed_point() -> None:
    """Item y is rare; without it session b2 is too short; without that user b has too few."""
    rows = [("a1", "x", "a"), ("a1", "x", "a"), ("a2", "x", "a"), ("a2", "z", "a"), ("a2", "z", "a")]
    rows += [("b1", "x", "b"), ("b1", "z", "b"), ("b2", "y", "b"), ("b2", "x", "b")]
    frame = pd.DataFrame(rows, columns=["s", "i", "u"])
    log = EventLog.read(frame, session="s", item="i", user="u")
    kept = log.filter(min_item_support=2, min_session_length=2, min_user_sessions=2)
    assert kept.sessions.tolist() == ["a1", "a2"] and kept.users.ids.tolist() == ["a"]
    assert log.filter(min_item_support=2, min_session_length=2).sessions.tolist() == ["a1", "a2", "b1"]
    nobody = replace(log, session_user=np.where(log.session_user == 1, -1, log.session_user))
    assert nobody.filter(min_user_sessions=2).num_events == log.num_events
    with pytest.raises(InputError, match="users of at least 3 sessions; lower"):
        log.filter(min_user_sessions=3)


@settings(max_examples=30)
@given(EVENTS, EVENTS)
def test_aligned_to_speaks_of_the_same_items(events: list, others: list) -> None:
    log, known = log_of(events), log_of(others)
    aligned = log.aligned_to(known.items, log.users)
    check(aligned)
    assert aligned.items is known.items
    assert rows(aligned) == in_order([row for row in rows(log) if row[1] in set(known.items.ids)])


def test_a_log_cut_to_nothing_is_still_a_log() -> None:
    empty = full().before(0)
    check(empty)
    assert (empty.num_events, empty.num_sessions, empty.num_items, len(empty.users)) == (0, 0, 0, 0)
    assert rows(empty.after(0)) == [] and list(empty.periods(5)) == []
    assert session_batch(last_clicks(empty), num_items=1)["sample"].num_nodes == 0


# What must not matter


@settings(max_examples=30)
@given(EVENTS, st.data())
def test_other_names_give_the_same_numbers(events: list, data: st.DataObject) -> None:
    frame = frame_of(events)
    words = data.draw(st.lists(st.text(min_size=1, max_size=3).filter(str.strip), min_size=8, max_size=8, unique=True))
    renamed = frame.assign(s=-1000 * frame["s"], i=pd.Series([words[i] for i in frame["i"]], dtype=object))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* (differ by blanks|missing value)")
        log, other = (EventLog.read(f, session="s", item="i", time="t", user="u", value="v") for f in (frame, renamed))
    for name in ("session", "item", "time", "session_user", "value"):
        assert getattr(log, name).tobytes() == getattr(other, name).tobytes()
    assert [words[i] for i in log.items.ids] == [str(i) for i in other.items.ids]
    assert [-1000 * s for s in log.sessions] == other.sessions.tolist()


@settings(max_examples=30)
@given(st.permutations(range(20)), st.permutations(range(20)), st.permutations(["s", "i", "t", "u", "v"]))
def test_the_order_of_rows_and_columns_does_not_matter(times: list, order: list, columns: list) -> None:
    events = [(row % 5, (row * 7) % 8, time) for row, time in enumerate(times)]
    options = {"session": "s", "item": "i", "time": "t", "user": "u", "value": "v"}
    frame = frame_of(events)
    again = EventLog.read(frame.iloc[order][columns], **options)
    assert fingerprint(again) == fingerprint(EventLog.read(frame, **options))


# Leakage


@given(EVENTS, EVENTS, st.integers(1, 30), st.booleans(), st.randoms(use_true_random=False))
@example([(0, 0, 5), (1, 1, 5)], [(1, 2, 20)], 10, True, None)
def test_the_future_changes_nothing_before_the_cut(events, future, cut, sessions, random) -> None:
    """Events at or after the cut are changed, added and removed, and stand anywhere in the file."""
    past = [event for event in events if event[2] < cut]
    if not past:
        return
    mixed = [(0, event) for event in past]
    for event in future:
        at = 0 if random is None else random.randint(0, len(mixed))
        mixed.insert(at, (1, (*event[:2], event[2] + cut)))
    number = iter(range(len(past)))
    frame = frame_of([event for _, event in mixed])
    frame["v"] = [-1.0 if late else next(number) for late, _ in mixed]
    options = {"item": "i", "time": "t", "user": "u", "value": "v"}
    options |= {"session": "s"} if sessions else {"session": Inactivity(3)}
    table = pd.DataFrame({"i": range(8), "brand": list("AABBCC") + [None, "A"]})
    people = pd.DataFrame({"u": range(4), "brand": ["k", "l", "k", None]})
    tables = {"items": EntityTable.read(table, key="i"), "users": EntityTable.read(people, key="u")}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* repeat an earlier row")
        with_future = EventLog.read(frame, **options, **tables).before(cut)
        alone = EventLog.read(frame[frame["v"] >= 0], **options, **tables)
    assert fingerprint(with_future) == fingerprint(alone) == fingerprint(alone.before(cut))


# Fuzz


NAIVE = st.datetimes(min_value=pd.Timestamp("1800-01-01").to_pydatetime())
AWARE = st.datetimes(timezones=st.timezones())
ODD = [
    st.integers(0, 5), st.integers(), st.integers(-(2**70), 2**70), st.floats(), st.sampled_from([0.0, 1.0, 2.0]),
    st.text(max_size=4), st.sampled_from(["1", "2", "07", "nan", "inf", "NaT", "now", "1e400", "\ud800", ""]),
    st.sampled_from(["2024-05-01", "2024-05-01T12:00:00+02:00", "2024-05-01 12:00", "20240501T12", "2024-02-30"]),
    st.binary(max_size=3), st.booleans(), st.none(), st.just(pd.NaT), st.just(pd.NA), NAIVE, AWARE,
    NAIVE.map(pd.Timestamp), st.just(pd.Timestamp("2024", tz="UTC").as_unit("s") - pd.Timedelta(10**11, "s")),
    st.dates(), st.decimals(allow_nan=False), st.complex_numbers(), st.just(10**400), st.just([1]),
    st.timedeltas(), st.just(np.datetime64("NaT")), st.just(np.float32(3)), st.just({}), st.fractions(),
]  # fmt: skip
GOOD = {
    "s": st.integers(0, 3), "i": st.integers(0, 3), "t": st.integers(0, 9), "u": st.just("x"), "v": st.floats(0, 1),
}  # fmt: skip
DTYPES = [None, object, object, "category", "string", "Int64", "float32", "uint64", "datetime64[s, UTC]", "bool"]


@st.composite
def odd_columns(draw: st.DrawFn, size: int, good: st.SearchStrategy) -> pd.Series | None:
    """A column that is fine, of one odd kind, of a few kinds mixed, or not there."""
    how = draw(st.sampled_from(["good", "good", "good", "one", "mixed", "missing"]))
    if how == "missing":
        return None
    kinds = {"good": st.just(good), "one": st.sampled_from(ODD), "mixed": st.sampled_from(ODD)}[how]
    value = draw(kinds) if how != "mixed" else st.one_of(good, draw(kinds), draw(kinds))
    values = draw(st.lists(value, min_size=size, max_size=size))
    try:
        return pd.Series(values, dtype=draw(st.sampled_from(DTYPES)) if how != "good" else None)
    except Exception:  # what pandas cannot hold, nobody can pass
        return pd.Series(values, dtype=object)


@st.composite
def odd_frames(draw: st.DrawFn) -> pd.DataFrame:
    size = draw(st.integers(0, 6))
    columns = {name: draw(odd_columns(size, good)) for name, good in GOOD.items()}
    frame = pd.DataFrame({name: c for name, c in columns.items() if c is not None})
    if size and draw(st.integers(0, 4)) == 0:
        frame = pd.concat([frame, frame.iloc[:1]])
    return frame


@settings(max_examples=150)
@given(odd_frames(), st.sampled_from([("s", None), ("s", "u"), (None, "u")]), st.booleans(), st.booleans())
def test_whatever_comes_in_is_a_log_or_an_input_error(frame, names, timed: bool, valued: bool) -> None:
    session, user = names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            log = EventLog.read(
                frame, session=session, item="i", user=user, time="t" if timed else None, value="v" if valued else None
            )
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 400
            return
    check(log)
    build_graph(log)
    session_batch(prefixes(log), num_items=log.num_items)


@settings(max_examples=60)
@given(odd_frames(), st.booleans())
def test_whatever_comes_in_is_a_table_or_an_input_error(frame: pd.DataFrame, complete: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            table = EntityTable.read(frame, key="i", label="u" if "u" in frame else None, complete=complete)
            aligned = table.aligned(np.arange(4))
        except InputError as error:
            assert "\n" not in str(error)
            return
    assert len(aligned) == 4
    for attribute in aligned.attributes.values():
        assert attribute.codes.max(initial=0) < attribute.size and attribute.values[0] == ""


@settings(max_examples=60)
@given(st.binary(max_size=40) | st.text(alphabet="si,;\t\n\"'12aé", max_size=40).map(str.encode))
def test_whatever_bytes_are_in_a_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "odd.csv"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* (differ by blanks|missing value)")
        try:
            check(EventLog.read(path, session="s", item="i"))
        except InputError as error:
            assert "\n" not in str(error)


def test_unknown_users_stay_unknown_when_a_log_is_numbered_again() -> None:
    log = fake_log(sessions=30)
    for count in (3, 0):
        once = log.aligned_to(log.items, log.users.take(np.arange(count)))
        again = once.aligned_to(once.items, once.users)
        assert (once.session_user >= count).sum() == 0 and (once.session_user == -1).sum() > 0
        assert np.array_equal(again.session_user, once.session_user)
    assert log.aligned_to(log.items).session_user is None


@pytest.mark.parametrize(
    ("column", "last"), [("basket", "x"), ("sku", 20), ("when", 201.0), ("who", "bob"), ("paid", 5.0)]
)
def test_a_fingerprint_distinguishes_logs(column: str, last: object) -> None:
    other = FRAME.assign(**{column: [*FRAME[column][:-1], last]})
    assert full(other).fingerprint() != full().fingerprint() == full(FRAME.iloc[::-1]).fingerprint()


def test_a_fingerprint_depends_on_item_ids_but_not_on_labels() -> None:
    log = full()
    renamed = replace(log, items=replace(log.items, labels=None))
    without = replace(log, items=log.items.without("categorical"))
    assert renamed.fingerprint() == log.fingerprint() != without.fingerprint()


# Looking at a log


@pytest.mark.parametrize("name", ["full", "plain", "walk"])
def test_a_frame_of_original_ids_is_read_back(name: str) -> None:
    log = {
        "full": full(),
        "plain": EventLog.read(FRAME, session="basket", item="sku"),
        "walk": fake_log(sessions=12),
    }[name]
    frame = log.to_frame()
    columns = {c: c for c in frame.columns}
    again = EventLog.read(frame, **columns)
    assert again.to_frame().equals(frame) and len(frame) == log.num_events
    assert again.sessions.tolist() == log.sessions.tolist()
    assert again.time.tolist() == log.time.tolist() or not log.has_time
    assert again.item.tolist() == again.items.rows_of(log.items.ids[log.item]).tolist()


def test_a_frame_holds_what_was_written() -> None:
    wanted = FRAME.rename(columns={"basket": "session", "sku": "item", "when": "time", "who": "user", "paid": "value"})
    wanted = wanted.iloc[[1, 3, 0, 2, 4]]  # session y begins first
    assert full().to_frame().to_dict("list") == wanted.to_dict("list")


def test_an_unknown_user_is_missing_in_the_frame() -> None:
    log = full()
    known = log.of_sessions(np.array([True, False, False]))
    other = log.aligned_to(log.items, known.users)
    assert other.to_frame()["user"].fillna("nobody").tolist() == ["bob", "bob", "nobody", "nobody", "nobody"]


def test_a_log_prints_as_three_lines() -> None:
    told = str(full()).splitlines()
    assert told == [
        "EventLog: 5 events in 3 sessions, 3 items, 2 users; 1.7 events a session",
        "  time: 1970-01-01 00:00 to 1970-01-01 00:03 (UTC)",
        "  columns: session, item, time, user, value; items: brand; users: age",
    ]
    assert repr(full()) == str(full())
    plain = str(EventLog.read(FRAME, session="basket", item="sku"))
    assert plain.count("\n") == 2 and "none; events are in the order of their rows" in plain
    empty = full().select(np.zeros(5, dtype=bool))
    assert str(empty).count("\n") == 2 and empty._repr_html_()


def test_a_notebook_shows_a_table_and_the_first_events() -> None:
    frame = FRAME.assign(sku=["<b>", "c", "d", "e", "f"])
    html = EventLog.read(frame, session="basket", item="sku")._repr_html_()
    assert html.startswith("<table>") and "&lt;b&gt;" in html and "<b>" not in html
