"""Files as users have them: dates as numbers, no header, other separators, unknown users, selected and broken rows."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import graphmeta as gm
from graphmeta.data.read_options import ActionWeights, Inactivity, ReadOptions
from graphmeta.data.reviews import ReviewLog
from graphmeta.data.splits import split_by_user
from graphmeta.data.tables import EntityTable, locate
from graphmeta.data.times import seconds
from graphmeta.errors import InputError
from graphmeta.testing import fake_log

NAMES = {"session": "s", "item": "i", "time": "t"}
DAY = 86400.0


@contextmanager
def warned(*patterns: str) -> Iterator[None]:
    """Exactly one warning for each pattern, and no other."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    texts = [str(one.message) for one in found]
    assert len(texts) == len(patterns) and all("\n" not in one for one in texts), texts
    for pattern in patterns:
        assert any(re.search(pattern, one) for one in texts), (pattern, texts)


def written(folder: Path, text: str, name: str = "log.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def frame(**columns: list) -> pd.DataFrame:
    return pd.DataFrame(columns)


def times_of(*values: object, form: str | None = None) -> list[float]:
    return seconds(pd.Series(list(values), name="t"), "time", form).tolist()


# Times


@pytest.mark.parametrize("kind", [int, float, str, lambda value: f"{value}.0"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([20200101, 20201231], ["2020-01-01", "2020-12-31"]),
        ([19990228, 20000229], ["1999-02-28", "2000-02-29"]),
        ([2020010123, 2020123100], ["2020-01-01 23:00", "2020-12-31"]),
        ([202001012359, 202012310001], ["2020-01-01 23:59", "2020-12-31 00:01"]),
        ([20200101235958, 20201231000001], ["2020-01-01 23:59:58", "2020-12-31 00:00:01"]),
    ],
)
def test_dates_written_as_numbers(kind, values: list[int], expected: list[str]) -> None:
    with warned():
        assert times_of(*map(kind, values)) == [pd.Timestamp(one).timestamp() for one in expected]


def test_a_date_that_does_not_exist_is_named_among_dates() -> None:
    with pytest.raises(InputError, match="column 't', row 2: the time 20200230 cannot be read"):
        times_of(20200101, 20200230, 20200301)


def test_numbers_that_are_no_dates_stay_seconds() -> None:
    with warned():
        assert times_of(1700000000, 1700000001) == [1700000000, 1700000001]
        assert times_of(20200101, 20209999, 20208888, form="s") == [20200101, 20209999, 20208888]
        assert times_of(2020010112, 2100000000) != times_of(2020010112, 2020010113)


@pytest.mark.parametrize("value", [18262, 43831, 202001, 2020, 26297280, pd.Timestamp(20200101)])
def test_times_of_1970_are_questioned(value: object) -> None:
    with warned("all times of column 't' lie in 1970 and 1971.*time_format"):
        times_of(value, value)
    with warned():
        times_of(value, pd.Timestamp("2020-01-01") if isinstance(value, pd.Timestamp) else 1.6e9)


@pytest.mark.parametrize(
    ("value", "form", "expected"),
    [
        (18262, "D", "2020-01-01"),
        ("438288", "h", "2020-01-01"),
        (26297280.5, "min", "2020-01-01 00:00:30"),
        (1577836800500, "ms", "2020-01-01 00:00:00.5"),
        ("01.02.2020 13:30", "%d.%m.%Y %H:%M", "2020-02-01 13:30"),
        ("01/02/2020", "%m/%d/%Y", "2020-01-02"),
        ("2020-01-01 02:00 +0200", "%Y-%m-%d %H:%M %z", "2020-01-01"),
        (20200101.0, "%Y%m%d", "2020-01-01"),
        (202001, "%Y%m", "2020-01-01"),
    ],
)
def test_a_time_format_is_a_pattern_or_a_unit(value: object, form: str, expected: str) -> None:
    with warned():
        assert times_of(value, value, form=form) == [pd.Timestamp(expected).timestamp()] * 2


def test_a_time_of_another_format_is_named() -> None:
    with pytest.raises(InputError, match="row 2: the time '2020-01-01' cannot be read; .*format '%d.%m.%Y'"):
        times_of("01.02.2020", "2020-01-01", form="%d.%m.%Y")
    with pytest.raises(InputError, match="row 1: the time '01.02.2020' cannot be read.*--time-format"):
        times_of("01.02.2020")
    for wrong in ("days", "YYYY-MM-DD", "", "%", "%Q", "ISO8601"):
        with pytest.raises(InputError, match="neither a pattern"):
            ReadOptions(time_format=wrong)


@pytest.mark.parametrize("offset", ["", "Z"])
def test_times_that_go_back_when_daylight_saving_ends_are_questioned(offset: str) -> None:
    times = [f"2020-10-25T{clock}:00{offset}" for clock in ("02:30", "02:10", "03:40")]
    with warned(*[] if offset else ["times that go back within a session at night: 1 .*row 2, session 1"]):
        gm.EventLog.read(frame(s=[1, 1, 1], i=list("abc"), t=times), **NAMES)
    later = [one.replace("-25", "-24").replace("T02:10", "T01:10") for one in times]  # an unsorted file
    with warned():
        gm.EventLog.read(frame(s=[1, 1, 1], i=list("abc"), t=later), **NAMES)
    with warned():  # another session
        gm.EventLog.read(frame(s=[1, 2, 2], i=list("abc"), t=times), **NAMES)


# Ids and missing values


def test_words_for_missing_values_are_categories(tmp_path: Path) -> None:
    path = written(tmp_path, "i,region,price\n1,NA,3\n2,EU,null\n3,None,\n4,,5\n")
    table = EntityTable.read(path, key="i", types={"price": "numeric"})
    region = table.attributes["region"]
    assert region.values[region.codes].tolist() == ["NA", "EU", "None", ""]
    assert np.array_equal(table.columns["price"].values, [3, np.nan, np.nan, 5], equal_nan=True)


def test_an_id_written_like_a_missing_value_is_questioned(tmp_path: Path) -> None:
    path = written(tmp_path, "s,i\n1,NA\n1,b\n")
    with warned("the item 'NA' looks like a missing value"):
        assert gm.EventLog.read(path, session="s", item="i").items.ids.tolist() == ["NA", "b"]


@pytest.mark.parametrize("empty", ["", " ", None])
def test_an_empty_id_is_refused_in_frames_and_files(empty: str | None, tmp_path: Path) -> None:
    given = frame(s=[1, 1], i=[empty, "b"])
    given.to_csv(tmp_path / "a.csv", index=False)
    for source in (given, tmp_path / "a.csv"):
        with pytest.raises(InputError, match="column 'i', row 1: the item is missing"):
            gm.EventLog.read(source, session="s", item="i")


@pytest.mark.parametrize("other", [560.0, "560.0", "560", 560])
def test_whole_floats_are_whole_numbers(other: object) -> None:
    given = frame(s=[1, 1], i=pd.Series([other, type(other)(7)], dtype=object))
    log = gm.EventLog.read(
        given, session="s", item="i", items=EntityTable.read(frame(i=[560, 7], c=["x", "y"]), key="i")
    )
    assert log.items.ids.tolist() == [560, 7] and log.items.attributes["c"].codes.tolist() == [1, 2]
    assert locate(log.items.ids, np.array(["560.0", "7", "07"], dtype=object)).tolist() == [0, 1, -1]
    assert locate(np.array(["560", "a"], dtype=object), np.array([560.0])).tolist() == [0]


def test_ids_that_differ_by_blanks_are_questioned_once() -> None:
    with warned("the item ids ' x', 'x', 'x ' and 1 other groups differ by blanks alone"):
        log = gm.EventLog.read(frame(s=[1] * 5, i=[" x", "x", "x ", "a b", "a  b"]), session="s", item="i")
    assert log.num_items == 5


@pytest.mark.parametrize("number", [[0, 1, 2, 3], ["7", "8", "9", "10"]])
def test_rows_that_differ_in_a_row_number_alone_are_questioned(number: list) -> None:
    given = frame(n=number, s=[1, 1, 1, 1], i=list("aaba"), t=[1.6e9, 1.6e9, 1.7e9, 1.6e9])
    with warned("kept, though they repeat an earlier row in every column but the row number 'n': 2 rows .*row 2"):
        assert gm.EventLog.read(given, **NAMES).num_events == 4
    with warned("dropped, because they repeat an earlier row in every column: 2 rows"):
        assert gm.EventLog.read(given.drop(columns="n"), **NAMES).num_events == 2
    with warned():  # a number that is no row number
        gm.EventLog.read(given.assign(n=[5, 1, 7, 2]), **NAMES)


# Users


def test_an_empty_user_is_unknown(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "s,i,t,u\n1,a,1600000000,ann\n2,b,1600000001,\n2,a,1600000002,\n3,a,1600000003,7.0\n4,b,1600000004,ann\n",
    )
    with warned():
        log = gm.EventLog.read(path, **NAMES, user="u")
    assert log.session_user.tolist() == [0, -1, 1, 0] and log.users.ids.tolist() == ["ann", "7.0"]
    again = gm.EventLog.read(log.to_frame(), session="session", item="item", time="time", user="user")
    assert again.session_user.tolist() == log.session_user.tolist()
    nobody = gm.EventLog.read(frame(s=[1, 1], i=[1, 2], u=[None, None]), session="s", item="i", user="u")
    assert nobody.session_user.tolist() == [-1] and len(nobody.users) == 0


def test_whole_numbers_with_gaps_are_users() -> None:
    given = frame(s=[1, 2, 3], i=[1, 2, 3], u=[5.0, np.nan, 6.0])
    log = gm.EventLog.read(given, session="s", item="i", user="u")
    assert log.users.ids.tolist() == [5, 6] and log.session_user.tolist() == [0, -1, 1]


def test_the_user_of_a_session_is_that_of_its_first_event() -> None:
    given = frame(s=[1, 1, 2, 2], i=[1, 2, 1, 2], t=[1.6e9, 1.7e9, 1.6e9, 1.7e9], u=["ann", None, None, "bob"])
    with warned("sessions that begin without a user and name one later: 1 .*'bob'"):
        log = gm.EventLog.read(given, **NAMES, user="u")
    assert log.session_user.tolist() == [0, -1] and log.users.ids.tolist() == ["ann"]
    before = log.before(1.65e9)
    assert before.fingerprint() == gm.EventLog.read(given[given.t < 1.65e9], **NAMES, user="u").fingerprint()


def test_sessions_cannot_be_split_by_unknown_users() -> None:
    given = frame(i=[1, 2, 3], t=[1.6e9] * 3, u=["ann", None, "ann"])
    with pytest.raises(InputError, match=r"row 2: the user is missing \(1 row\), and sessions are split by user"):
        gm.EventLog.read(given, item="i", time="t", user="u")
    with warned("dropped rows: 1 of 3: the user is missing in 1"):
        options = ReadOptions(drop_bad_rows=True)
        assert gm.EventLog.read(options.of(given), item="i", time="t", user="u", session=Inactivity()).num_events == 2


def test_a_split_by_user_takes_each_unknown_user_alone() -> None:
    known = fake_log(sessions=200)
    given = known.to_frame().assign(user=lambda f: f["user"].where(f["session"] % 2 == 0))
    log = gm.EventLog.read(given, **{name: name for name in ("session", "item", "time", "user")})
    split = split_by_user(log, test=0.3, valid=0.0)
    unknown = [np.mean(part.session_user < 0) for part in (split.train, split.test)]
    assert 0.1 < unknown[1] < 0.9 and 0.1 < unknown[0] < 0.9  # not all in the part of one user
    system = gm.fit(gm.split_by_time(log), epochs=1, width=4)
    assert len(system.recommend(["i1"], k=3, user="u0")) == 3


# Files


RATINGS = "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978300275\n"
MOVIES = '1193::One Flew Over, the (1975)::Drama\n661::James "the" Peach::Animation|Children\'s\n'


def test_files_of_movielens_are_read_as_they_are(tmp_path: Path) -> None:
    options = ReadOptions(header=False, encoding="latin-1")
    movies = written(tmp_path, MOVIES.replace("Peach", "Pêche"), "movies.dat", "latin-1")
    items = EntityTable.read(options.of(movies), key="1", label="2", several={"3": "|"})
    ratings = options.of(written(tmp_path, RATINGS, "ratings.dat"))
    log = gm.EventLog.read(ratings, session="1", user="1", item="2", value="3", time="4", items=items)
    assert log.items.ids.tolist() == [1193, 661] and log.value.tolist() == [4, 5, 3]
    assert log.items.labels.tolist() == ["One Flew Over, the (1975)", 'James "the" Pêche']
    assert log.items.several["3"].values.tolist() == ["", "Drama", "Animation", "Children's"]


@pytest.mark.parametrize("mark", ["|", ";", "::", "||", " ", "\t"])
@pytest.mark.parametrize("header", [True, False])
def test_any_separator_with_and_without_header(mark: str, header: bool, tmp_path: Path) -> None:
    lines = ["s,i,t", "1,a,1600000000", "1,b,1600000001"][0 if header else 1 :]
    path = written(tmp_path, "\n".join(lines).replace(",", mark) + "\n")
    names = NAMES if header else {"session": "1", "item": "2", "time": "3"}
    log = gm.EventLog.read(ReadOptions(sep=mark, header=header).of(path), **names)
    assert log.items.ids.tolist() == ["a", "b"] and log.sessions.tolist() == [1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,2014-04-07T10:51:09Z,214536502\n1,2014-04-07T10:54:09Z,214536500\n", "without header.*--no-header"),
        ("s/i/t\n1/a/1\n", r"separator.*--sep"),
        ("s i t\n1 a 1\n", r"separator.*--sep"),
    ],
)
def test_a_missing_column_names_the_likely_cause(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no column 'i' for the item; .*{says}"):
        gm.EventLog.read(written(tmp_path, text), **NAMES)


def test_text_of_another_encoding_in_parquet_is_one_line(tmp_path: Path) -> None:
    whole = pa.array(["ab", "c"]).buffers()[1]
    broken = pa.StringArray.from_buffers(2, whole, pa.py_buffer(b"\xff\xfea"))
    for name, column in {
        "plain": broken,
        "categories": broken.dictionary_encode(),
        "cast": pa.array([b"\xff", b"a"]),
    }.items():
        pq.write_table(pa.table({"s": [1, 1], "i": column}), tmp_path / f"{name}.parquet")
        with pytest.raises(InputError) as error:
            gm.EventLog.read(tmp_path / f"{name}.parquet", session="s", item="i")
        assert "\n" not in str(error.value) and str(error.value).isprintable()
        assert "UTF-8" in str(error.value) or name == "cast"


# Rows


ACTIONS = frame(
    s=[1, 1, 1, 2, 2],
    i=list("abcab"),
    t=[1.6e9 + n for n in range(5)],
    event=["view", "cart", "purchase", "view", "view"],
)


def test_rows_are_selected_by_the_values_of_columns(tmp_path: Path) -> None:
    ACTIONS.to_csv(tmp_path / "a.csv", index=False)
    for source in (ACTIONS, tmp_path / "a.csv"):
        for where, expected in (
            ({"event": "view"}, ["a", "a", "b"]),
            ({"event": ["cart", "purchase"]}, ["b", "c"]),
            ({"event": ["view"], "s": [2]}, ["a", "b"]),
        ):
            log = gm.EventLog.read(ReadOptions(where=where).of(source), **NAMES)
            assert log.items.ids[log.item].tolist() == expected
        with pytest.raises(InputError, match=r"no row has event=buy; the column has 'view' \(3\), 'cart' \(1\)"):
            gm.EventLog.read(ReadOptions(where={"event": "buy"}).of(source), **NAMES)
        with pytest.raises(InputError, match="no column 'kind' for the condition"):
            gm.EventLog.read(ReadOptions(where={"kind": "view"}).of(source), **NAMES)
    with pytest.raises(InputError, match="selects no row"):
        ReadOptions(where={"event": []})


def test_selected_rows_keep_their_numbers() -> None:
    given = ACTIONS.assign(i=["a", "b", "c", "a", None])
    with pytest.raises(InputError, match="column 'i', row 5"):
        gm.EventLog.read(ReadOptions(where={"event": "view"}).of(given), **NAMES)
    items = frame(i=[1, 2, 3], keep=["n", "y", "y"], price=["1", "2", "x"])
    with pytest.raises(InputError, match="column 'price', row 3: 'x'"):
        EntityTable.read(ReadOptions(where={"keep": "y"}).of(items), key="i", types={"price": "numeric"})


def test_the_weight_of_an_action_is_the_value_of_its_events() -> None:
    weights = ActionWeights("event", {"view": 1, "cart": 3, "purchase": 5})
    log = gm.EventLog.read(ACTIONS, **NAMES, value=weights)
    assert log.value.tolist() == [1, 3, 5, 1, 1]
    assert log.graph["session", "contains", "item"].value.tolist() == [1, 3, 5, 1, 1]
    with pytest.raises(InputError, match="row 3: the action 'purchase' has no weight"):
        gm.EventLog.read(ACTIONS, **NAMES, value=ActionWeights("event", {"view": 1, "cart": 3}))
    for wrong in ({}, {"view": float("nan")}):
        with pytest.raises(InputError, match="finite numbers"):
            ActionWeights("event", wrong)


def test_bad_rows_are_dropped_on_request_with_a_count(tmp_path: Path) -> None:
    text = "s,i,t\n1,a,1600000000\n,b,1600000001\n2,,1600000002\n2,c,soon\n2,d,1600000003,x\n2,e,1600000004\n3,,\n"
    path = written(tmp_path, text)
    with pytest.raises(InputError, match="line 6.*--drop-bad-rows"):
        gm.EventLog.read(path, **NAMES)
    dropped = "dropped rows: 4 of 6: the item is missing in 2 .*row 3.*, the time cannot be read in 1 .*row 4.*"
    with warned("more fields than the table: 1 line .*line 6", dropped):
        log = gm.EventLog.read(ReadOptions(drop_bad_rows=True).of(path), **NAMES)
    assert log.items.ids.tolist() == ["a", "e"] and log.sessions.tolist() == [1, 2]
    with pytest.raises(InputError, match="no row can be read: column 't', row 1"):
        gm.EventLog.read(ReadOptions(drop_bad_rows=True).of(frame(s=[1], i=[1], t=["soon"])), **NAMES)


def test_bad_rows_of_item_tables_and_reviews_are_dropped_too() -> None:
    options = ReadOptions(drop_bad_rows=True)
    items = frame(
        i=["a", "a", None, "b", "c"], price=["1", "2", "3", "x", "4"], image=["1 2", "1 2", "1 2", "1 2", "1"]
    )
    with warned("dropped rows: 4 of 5"):
        table = EntityTable.read(options.of(items), key="i", types={"price": "numeric", "image": "vector"})
    assert table.ids.tolist() == ["a"] and table.columns["price"].values.tolist() == [1]
    reviews = frame(u=[1, 2, None], i=[1, 2, 3], r=[5, "x", 3], text=["", "good", "bad"])
    with warned("dropped rows: 2 of 3"):
        assert len(ReviewLog.read(options.of(reviews), user="u", item="i", rating="r", text="text")) == 1


# Item tables


def test_items_without_a_row_are_counted() -> None:
    log = frame(s=[1, 1, 1], i=list("abc"))
    with warned("item table: no row for 2 of 3 items with events .*'b'"):
        items = EntityTable.read(frame(i=["a", "z"], c=["x", "y"]), key="i")
        read = gm.EventLog.read(log, session="s", item="i", items=items)
    assert read.items.attributes["c"].codes.tolist() == [1, 0, 0]
    with pytest.raises(InputError, match="none of the 3 items with events has a row; the log has 'a', the table 'q'"):
        gm.EventLog.read(log, session="s", item="i", items=EntityTable.read(frame(i=["q"]), key="i"))


@pytest.mark.parametrize("kind", ["numeric", "text"])
def test_a_column_with_nearly_as_many_values_as_rows_is_questioned(kind: str) -> None:
    table = frame(i=range(60), price=[f"{n}.5" for n in range(60)], colour=[f"c{n % 5}" for n in range(60)])
    with warned("column 'price' has 60 different values in 60 rows.*--types price=text"):
        EntityTable.read(table, key="i")
    with warned():
        EntityTable.read(table, key="i", types={"price": kind})
        EntityTable.read(table[:40], key="i")
        EntityTable.read(table, key="i", label="price")


def test_categories_joined_by_a_bar_are_questioned() -> None:
    table = frame(i=range(4), genre=["A|B", "B|A", "A", "B"])
    with warned(r"column 'genre': values such as 'A\|B' .*--several 'genre=\|'"):
        EntityTable.read(table, key="i")
    with warned():
        assert EntityTable.read(table, key="i", several={"genre": "|"}).several["genre"].size == 3
        assert EntityTable.read(table, key="i", types={"genre": "categorical"}).attributes["genre"].size == 5
        EntityTable.read(frame(i=range(4), name=["x|1", "y|2", "z|3", "u"]), key="i")


def test_an_empty_separator_is_refused() -> None:
    with pytest.raises(InputError, match="needs a separator"):
        EntityTable.read(frame(i=[1], c=["x"]), key="i", several={"c": ""})
    with pytest.raises(InputError, match="separator .* is empty"):
        ReadOptions(sep="")


def test_options_are_stored_as_json() -> None:
    options = ReadOptions("::", False, "latin-1", {"event": ["view", "cart"]}, "%Y%m%d", True)
    assert ReadOptions(**options.to_json()) == options and ReadOptions(**{}) == ReadOptions()
