"""Raw columns become clean ids, times and categories, or one line that names the row and the column."""

import gzip
import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmeta.data import tables
from graphmeta.data.columns import column, ids, numbers
from graphmeta.data.table_files import read_frame
from graphmeta.data.tables import EntityTable, Several, locate
from graphmeta.data.times import seconds
from graphmeta.errors import InputError

NOON = 1714564800.0  # 2024-05-01 12:00:00 UTC


def series(*values, dtype=object) -> pd.Series:
    return pd.Series(list(values), name="c", dtype=dtype)


# Files


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "separator"),
    [("a.csv", ","), ("a.tsv", "\t"), ("a.txt", "\t"), ("a.csv.gz", ","), ("a.tsv.gz", "\t"),
     ("semicolons.csv", ";"), ("tabs.csv", "\t"), ("a.dat", "\t"), ("no_ending", ","), ("A.CSV", ",")],
)  # fmt: skip
def test_text_files_of_any_separator_are_read(tmp_path: Path, name: str, separator: str) -> None:
    lines = ["id;name", "007;Käse, alt", "8;"]
    path = written(tmp_path, name, "\n".join(line.replace(",", "").replace(";", separator) for line in lines))
    frame = read_frame(path)
    assert frame.columns.tolist() == ["id", "name"]
    assert frame["id"].tolist() == ["007", "8"]
    assert frame["name"].isna().tolist() == [False, True]


def test_a_parquet_file_gives_what_the_frame_gives(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"id": [3, 4], "t": pd.to_datetime(["2024-01-01", "2024-01-02"]), "n": ["ä", "b"]}, index=[7, 9]
    )
    frame.to_parquet(tmp_path / "a.parquet")
    again = read_frame(tmp_path / "a.parquet")
    assert again.index.tolist() == [0, 1]
    assert again["id"].tolist() == [3, 4] and again["n"].tolist() == ["ä", "b"]
    assert seconds(again["t"]).tolist() == seconds(frame["t"]).tolist()


def test_the_byte_order_mark_of_spreadsheets_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("\ufeffid,x\n1,2\n".encode())
    assert read_frame(path).columns.tolist() == ["id", "x"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.csv", b"", "empty"),
        ("header.csv", b"a,b\n", "no rows"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n", "line 3"),
        ("shifted.csv", b"a,b\n1,2,3\n4,5,6\n", "more fields than the header"),
        ("latin.csv", "a\nä\n".encode("latin-1"), "UTF-8"),
        ("cut.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 5000, mtime=0)[:40], "not a readable table"),
        ("broken.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0)[:12] + b"\xff" * 20, "not a readable table"),
        ("plain.csv.gz", b"a,b\n1,2\n", "not a readable table"),
        ("text.parquet", b"a,b\n1,2\n", "not a readable table"),
        ("cut.parquet", b"PAR1\x00\x00", "not a readable table"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says) as error:
        read_frame(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nowhere.csv", ".", "nul\0.csv"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_frame(tmp_path / name)


def test_a_missing_column_lists_those_there_are() -> None:
    with pytest.raises(InputError, match="no column 'sku' for the item; the table has: id, x"):
        column(pd.DataFrame({"id": [1], "x": [2]}), "sku", "item")


def test_a_duplicate_column_is_refused() -> None:
    with pytest.raises(InputError, match="more than once"):
        column(pd.DataFrame([[1, 2]], columns=["a", "a"]), "a", "item")


# Ids


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (series(3, 1), [3, 1]),
        (series("3", "1"), [3, 1]),
        (series("3", "1", dtype="string"), [3, 1]),
        (series("-3", "0"), [-3, 0]),
        (series(3.0, 1.0, dtype=float), [3, 1]),
        (series(3, 1, dtype="Int64"), [3, 1]),
        (series(3, 1, dtype="uint8"), [3, 1]),
        (series(np.int32(3), 1), [3, 1]),
        (series(str(2**63 - 1)), [2**63 - 1]),
        (series(2**63 - 1, -(2**63)), [2**63 - 1, -(2**63)]),
        (series(True, False, dtype=bool), [1, 0]),
    ],
)
def test_whole_numbers_become_int(values: pd.Series, expected: list[int]) -> None:
    found = ids(values, "item")
    assert found.dtype == np.int64 and found.tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (series("007", "8"), ["007", "8"]),
        (series("a", "8"), ["a", "8"]),
        (series("1.5", "2.0"), ["1.5", "2.0"]),
        (series("-0", "1"), ["-0", "1"]),
        (series("+1", " 2"), ["+1", " 2"]),
        (series("٣", "4"), ["٣", "4"]),
        (series("ß", "日本", "-"), ["ß", "日本", "-"]),
        (series(2**63, 1), [str(2**63), "1"]),
        (series(10**30, 1), [str(10**30), "1"]),
        (series(2**64 - 1, 1, dtype="uint64"), [str(2**64 - 1), "1"]),
        (series("9" * 19, "1"), ["9" * 19, "1"]),
    ],
)
def test_everything_else_stays_text_as_it_was_written(values: pd.Series, expected: list[str]) -> None:
    found = ids(values, "item")
    assert found.dtype == object and found.tolist() == expected


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (series(1, "a"), "row 2: the item 'a' is text among a whole number"),
        (series("a", "b", 1), "row 3: the item 1 is a whole number among text"),
        (series(b"a"), "row 1: the item b'a' is bytes"),
        (series("a", 1.5), "row 2: the item 1.5 is float"),
        (series([1], [2]), "row 1: .* is list"),
        (series(1, 10**5000), "row 2: the item a very long int is a number of more than 300 digits"),
        (series(pd.Timestamp(0), dtype="datetime64[ns]"), "row 1: .* is Timestamp"),
        (series("a", None), "row 2: the item is missing"),
        (series("a", None, np.nan), r"row 2: the item is missing \(and 1 more\)"),
        (series(1.0, np.nan, dtype=float), "row 2: the item is missing"),
        (series(1, pd.NA, dtype="Int64"), "row 2: the item is missing"),
        (series(1.0, 2.5, dtype=float), "row 2: the item 2.5 is not an exact whole number"),
        (series(np.inf, dtype=float), "row 1: the item inf"),
        (series(2.0**53, dtype=float), "row 1: .* not an exact whole number"),
    ],
)
def test_ids_that_are_no_ids_are_named_with_row_and_column(values: pd.Series, says: str) -> None:
    with pytest.raises(InputError, match=f"column 'c', {says}"):
        ids(values, "item")


