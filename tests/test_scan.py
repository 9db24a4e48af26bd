"""A scanned log is the log that is read in memory, with every option that a scan supports."""

import itertools
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graphmeta.data.events import EventLog
from graphmeta.data.read_options import ActionWeights, Inactivity, ReadOptions
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.splits import last_sessions, split_by_time
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

BEGIN = 1_714_521_600  # 2024-05-01 UTC
SLOW = pytest.mark.slow
PARTS = ("train", "valid", "test")


def frame(seed: int, *, rows: int = 120, repeats: int = 5, known: bool = False) -> pd.DataFrame:
    """Rows of a log in any order, with equal times, repeated rows and unknown users."""
    random = np.random.default_rng(seed)
    session = random.integers(0, 25, rows)
    out = pd.DataFrame(
        {
            "session": session * 3 - 7,
            "item": random.integers(0, 20, rows),
            "time": BEGIN + random.integers(0, 40, rows) * 900,
            "user": pd.array(session % 6, dtype="Int64"),
            "event": random.choice(["view", "cart", "buy"], rows),
            "price": random.integers(0, 50, rows) / 4,
        }
    )
    out.loc[(out["user"] == 5) & (not known), "user"] = pd.NA
    return pd.concat([out.drop_duplicates(), out.iloc[random.integers(0, rows, repeats)]], ignore_index=True)


def of_text(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(item="i" + data["item"].astype(str), session=" s" + data["session"].astype(str),
                       user="u" + data["user"].astype("string"))  # fmt: skip


def iso(data: pd.DataFrame) -> pd.DataFrame:
    stamps = pd.to_datetime(data["time"], unit="s")
    forms = [stamps.dt.strftime("%Y-%m-%dT%H:%M:%SZ"), stamps.dt.strftime("%Y-%m-%d %H:%M:%S.250+02:00")]
    return data.assign(time=np.where(np.arange(len(data)) % 2, *forms))


SHAPES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "numbers": lambda data: data,
    "text": of_text,
    "whole text": lambda data: data.assign(item=data["item"].astype(str) + ".0", session=data["session"].astype(float)),
    "milliseconds": lambda data: data.assign(time=data["time"] * 1000 + 7),
    "fractions": lambda data: data.assign(time=data["time"] + 0.1),
    "timestamps": lambda data: data.assign(time=pd.to_datetime(data["time"], unit="s")),
    "nanoseconds": lambda data: data.assign(
        time=pd.to_datetime(data["time"] * 10**9 + 123_456_789, unit="ns", utc=True)
    ),
    "dates": lambda data: data.assign(time=pd.to_datetime(data["time"] * 24, unit="s").dt.date),
    "iso": iso,
    "compact": lambda data: data.assign(time=pd.to_datetime(data["time"], unit="s").dt.strftime("%Y%m%d%H%M%S")),
    "compact numbers": lambda data: data.assign(
        time=pd.to_datetime(data["time"], unit="s").dt.strftime("%Y%m%d").astype(int)
    ),
    "row number": lambda data: data.assign(number=np.arange(5, len(data) + 5)),
    "old times": lambda data: data.assign(time=data["time"] - BEGIN),
    "clock": lambda data: data.assign(
        time=pd.to_datetime("2024-10-27 01:30:00") + pd.to_timedelta((data["time"] - BEGIN) % 2700, unit="s")
    ),
    "blanks and words": lambda data: data.assign(
        item=data["item"].map(lambda n: ["a", " a", "a  b", "a b", "NA", "null"][n % 6])
    ),
    "truth values": lambda data: data.assign(item=data["item"] > 9),
    "unsigned": lambda data: data.assign(item=data["item"].astype("uint64") + (2**64 - 30)),
}
ROLES = {
    "all": {"session": "session", "item": "item", "time": "time", "user": "user", "value": "price"},
    "inactivity": {"item": "item", "time": "time", "user": "user", "session": Inactivity(2000.0)},
    "plain": {"session": "session", "item": "item", "time": "time"},
    "no times": {
        "session": "session",
        "item": "item",
        "value": ActionWeights("event", {"view": 1, "cart": 2.5, "buy": 4}),
    },
}
OPTIONS = {
    "none": ReadOptions(),
    "where": ReadOptions(where={"event": ["view", "cart"]}),
    "bad rows": ReadOptions(drop_bad_rows=True),
}


def write(data: pd.DataFrame, folder: Path, kind: str, *, files: int = 3) -> str:
    """The rows in several files; the pattern."""
    for number, rows in enumerate(np.array_split(np.arange(len(data)), files)):
        part, path = data.iloc[rows], folder / f"part{number}.{kind}"
        part.to_parquet(path, index=False) if kind == "parquet" else part.to_csv(path, index=False)
    return str(folder / f"part*.{kind}")


