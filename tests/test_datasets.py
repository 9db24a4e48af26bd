"""Loaders on small files of the same form, invented here; on the real ones, where present, the counts."""

import gzip
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from graphmeta.data.events import EventLog
from graphmeta.datasets import session_logs as datasets
from graphmeta.errors import InputError
from graphmeta.sampling.samples import last_clicks, prefixes
from graphmeta.sampling.user_histories import UserHistories

PUBLIC = {
    "diginetica": datasets.diginetica,
    "yoochoose1_64": datasets.yoochoose_1_64,
    "yoochoose_times_100k": datasets.yoochoose_times,
    "ml-1m": datasets.movielens_1m,
    "eshop_clothing_2008": datasets.eshop_clothing,
    "tafeng": datasets.tafeng,
}
real = pytest.mark.skipif(
    not os.environ.get("GRAPHMETA_DATA"), reason="GRAPHMETA_DATA names no folder with public logs"
)


@pytest.fixture(autouse=True)
def no_folder_by_default(request, monkeypatch) -> None:
    if "slow" not in request.keywords:
        monkeypatch.delenv("GRAPHMETA_DATA", raising=False)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text.encode("latin-1"))
    return folder


def sessions_of(log: EventLog) -> list[list[object]]:
    ids = log.items.ids[log.item].tolist()
    return [ids[a:b] for a, b in zip(log.ptr[:-1], log.ptr[1:], strict=True)]


def attribute(log: EventLog, name: str) -> list[str]:
    column = log.items.attributes[name]
    return column.values[column.codes].tolist()


def test_the_bundled_dataset_has_items_and_users_with_attributes() -> None:
    log = datasets.complete_journey()
    assert (log.num_events, log.num_sessions, log.num_items) == (173_638, 23_862, 3_134)
    assert list(log.items.attributes) == ["category", "department", "brand", "seller"]
    assert log.users is not None and len(log.users) == 497 and "age" in log.users.attributes
    assert log.has_time and log.items.labels is not None and all(log.items.labels)


DIGINETICA = {
    "diginetica/train_sessions.txt": "70 80\n80 80 90\r\n\n60\n",
    "diginetica/test_sessions.txt": "90  70 \n60 55 80",
    "diginetica/item_category.csv": "item,category,votes\n70,3,9\n60,4,9\n12,5,1\n",
}


def test_sessions_of_lines_become_a_training_and_a_test_log(tmp_path) -> None:
    train, test = datasets.diginetica(write(tmp_path, DIGINETICA))
    assert sessions_of(train) == [[70, 80], [80, 80, 90], [60]]
    assert sessions_of(test) == [[90, 70], [60, 55, 80]]
    assert train.sessions.tolist() == [1, 2, 4] and test.sessions.tolist() == [5, 6]
    assert train.items.ids.tolist() == test.items.ids.tolist() == [70, 80, 90, 60, 55]
    assert attribute(train, "category") == attribute(test, "category") == ["3", "", "", "4", ""]
    assert train.time.max() < test.time.min() and not train.has_time


TAFENG = {
    "tafeng/history.csv": "user,basket,item\n7,10,a\n7,9,b\n7,9,c\n5,0,c\n",
    "tafeng/future.csv": "user,basket,item\n7,11,d\n5,1,a\n",
}