def test_rows_keep_their_numbers_when_others_are_dropped() -> None:
    with pytest.raises(InputError, match="row 6: the item 'x'"):
        ids(series(1, 2, 3, 4, 5, "x").iloc[[0, 3, 5]], "item")


def test_categories_count_as_what_they_hold() -> None:
    frame = pd.DataFrame({"n": pd.Categorical([3, 1, 3]), "t": pd.Categorical(["x", "y", "x"])})
    assert ids(column(frame, "n", "item"), "item").tolist() == [3, 1, 3]
    assert ids(column(frame, "t", "item"), "item").tolist() == ["x", "y", "x"]


@given(st.lists(st.integers(-(2**70), 2**70), min_size=1) | st.lists(st.text().filter(str.strip), min_size=1))
def test_ids_equal_those_in_the_file(values: list) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* (differ by blanks|missing value)")
        found = ids(pd.Series(values, dtype=object), "item").tolist()
    assert [str(v) for v in found] == [str(v) for v in values]
    assert len({type(v) for v in found}) == 1


# Times


@pytest.mark.parametrize(
    "value",
    [
        "2024-05-01T12:00:00", "2024-05-01 12:00:00", "2024-05-01T12:00:00Z", "2024-05-01T14:00:00+02:00",
        "2024-05-01T12:00:00.000000000", "1714564800", "1714564800.0", "1714564800000", "1714564800000000",
        "1714564800000000000", 1714564800, 1714564800.0, 1714564800000, 1714564800000000, 1714564800000000000,
        Decimal(1714564800), np.int64(1714564800), np.datetime64("2024-05-01T12:00:00"),
        pd.Timestamp("2024-05-01 12:00"), pd.Timestamp("2024-05-01 14:00", tz="Europe/Berlin"),
    ],
)  # fmt: skip
def test_the_same_moment_in_every_spelling(value: object) -> None:
    assert seconds(series(value, value)).tolist() == [NOON, NOON]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_datetime_columns_of_any_unit_and_zone(unit: str, zone: str | None) -> None:
    times = pd.Series(pd.to_datetime([NOON, NOON + 1], unit="s")).dt.as_unit(unit)
    times = times if zone is None else times.dt.tz_localize("UTC").dt.tz_convert(zone)
    assert seconds(times).tolist() == [NOON, NOON + 1]