def whole(data: pd.DataFrame, folder: Path, kind: str) -> Path:
    """The same rows in one file, for reading in memory."""
    path = folder / f"whole.{kind}"
    data.to_parquet(path, index=False) if kind == "parquet" else data.to_csv(path, index=False)
    return path


def read_both(data: pd.DataFrame, folder: Path, kind: str, options: ReadOptions, roles: dict) -> tuple[object, object]:
    """The log in memory and the scanned one, each with its warnings; or the error of each."""
    found = []
    for read, source in ((EventLog.read, whole(data, folder, kind)), (scan, write(data, folder, kind))):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                log = read(options.of(source), **roles)
            except InputError as error:
                log = str(error)
        found.append((log, sorted(str(one.message) for one in said)))
    return found[0], found[1]


def scan(source: object, **roles: object) -> ScannedLog:
    return EventLog.scan(source, memory="256MB", **roles)


def without_files(text: str) -> str:
    """A message without the names of files and row numbers."""
    return re.sub(r"(\S*part\d\.\w+[,:] ?)|(row \d+)", "", text)


def same(one: EventLog, other: EventLog | ScannedLog) -> None:
    if isinstance(other, ScannedLog):
        assert other.fingerprint() == one.fingerprint()
        assert (other.num_events, other.num_sessions, other.num_items) == (
            one.num_events,
            one.num_sessions,
            one.num_items,
        )
        np.testing.assert_array_equal(other.support, one.support)
        np.testing.assert_array_equal(other.starts, one.starts)
        other = other.collect()
    assert other.fingerprint() == one.fingerprint()
    assert other.sessions.tolist() == one.sessions.tolist() and other.has_time == one.has_time
    assert other.items.ids.dtype == one.items.ids.dtype


def check(data: pd.DataFrame, folder: Path, kind: str, options: ReadOptions, roles: dict) -> None:
    """A scan has the log, the warnings and the errors of reading in memory."""
    (own, said), (scanned, warned) = read_both(data, folder, kind, options, roles)
    assert list(map(without_files, warned)) == list(map(without_files, said))
    if isinstance(own, str) or isinstance(scanned, str):
        assert without_files(str(scanned)) == without_files(str(own))
        return
    same(own, scanned)


QUICK = {
    ("numbers", "all", "parquet", "none"),
    ("iso", "inactivity", "csv", "where"),
    ("text", "plain", "csv", "bad rows"),
    ("compact numbers", "no times", "parquet", "none"),
}
CASES = [
    pytest.param(*case, marks=[] if case in QUICK else SLOW)
    for case in itertools.product(SHAPES, ROLES, ("parquet", "csv"), OPTIONS)
]


@pytest.mark.parametrize(("shape", "roles", "kind", "options"), CASES)
def test_a_scan_reads_what_reading_in_memory_reads(
    tmp_path: Path, shape: str, roles: str, kind: str, options: str
) -> None:
    data = SHAPES[shape](frame(len(shape) + len(roles), known=roles == "inactivity"))
    if options == "bad rows":
        data = data.astype(object)
        data.loc[3, "item"], data.loc[[4, 50], "time"], data.loc[60, "session"] = None, None, None
        data = data.convert_dtypes()
    check(data, tmp_path, kind, OPTIONS[options], ROLES[roles])


@SLOW
@pytest.mark.parametrize("form", ["%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M %z", "h", "ms"])
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_time_formats(tmp_path: Path, form: str, kind: str) -> None:
    data = frame(3)
    stamps = pd.to_datetime(data["time"], unit="s", utc=True)
    data["time"] = (
        stamps.dt.strftime(form) if "%" in form else data["time"] / 3600 if form == "h" else data["time"] * 1000
    )
    check(data, tmp_path, kind, ReadOptions(time_format=form), ROLES["all"])


BAD: dict[str, tuple[str, object]] = {
    "no item": ("item", None), "no time": ("time", None), "time": ("time", "soon"), "no session": ("session", " "),
    "price": ("price", "dear"), "action": ("event", "returned"),
}  # fmt: skip


@SLOW
@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("bad", BAD)
def test_bad_rows_are_named_or_dropped(tmp_path: Path, bad: str, drop: bool) -> None:
    data = frame(1).astype(object)
    column, value = BAD[bad]
    data.loc[[60, 61, 90], column] = value
    roles = ROLES["all"] | (
        {"value": ActionWeights("event", {"view": 1, "cart": 2, "buy": 3})} if bad == "action" else {}
    )
    check(data, tmp_path, "csv", ReadOptions(drop_bad_rows=drop), roles)