def tafeng_of(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    return folder


def test_known_and_next_baskets_of_users(tmp_path) -> None:
    """Baskets are ordered by how many of the user follow, by number, not by row, as text or by user; the logs share
    items and users."""
    known, following = datasets.tafeng(tafeng_of(tmp_path, TAFENG))
    assert sessions_of(known) == [["b", "c"], ["c"], ["a"]] and sessions_of(following) == [["a"], ["d"]]
    assert known.sessions.tolist() == ["7#9", "5#0", "7#10"] and following.sessions.tolist() == ["5#1", "7#11"]
    assert known.items is following.items and known.users is following.users and known.support.tolist() == [1, 2, 1, 0]
    samples = last_clicks(datasets.tafeng(tmp_path)[0])
    earlier = UserHistories.of(known, following).for_users([7, 5, 8])
    assert earlier.sessions.tolist() == [3, 2, 0] and len(samples) == 1
    again = dict(TAFENG, **{"tafeng/future.csv": "user,basket,item\n5,1,a\n7,10,d\n"})
    with pytest.raises(InputError, match="future.csv.gz, row 2: the basket is not after those of its user"):
        datasets.tafeng(tafeng_of(tmp_path, again))


def test_items_only_the_test_log_has_are_without_training_events(tmp_path) -> None:
    train, _ = datasets.diginetica(write(tmp_path, DIGINETICA), categories=False)
    assert train.support.tolist() == [1, 3, 1, 1, 0] and not train.items.attributes


def test_yoochoose_has_the_same_form(tmp_path) -> None:
    files = {name.replace("diginetica", "yoochoose1_64"): text for name, text in DIGINETICA.items()}
    train, test = datasets.yoochoose_1_64(write(tmp_path, files))
    assert sessions_of(train)[0] == [70, 80] and sessions_of(test)[0] == [90, 70]


@pytest.mark.parametrize(
    ("text", "place"),
    [("1 2\n3 x4\n", "line 2 holds 'x'"), ("1 -2", "line 1 holds '-'"), (" \n", "it is empty")],
)
def test_a_session_file_of_another_form_is_refused(tmp_path, text, place) -> None:
    folder = write(tmp_path, DIGINETICA | {"diginetica/test_sessions.txt": text})
    with pytest.raises(InputError, match=f"test_sessions.txt: .*{place}"):
        datasets.diginetica(folder)


def test_times_of_two_files_make_one_log(tmp_path) -> None:
    header, twice = "SessionId\tItemId\tTime\n", "2\t8\t1400000009.0\n"
    files = {
        "yoochoose_times_100k/train_full.txt": f"{header}2\t7\t1400000000.5\n{twice}{twice}",
        "yoochoose_times_100k/test.txt": header + "1\t8\t1400000100.25\n",
    }
    log = datasets.yoochoose_times(write(tmp_path, files))
    assert sessions_of(log) == [[7, 8], [8]] and log.sessions.tolist() == [2, 1]
    assert log.time.tolist() == [1400000000.5, 1400000009.0, 1400000100.25]


MOVIES = {
    "ml-1m/movies.dat": '4::Café, The (1931)::Comedy|Drama\n5::A "Quote (1999)::War\n6::B (2000)::War\n',
    "ml-1m/users.dat": "1::F::25::3::01234\n2::M::1::10::90210-1\n9::M::50::0::00000\n",
    "ml-1m/ratings.csv": "user_id,item_id,rating,timestamp\n2,5,4,978300000\n1,4,5,978300100\n"
    "1,5,3,978310000\n9,4,1,\n",
}


def test_movies_have_names_and_users_profiles_and_ratings_without_time_are_dropped(tmp_path) -> None:
    log = datasets.movielens_1m(write(tmp_path, MOVIES))
    assert sessions_of(log) == [[5], [4], [5]]
    assert log.value is not None and log.value.tolist() == [4, 5, 3]
    assert attribute(log, "genres") == ["War", "Comedy|Drama"] and attribute(log, "year") == ["1999", "1931"]
    assert log.items.describe(1) == "Café, The (1931) [4]"
    assert log.users is not None and log.users.ids.tolist() == [2, 1]
    codes = log.users.attributes["zip"]
    assert codes.values[codes.codes].tolist() == ["90210-1", "01234"]


def test_ratings_as_the_owner_ships_them(tmp_path) -> None:
    rows = MOVIES["ml-1m/ratings.csv"].splitlines()[1:-1]
    files = {**MOVIES, "ml-1m/ratings.dat": "".join(row.replace(",", "::") + "\n" for row in rows)}
    del files["ml-1m/ratings.csv"]
    assert datasets.movielens_1m(write(tmp_path, files)).num_events == 3


def test_histories_of_movies_keep_ratings_without_a_time(tmp_path) -> None:
    log = datasets.movielens_1m_histories(write(tmp_path, MOVIES))
    assert sessions_of(log) == [[5], [4, 5], [4]] and log.sessions.tolist() == [2, 1, 9]
    assert log.users is not None and log.session_user is not None
    assert log.users.ids[log.session_user].tolist() == [2, 1, 9]
    assert log.value is not None and log.value.tolist() == [4, 5, 3, 1]


def test_histories_of_reviews_are_in_time_order(tmp_path) -> None:
    rows = {"train": "7\t30\t200\n8\t31\t100\n7\t32\t100\n", "valid": "7\t33\t300\n", "test": "8\t30\t100\n"}
    (tmp_path / "amazon").mkdir()
    folder = write(tmp_path, {f"amazon/Beauty/{name}.txt": text for name, text in rows.items()})
    log = datasets.amazon_histories("Beauty", folder)
    found = dict(zip(log.sessions.tolist(), sessions_of(log), strict=True))
    assert found == {7: [32, 30, 33], 8: [31, 30]} and log.has_time
    with pytest.raises(InputError, match="amazon/Books/train.txt: no such file"):
        datasets.amazon_histories("Books", folder)


def test_a_row_with_a_column_too_few_is_named(tmp_path) -> None:
    folder = write(tmp_path, MOVIES | {"ml-1m/users.dat": "1::F::25::3::01234\n2::M\n"})
    with pytest.raises(InputError, match="users.dat: line 2 .* 5 columns"):
        datasets.movielens_1m(folder)


CLOTHES = (
    "year;month;day;order;country;session ID;page 1 (main category);page 2 (clothing model);colour;price\r\n"
    "2008;4;1;1;29;1;1;A1;3;28\r\n"
    "2008;4;1;2;29;1;2;B2;4;33\r\n"
    "2008;11;13;1;29;2;2;A1;3;28\r\n"
    "2008;11;13;2;29;2;1;A1;3;28\r\n"
)


def test_clothes_get_a_time_from_day_and_place_and_one_category(tmp_path) -> None:
    log = datasets.eshop_clothing(write(tmp_path, {"eshop_clothing_2008/e-shop clothing 2008.csv": CLOTHES}))
    assert sessions_of(log) == [["A1", "B2"], ["A1", "A1"]]
    days = np.array(["2008-04-01", "2008-11-13"], "datetime64[s]").astype(float)
    assert log.time.tolist() == [days[0], days[0] + 1, days[1], days[1] + 1]
    assert attribute(log, "category") == ["trousers", "skirts"] and attribute(log, "price") == ["28", "33"]


@pytest.mark.parametrize("column", ["day", "colour"])
def test_clothes_without_a_column_name_it(tmp_path, column) -> None:
    text = CLOTHES.replace(f";{column};", ";other;")
    with pytest.raises(InputError, match=f"no column '{column}'"):
        datasets.eshop_clothing(write(tmp_path, {"eshop_clothing_2008/e-shop clothing 2008.csv": text}))


@pytest.mark.parametrize("name", PUBLIC)
def test_without_a_folder_the_error_names_file_source_and_variable(name) -> None:
    expected = rf"{name}/.*no such file; get it from .*https://.*set GRAPHMETA_DATA"
    with pytest.raises(InputError, match=expected):
        PUBLIC[name]()


@pytest.mark.parametrize("name", PUBLIC)
def test_a_missing_file_is_named_with_its_path(name, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GRAPHMETA_DATA", str(tmp_path))
    with pytest.raises(InputError, match=rf"{tmp_path}/{name}/.*no such file") as caught:
        PUBLIC[name]()
    assert "\n" not in str(caught.value)


def test_the_folder_given_comes_before_the_environment(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GRAPHMETA_DATA", str(tmp_path / "elsewhere"))
    assert datasets.diginetica(write(tmp_path, DIGINETICA))[0].num_events == 6


@pytest.mark.slow
@real
@pytest.mark.parametrize(
    ("load", "items", "counts"),
    [
        (datasets.diginetica, 43_097, (719_470, 60_858, 133_724, 11_446)),
        (datasets.yoochoose_1_64, 17_745, (369_859, 55_898, 65_172, 9_344)),
    ],
)
def test_counts_are_the_published_ones(
    load: Callable[[], tuple[EventLog, EventLog]], items: int, counts: tuple[int, ...]
) -> None:
    train, test = load()
    found = [len(prefixes(log)) for log in (train, test)]
    found += [len(last_clicks(log, min_length=3)) for log in (train, test)]
    assert tuple(found) == counts and train.num_items == test.num_items == items


@pytest.mark.slow
@real
@pytest.mark.parametrize(
    ("load", "events", "items"),
    [
        (datasets.yoochoose_times, 83_845, 2_933),
        (datasets.movielens_1m, 487_650, 3_615),
        (datasets.eshop_clothing, 165_474, 217),
        (partial(datasets.amazon_histories, "Beauty"), 198_502, 12_101),
        (partial(datasets.amazon_histories, "Cell_Phones_and_Accessories"), 194_439, 10_429),
    ],
)
def test_logs_with_times_are_whole(load: Callable[[], EventLog], events: int, items: int) -> None:
    log = load()
    assert (log.num_events, log.num_items, log.has_time) == (events, items, True)


@pytest.mark.slow
@real
def test_nearly_all_views_on_diginetica_have_a_category() -> None:
    train, _ = datasets.diginetica()
    category = train.items.attributes["category"]
    assert category.size == 987 and (category.codes > 0).sum() == 42_710
    assert (category.codes[train.item] > 0).mean() == pytest.approx(0.998, abs=0.001)