def test_fractions_of_a_second_are_kept() -> None:
    assert seconds(series("2024-05-01T12:00:00.250", "2024-05-01T12:00:00.5")).tolist() == [NOON + 0.25, NOON + 0.5]
    assert seconds(series(1714564800250, 1714564800500)).tolist() == [NOON + 0.25, NOON + 0.5]


def test_years_far_off_do_not_wrap_around() -> None:
    first, last = seconds(series("0001-01-01", "9999-12-31"))
    assert first == -62135596800 and last == 253402214400


def test_one_column_has_one_unit_and_an_odd_time_does_not_choose_it() -> None:
    assert seconds(series(1714564800000, 5_000, 1714564800000)).tolist() == [NOON, 5.0, NOON]
    with pytest.raises(InputError, match="row 3.*1714564800000 cannot be read"):
        seconds(series(0, 5_000, 1714564800000))


def test_a_date_without_zone_is_utc() -> None:
    assert seconds(series("2024-05-01T12:00:00", "2024-05-01T12:00:00+00:00")).tolist() == [NOON, NOON]


@pytest.mark.parametrize(
    ("values", "row"),
    [
        (series("2024-05-01", "yesterday"), 2),
        (series("2024-05-01", "2024-13-01"), 2),
        (series("2024-05-01", "1714564800"), 2),
        (series("1", "2", "three", "4"), 3),
        (series("1", "2024-05-01"), 2),
        (series(1.0, np.inf, dtype=float), 2),
        (series(1.0, 1e300, dtype=float), 2),
        (series(1, 10**400), 2),
        (series(1, 10**5000), 2),
        (series("now", "now"), 1),
        (series("today"), 1),
        (series(b"5", b"6"), 1),
        (series([1], [2]), 1),
        (series(1, pd.Timedelta(1)), 2),
        (series(pd.Timedelta(1), dtype="timedelta64[ns]"), 1),
        (series(np.timedelta64(1, "s")), 1),
        (series(1j, dtype=complex), 1),
        (series(1, 1j), 2),
        (series("٥", "٦"), 1),
        (series("2024-05-01", pd.Timestamp.max.as_unit("s") + pd.Timedelta(10**12, "s")), 2),
    ],
)
def test_times_that_cannot_be_read_are_named(values: pd.Series, row: int) -> None:
    with pytest.raises(InputError, match=f"column 'c', row {row}: the time .* cannot be read; use seconds"):
        seconds(values)


@pytest.mark.parametrize("hole", [None, np.nan, pd.NaT, pd.NA])
def test_a_missing_time_is_named(hole: object) -> None:
    with pytest.raises(InputError, match="column 'c', row 2: the time is missing"):
        seconds(series(1, hole))


def test_values_are_finite_numbers() -> None:
    assert numbers(series("1.5", 2), "value").tolist() == [1.5, 2.0]
    for bad in ("x", np.inf, b"1", pd.Timestamp(0), 1j):
        with pytest.raises(InputError, match="row 2: the value .* not a finite number"):
            numbers(series(1, bad), "value")
    with pytest.raises(InputError, match="row 1: the value is missing"):
        numbers(series(None, 2), "value")


# Tables


def items(**columns: list) -> EntityTable:
    return EntityTable.read(pd.DataFrame(columns), key="sku")


def test_codes_point_at_values_and_zero_is_unknown() -> None:
    table = items(sku=["a", "b", "c", "d"], brand=["X", None, "", "Y"])
    brand = table.attributes["brand"]
    assert brand.values.tolist() == ["", "X", "Y"] and brand.codes.tolist() == [1, 0, 0, 2]
    assert brand.size == 3


def test_a_gap_does_not_change_the_spelling_of_whole_numbers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"sku": [1, 2, 3], "size": [40, None, 41]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert frame["size"].dtype == float
    assert EntityTable.read(frame, key="sku").attributes["size"].values.tolist() == ["", "40", "41"]
    text = EntityTable.read(pd.DataFrame({"sku": [1, 2], "size": [1.5, 2.0]}), key="sku")
    assert text.attributes["size"].values.tolist() == ["", "1.5", "2.0"]