def test_the_place_of_a_bad_row_is_its_file_and_its_row_there(tmp_path: Path) -> None:
    data = frame(1, repeats=0).astype({"item": "Int64"})
    data.loc[60, "item"] = pd.NA
    pattern = write(data, tmp_path, "csv", files=5)
    with pytest.raises(InputError, match=r"part2\.csv: column 'item', row 13: the item is missing"):
        scan(pattern, **ROLES["all"])


@SLOW
def test_users_of_a_session(tmp_path: Path) -> None:
    times = [BEGIN, BEGIN + 1, BEGIN + 2, BEGIN + 3]
    data = pd.DataFrame({"session": [1, 1, 2, 2], "item": [1, 2, 3, 4], "time": times, "price": [1, 2, 3, 4]})
    data["user"] = ["", "a", "b", "b"]
    check(data, tmp_path, "csv", ReadOptions(), ROLES["all"])  # named late: a warning
    data["user"] = ["c", "a", "b", "b"]
    check(data, tmp_path, "csv", ReadOptions(), ROLES["all"])  # two users: an error
    data["user"] = [None] * 4
    check(data, tmp_path, "csv", ReadOptions(), ROLES["all"])


@SLOW
def test_numbers_of_sessions_that_begin_anew(tmp_path: Path) -> None:
    data = pd.DataFrame(
        {"session": [1, 1, 2, 3, 1, 1, 2], "item": [1, 2, 3, 4, 5, 6, 7], "price": 1.0, "event": "view"}
    )
    check(data, tmp_path, "csv", ReadOptions(), ROLES["no times"])
    assert len(read_both(data, tmp_path, "csv", ReadOptions(), ROLES["no times"])[1][1]) == 1


@SLOW
def test_item_and_user_tables(tmp_path: Path) -> None:
    data = frame(2)
    items = EntityTable.read(pd.DataFrame({"item": range(25), "brand": ["X", "Y", "Z", "X", "Y"] * 5}), key="item")
    users = EntityTable.read(pd.DataFrame({"user": range(6), "age": [20, 30, 20, 30, 20, 30]}), key="user")
    check(data, tmp_path, "parquet", ReadOptions(), ROLES["all"] | {"items": items, "users": users})


@pytest.mark.parametrize("roles", ["all", pytest.param("inactivity", marks=SLOW), pytest.param("no times", marks=SLOW)])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=SLOW)])
def test_cuts_are_those_of_a_log_in_memory(tmp_path: Path, seed: int, roles: str) -> None:
    own, scanned = (
        one[0] for one in read_both(frame(seed, known=True), tmp_path, "parquet", ReadOptions(), ROLES[roles])
    )
    assert isinstance(own, EventLog) and isinstance(scanned, ScannedLog)
    random = np.random.default_rng(seed)
    cut = float(np.quantile(own.time, 0.6))
    chosen = random.random(own.num_sessions) < 0.5
    half, rules = own.of_sessions(chosen), {"min_item_support": 5, "min_session_length": 2}
    for one, other in (
        (own.before(cut), scanned.before(cut)),
        (own.after(cut), scanned.after(cut)),
        (half, scanned.of_sessions(chosen)),
        (own.filter(**rules), scanned.filter(**rules)),
        (own.filter(min_user_sessions=2), scanned.filter(min_user_sessions=2)),
        (own.aligned_to(half.items, half.users), scanned.aligned_to(half.items, half.users)),
        (own.aligned_to(half.items), scanned.aligned_to(half.items)),
        *zip(last_sessions(own, 7), last_sessions(scanned, 7), strict=True),
        *((getattr(split_by_time(own), part), getattr(split_by_time(scanned), part)) for part in PARTS),
    ):
        same(one, other)
    twice = [one.before(cut).filter(min_item_support=3).before(cut - 900) for one in (own, scanned)]
    same(twice[0], twice[1])
    same(own, scanned)  # cuts have not changed the log


def test_a_filter_that_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no event is left with items of at least 99 events"):
        scan(write(frame(0, repeats=0), tmp_path, "parquet"), **ROLES["all"]).filter(min_item_support=99)