@pytest.mark.parametrize("values", [pd.Categorical(["x", None]), [True, None], [(1, 2), None], [b"x", pd.NaT]])
def test_attributes_may_be_of_any_type(values: object) -> None:
    frame = pd.DataFrame({"sku": [1, 2]})
    frame["a"] = pd.Series(values)
    assert EntityTable.read(frame, key="sku").attributes["a"].codes.tolist() == [1, 0]


def test_values_that_cannot_be_printed_are_categories_too() -> None:
    early = pd.Timestamp("2024", tz="UTC").as_unit("s") - pd.Timedelta(10**11, "s")
    table = items(sku=[1, 2], when=[early, early], number=[10**5000, 1])
    assert table.attributes["when"].codes.tolist() == [1, 1]
    assert table.attributes["number"].codes.tolist() == [1, 2]


def test_all_columns_are_attributes_unless_named() -> None:
    frame = pd.DataFrame({"sku": ["a"], "brand": ["X"], "kind": ["K"], "title": ["A thing"]})
    assert list(EntityTable.read(frame, key="sku", label="title").attributes) == ["brand", "kind"]
    assert list(EntityTable.read(frame, key="sku", attributes=["kind"]).attributes) == ["kind"]
    assert list(EntityTable.read(frame, key="sku", attributes="kind").attributes) == ["kind"]
    assert list(EntityTable.read(frame, key="sku", attributes=[]).attributes) == []
    with pytest.raises(InputError, match="no column 'nope' for the attribute; the table has: sku, brand"):
        EntityTable.read(frame, key="sku", attributes=["nope"])


def test_labels_are_for_display() -> None:
    frame = pd.DataFrame({"sku": [7, 8], "title": pd.Categorical(["A thing", None])})
    table = EntityTable.read(frame, key="sku", label="title")
    assert [table.describe(row) for row in range(2)] == ["A thing [7]", "8"]
    assert EntityTable.read(frame, key="sku").describe(0) == "7"


def test_a_duplicate_id_is_named_with_its_row() -> None:
    with pytest.raises(InputError, match="column 'sku', row 3: 'a' occurs twice"):
        items(sku=["a", "b", "a"])


def test_a_missing_id_is_refused() -> None:
    with pytest.raises(InputError, match="column 'sku', row 2: the key is missing"):
        items(sku=["a", None])


def test_an_item_without_a_row() -> None:
    frame = pd.DataFrame({"sku": ["a", "b"], "brand": ["X", "Y"], "title": ["A", "B"]})
    wanted = np.array(["b", "z", "a"], dtype=object)
    with pytest.raises(InputError, match=r"item table: no row for 'z', which has events \(1 such ids\)"):
        EntityTable.read(frame, key="sku", complete=True).aligned(wanted)
    with pytest.raises(InputError, match="user table: no row for 'z'"):
        EntityTable.read(frame, key="sku", complete=True).aligned(wanted, "user")
    table = EntityTable.read(frame, key="sku", label="title", complete=False).aligned(wanted)
    assert table.ids.tolist() == ["b", "z", "a"]
    assert table.attributes["brand"].codes.tolist() == [2, 0, 1]
    assert table.describe(1) == "z"


def test_an_empty_table_has_no_known_id() -> None:
    frame = pd.DataFrame({"sku": [], "brand": [], "title": []})
    empty = EntityTable.read(frame, key="sku", label="title", complete=False)
    table = empty.aligned(np.array([4, 5]))
    assert len(empty) == 0 and table.attributes["brand"].codes.tolist() == [0, 0]
    assert table.describe(0) == "4"


@given(st.lists(st.integers(-5, 5) | st.sampled_from(["x", "7", "07"]), max_size=8), st.data())
def test_locate_against_a_plain_loop(wanted: list, data: st.DataObject) -> None:
    known = data.draw(st.lists(st.sampled_from(["a", "7", "07", "3", "-2"]), unique=True))
    spelled = np.array(known, dtype=object)
    found = locate(spelled, np.array(wanted, dtype=object))
    assert found.tolist() == [known.index(str(w)) if str(w) in known else -1 for w in wanted]


def test_locate_matches_numbers_with_their_spelling_only() -> None:
    known = np.array([5, 7, -1])
    assert locate(known, np.array([7, 8])).tolist() == [1, -1]
    assert locate(known, np.array(["7", "07", "-1"], dtype=object)).tolist() == [1, -1, 2]
    assert locate(known, np.array([], dtype=object)).tolist() == []
    assert locate(np.array([], dtype=np.int64), np.array([1])).tolist() == [-1]