@pytest.mark.parametrize("roles", ["all", pytest.param("plain", marks=SLOW)])
def test_shards_are_a_partition_of_the_sessions(tmp_path: Path, roles: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned = scan(write(frame(0, repeats=0), tmp_path, "parquet"), **ROLES[roles])
    monkeypatch.setattr("graphmeta.data.scan.stored.PER_EVENT", scanned.memory / 40)
    own = scanned.collect()
    assert scanned.num_shards > 2
    for seed in (0, 1):
        parts = list(scanned.shards(seed=seed))
        assert [part.num_events for part in parts] == scanned.shard_sizes(seed=seed).tolist()
        assert all(part.items is scanned.items for part in parts)
        found = sorted(
            (str(part.sessions[s]), int(i), t, u)
            for part in parts
            for s, i, t, u in zip(part.session, part.item, part.time, users(part), strict=True)
        )
        every = zip(own.sessions[own.session].astype(str), own.item.tolist(), own.time, users(own), strict=True)
        assert found == sorted(every)
        for part in parts:  # each has the order of a log
            same(part.select(np.ones(part.num_events, bool)), part.select(np.ones(part.num_events, bool)))
            assert (np.diff(part.starts) >= 0).all() and (np.diff(part.session) >= 0).all()
        if roles == "all":
            owners = [{u for u in part.session_user if u >= 0} for part in parts]
            assert sum(map(len, owners)) == len(set.union(*owners))
    assert list(scanned.shards(seed=1))[0].fingerprint() != list(scanned.shards(seed=0))[0].fingerprint()


def users(log: EventLog) -> list[int]:
    return [-1] * log.num_events if log.session_user is None else log.session_user[log.session].tolist()


@pytest.mark.parametrize("drop", [False, True])
def test_a_line_with_more_fields_is_an_error_and_never_cut(tmp_path: Path, drop: bool) -> None:
    lines = ["s,i,t", "1,2,20240501", "1,3,20240501,extra", "1,4,20240502"]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"a\.csv: not a readable table .*Line: 3.*EventLog\.read"):
        scan(ReadOptions(drop_bad_rows=drop).of(tmp_path / "a.csv"), session="s", item="i", time="t")


CELLS = [
    "1",
    "2",
    "07",
    "a",
    '"q"',
    '"a,b"',
    '""',
    "1.0",
    "2.5",
    "-3",
    "1e3",
    "NA",
    "+1",
    "9223372036854775808",
    "x;y",
    '"a""b"',
    'a"b',
    "é",
    "",
    " a",
    "b c",
    "\xa0",
]
TIMES = [["1714521600", "1714521660", "1714521600.5"], ["2024-05-01", "2024-05-02T10:00:00Z"], ["20240501", "20240502"],
         ["1714521600", "x"]]  # fmt: skip


@SLOW
@pytest.mark.parametrize("seed", range(150))
def test_random_text_files_are_the_same_log_the_same_error_or_refused(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    pool, times = random.choice(CELLS, random.integers(2, 6)), TIMES[random.integers(len(TIMES))]
    rows = [[*random.choice(pool, 2), random.choice(times)] for _ in range(random.integers(1, 12))]
    end = str(random.choice(["\n", "\r\n"]))
    lines = [",".join(row[: 2 if random.random() < 0.05 else 3]) + end * (random.random() < 0.05) for row in rows]
    path = tmp_path / "a.csv"
    path.write_bytes(end.join(["s,i,t", *lines, ""]).encode())
    found = []
    for read in (EventLog.read, scan):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                roles = {"session": "s", "item": "i", **({"time": "t"} if seed % 3 else {})}
                found.append(read(ReadOptions(drop_bad_rows=seed % 4 == 0).of(path), **roles))
            except InputError as error:
                found.append(str(error))
    if isinstance(found[1], str) and "not a readable table" in found[1]:
        assert "EventLog.read" in found[1]  # quotes that only reading in memory takes
    elif isinstance(found[0], str):
        assert found[1] == found[0]
    else:
        same(found[0], found[1])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (ReadOptions(encoding="latin-1"), "EventLog.read"),
        (ReadOptions(sep="::"), "one character"),
    ],
)
def test_what_a_scan_does_not_support_is_refused_with_the_remedy(
    tmp_path: Path, options: ReadOptions, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        scan(options.of(write(frame(0), tmp_path, "csv")), **ROLES["all"])


def test_other_refusals(tmp_path: Path) -> None:
    data = frame(0)
    with pytest.raises(InputError, match="no such file; check the path or pattern"):
        scan(str(tmp_path / "*.parquet"), item="item", session="session")
    with pytest.raises(InputError, match="a frame is in memory already"):
        scan(data, item="item", session="session")
    pattern = write(data, tmp_path, "csv")
    (tmp_path / "part9.csv").write_text("session,item\n1,2\n")
    with pytest.raises(InputError, match=r"part9\.csv: its columns are not those of .*part0\.csv"):
        scan(pattern, item="item", session="session")
    (tmp_path / "part9.csv").write_text("session,item,time,user,event,price\n1,2,3,4,view,5,6,7\n")
    with pytest.raises(InputError, match=r"part9\.csv: .*more fields than the header"):
        scan(pattern, item="item", session="session")
    data["price"] = data["price"].map(lambda price: [price])
    with pytest.raises(InputError, match="EventLog.read"):
        scan(write(data, tmp_path, "parquet"), item="item", session="session", value="price")
    with pytest.raises(InputError, match="256MB"):
        EventLog.scan(pattern, item="item", session="session", memory="9MB")