@given(st.lists(st.none() | st.text(max_size=2) | st.integers() | st.floats(), min_size=1, max_size=8))
def test_categories_are_equal_exactly_where_their_text_is(values: list) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = pd.DataFrame({"sku": range(len(values)), "a": pd.Series(values, dtype=object)})
        attribute = EntityTable.read(frame, key="sku").attributes["a"]
    text = ["" if v is None or v != v else str(v) for v in values]
    assert [attribute.values[code] for code in attribute.codes] == text
    assert len(set(attribute.values)) == attribute.size


MOVIES = pd.DataFrame({"sku": [1, 2, 3, 4], "genre": ["a|b", None, "b | c|b", ""], "year": ["x", "y", "x", "y"]})


def read_several(column: Several) -> list[list[str]]:
    return [
        [str(column.values[c]) for c in column.codes[a:b]] for a, b in zip(column.ptr[:-1], column.ptr[1:], strict=True)
    ]


def test_a_column_may_hold_several_values_a_row() -> None:
    table = EntityTable.read(MOVIES, key="sku", several={"genre": "|"})
    assert list(table.attributes) == ["year"] and list(table.several) == ["genre"]
    genre = table.several["genre"]
    assert read_several(genre) == [["a", "b"], [""], ["b", "c"], [""]] and genre.size == 4


def test_several_values_may_be_lists_and_arrays() -> None:
    cells = [[1, 2], np.array([2]), [], ("x", None)]
    table = EntityTable.read(MOVIES.assign(genre=cells), key="sku", several={"genre": ","})
    assert read_several(table.several["genre"]) == [["1", "2"], ["2"], [""], ["x"]]


@given(st.lists(st.integers(-1, 3), max_size=7))
def test_rows_with_several_values_are_taken_like_any(rows: list[int]) -> None:
    genre = EntityTable.read(MOVIES, key="sku", several={"genre": "|"}).several["genre"]
    every = [*read_several(genre), [""]]
    assert read_several(genre.take(np.array(rows, dtype=np.int64))) == [every[row] for row in rows]


def test_several_values_survive_alignment_and_a_file() -> None:
    table = EntityTable.read(MOVIES, key="sku", several={"genre": "|"}, complete=False)
    moved = table.aligned(np.array([3, 9, 1]))
    again = EntityTable.from_json(json.loads(json.dumps(moved.take(np.array([0, 1, 2])).to_json())))
    assert read_several(again.several["genre"]) == [["b", "c"], [""], ["a", "b"]]
    old = table.to_json()
    del old["columns"]  # as files of earlier versions are
    assert EntityTable.from_json(old).several == {}


@pytest.mark.parametrize("known", [[5, 70, 3], ["a", "7", "007", "3"]])
def test_ids_are_looked_up_in_an_index_that_is_built_once(known: list, monkeypatch: pytest.MonkeyPatch) -> None:
    built, build = [], tables._index_of
    monkeypatch.setattr(tables, "_index_of", lambda *given: built.append(given) or build(*given))
    table = EntityTable(np.array(known, dtype=object if isinstance(known[0], str) else np.int64), {})
    texts = [str(one) for one in known]
    for wanted in ([3], ["3", "7.0", "a", None], [*known, "x"], [70, 5, 5], [""], []):
        whole = [str(one).removesuffix(".0") for one in wanted]
        rows = [texts.index(one) if one in texts else -1 for one in whole]
        given = np.array(wanted) if all(isinstance(one, int) for one in wanted) else np.array(wanted, dtype=object)
        assert table.rows_of(given).tolist() == rows
        assert locate(table.ids.copy(), given).tolist() == rows
    own = [numeric for ids, numeric in built if ids is table.ids]
    assert len(own) == len(set(own)) and len(built) == len(own) + 5  # `locate` builds one in each of five calls


def test_threads_share_an_index() -> None:
    table, wanted = EntityTable(np.arange(100_000), {}), np.arange(50_000, 150_000, 7)
    expected = np.where(wanted < 100_000, wanted, -1)
    with ThreadPoolExecutor(8) as pool:
        assert all((found == expected).all() for found in pool.map(lambda _: table.rows_of(wanted), range(16)))
