"""Public logs as :class:`~graphmeta.data.events.EventLog`.

:func:`complete_journey` comes with the library. The others may not be redistributed: get the files from their owners
(see ``data/README.md``), one folder per log, and set GRAPHMETA_DATA to the parent folder or pass it as
``folder``.
"""

from __future__ import annotations

import csv
import os
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from graphmeta.data.columns import column, numbers
from graphmeta.data.events import EventLog
from graphmeta.data.table_files import read_frame
from graphmeta.data.tables import EntityTable
from graphmeta.data.times import seconds
from graphmeta.errors import InputError

_LINES = ", one session per line"
_DIGINETICA = "CIKM Cup 2016, track 2 (https://competitions.codalab.org/competitions/11161)" + _LINES
_YOOCHOOSE = "the RecSys Challenge 2015 (https://recsys.acm.org/recsys15/challenge/)"
_MOVIELENS = "https://grouplens.org/datasets/movielens/1m/"
_AMAZON = "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html, as user, item, seconds per line"
_TAFENG = "Li et al. 2023 (https://github.com/liming-7/A-Next-Basket-Recommendation-Reality-Check), as user,basket,item"
_CLOTHING = "https://archive.ics.uci.edu/dataset/553"
_CLOTHING_COLUMNS = {
    "session ID": "session",
    "page 2 (clothing model)": "item",
    "page 1 (main category)": "category",
}
_CLOTHING_CATEGORIES = {"1": "trousers", "2": "skirts", "3": "blouses", "4": "sale"}


def complete_journey() -> EventLog:
    """The bundled dataset: a sample of a year of grocery baskets; items with category, department, brand and seller.

    The users are 497 households with age, income and other attributes. A basket has one time, so item order within it
    is arbitrary; ``data/complete_journey/README.md`` documents the sample and its source.
    """
    here = Path(__file__).parents[1]
    places = (here / "_data" / "complete_journey", here.parent / "data" / "complete_journey")
    folder = next((place for place in places if place.is_dir()), places[0])
    attributes = ["category", "department", "brand", "seller"]
    items = EntityTable.read(folder / "products.csv.gz", key="product", attributes=attributes, label="name")
    return EventLog.read(
        folder / "events.csv.gz",
        session="basket",
        item="product",
        time="time",
        user="household",
        items=items,
        users=EntityTable.read(folder / "households.csv.gz", key="household"),
    )


def diginetica(folder: Path | None = None, *, categories: bool = True) -> tuple[EventLog, EventLog]:
    """Item views of an online shop, as SR-GNN splits them: training and test log, with the same items.

    Reads ``diginetica/train_sessions.txt`` and ``test_sessions.txt``: one session per line, item ids separated by
    blanks, in time order. The time of a click is its index; a session's id is its line number, test after training.

    Args:
        folder: the parent folder of ``diginetica``; GRAPHMETA_DATA if not given.
        categories: read the item attribute ``category`` from ``diginetica/item_category.csv`` (columns
            ``item`` and ``category``; items without a row are unknown).

    Raises:
        InputError: a missing or malformed file.

    Source: Wu et al. 2019 (SR-GNN), section 4.1: 719,470 training and 60,858 test prefixes of 43,097 items.
    """
    if not categories:
        return _train_and_test(folder, "diginetica", source=_DIGINETICA)
    source = _DIGINETICA.removesuffix(_LINES) + "; or do without it: categories=False"
    path = file_below(folder, "diginetica/item_category.csv", source=source)
    items = EntityTable.read(path, key="item", attributes=["category"], complete=False)
    return _train_and_test(folder, "diginetica", source=_DIGINETICA, items=items)


def yoochoose_1_64(folder: Path | None = None) -> tuple[EventLog, EventLog]:
    """Clicks in an online shop, the last 1/64 before the test day as SR-GNN cuts it: training and test log.

    Reads ``yoochoose1_64/train_sessions.txt`` and ``test_sessions.txt``, in the form of :func:`diginetica`.
    The test log contains items that this part of the training log does not. They are kept, as in the published counts:
    both logs share the 17,745 items of the two, and 369 of them have no training event.

    Args:
        folder: the parent folder of ``yoochoose1_64``; GRAPHMETA_DATA if not given.

    Raises:
        InputError: a missing or malformed file.

    Source: Wu et al. 2019 (SR-GNN), section 4.1: 369,859 training and 55,898 test prefixes.
    """
    return _train_and_test(folder, "yoochoose1_64", source=_YOOCHOOSE + _LINES)


def yoochoose_times(folder: Path | None = None) -> EventLog:
    """One week of the same shop's clicks, with times.

    Reads ``yoochoose_times_100k/train_full.txt`` and ``test.txt`` as one log (tab-separated SessionId, ItemId, Time in
    seconds), without duplicate rows.

    Args:
        folder: the parent folder of ``yoochoose_times_100k``; GRAPHMETA_DATA if not given.

    Raises:
        InputError: a missing or malformed file.
    """
    names = ("train_full.txt", "test.txt")
    source = _YOOCHOOSE + ", tab-separated SessionId, ItemId, Time"
    frames = [read_frame(file_below(folder, f"yoochoose_times_100k/{name}", source=source)) for name in names]
    frame = pd.concat(frames, ignore_index=True).drop_duplicates()
    return EventLog.read(frame, session="SessionId", item="ItemId", time="Time")


def movielens_1m(folder: Path | None = None) -> EventLog:
    """Ratings of movies, 1 to 5: users with gender, age, occupation and zip, movies with year and genres.

    Reads ``ml-1m/users.dat``, ``movies.dat`` and the ratings: ``ratings.csv`` (user_id, item_id, rating, timestamp) if
    it exists, else GroupLens' ``ratings.dat``. Ratings without a time are removed, and users without any other. A
    session ends after an hour without ratings. Age and occupation codes are documented in the owner's README; a movie's
    genres form one value.

    Args:
        folder: the parent folder of ``ml-1m``; GRAPHMETA_DATA if not given.

    Raises:
        InputError: a missing or malformed file.

    Source: Harper & Konstan 2015.
    """
    users = double_colons(folder, "users.dat", names=["user_id", "gender", "age", "occupation", "zip"])
    movies = double_colons(folder, "movies.dat", names=["item_id", "title", "genres"])
    movies["year"] = movies["title"].str.extract(r"\((\d{4})\)$", expand=False)
    ratings, kinds = _ratings(folder), ("genres", "year")
    return EventLog.read(
        ratings.loc[ratings["timestamp"].notna()],
        item="item_id",
        time="timestamp",
        user="user_id",
        value="rating",
        items=EntityTable.read(movies, key="item_id", label="title", types=dict.fromkeys(kinds, "categorical")),
        users=EntityTable.read(users, key="user_id"),
    )


def movielens_1m_histories(folder: Path | None = None) -> EventLog:
    """All ratings of MovieLens-1M as clicks, one session per user.

    Reads the ratings as :func:`movielens_1m` does, and ignores times (in some copies half of the ratings have none): a
    history is in file order. Users and movies have ids only.

    Args:
        folder: the parent folder of ``ml-1m``; GRAPHMETA_DATA if not given.

    Raises:
        InputError: a missing or malformed file.
    """
    ratings = _ratings(folder)
    return EventLog.read(ratings, session="user_id", user="user_id", item="item_id", value="rating")


def amazon_histories(name: str, folder: Path | None = None) -> EventLog:
    """Amazon reviews of one category, 2014, as clicks, one session per user; at least five per user and item.

    Reads ``amazon/NAME/train.txt``, ``valid.txt`` and ``test.txt`` as one log: tab-separated user, item and seconds, no
    header. Times have a resolution of one day; reviews of the same day keep the order of the files.

    Args:
        name: of the category's folder, e.g. ``Beauty``.
        folder: parent of ``amazon``, GRAPHMETA_DATA if not given.

    Raises:
        InputError: a missing or malformed file.

    Source: McAuley et al. 2015 (5-core).
    """
    names = [f"amazon/{name}/{part}.txt" for part in ("train", "valid", "test")]
    paths = [file_below(folder, one, source=_AMAZON) for one in names]
    columns = ["user", "item", "time"]
    frame = pd.concat([pd.read_csv(path, sep="\t", names=columns) for path in paths], ignore_index=True)
    return EventLog.read(frame, session="user", user="user", item="item", time="time")


def eshop_clothing(folder: Path | None = None) -> EventLog:
    """Clicks in a shop for maternity clothes, April to August 2008; items with category, colour and price.

    Reads ``eshop_clothing_2008/e-shop clothing 2008.csv``. The file has the day of a click and its position in the
    session: the time is midnight plus one second per position. An item in two categories gets the more frequent one.

    Args:
        folder: the parent folder of ``eshop_clothing_2008``; GRAPHMETA_DATA if not given.

    Raises:
        InputError: a missing or malformed file.

    Source: UCI Machine Learning Repository, data set 553 (CC BY 4.0).
    """
    path = file_below(folder, "eshop_clothing_2008/e-shop clothing 2008.csv", source=_CLOTHING)
    frame = read_frame(path).rename(columns=_CLOTHING_COLUMNS)
    frame["time"] = _clothing_times(frame)
    frame["category"] = column(frame, "category", "category").replace(_CLOTHING_CATEGORIES)
    names = ["category", "colour", "price"]
    columns = pd.concat([column(frame, name, name) for name in ["item", *names]], axis=1)
    most_frequent = columns.groupby("item", sort=False).agg(lambda values: values.mode().iloc[0])
    items = EntityTable.read(most_frequent.reset_index(), key="item")
    return EventLog.read(frame, session="session", item="item", time="time", items=items)


def tafeng(folder: Path | None = None) -> tuple[EventLog, EventLog]:
    """Grocery baskets of Ta-Feng: the known baskets of each user, and the next one, with the same items and users.

    Reads ``tafeng/history.csv.gz`` and ``tafeng/future.csv.gz`` (columns ``user``, ``basket``, ``item``; ``basket``
    numbers a user's baskets in their order). There are no times: the log is ordered by how many baskets of the same
    user follow, most first, so its last sessions are the last baskets of all users, and all next ones follow all known
    ones. Items of the next baskets that no known basket contains are kept. The order of items within a basket is
    arbitrary.

    Args:
        folder: the parent folder of ``tafeng``; GRAPHMETA_DATA if not given.

    Raises:
        InputError: a missing or malformed file, a user whose next basket has no higher number than the known ones.

    Source: Li et al. 2023, "A next basket recommendation reality check": 13,858 users, 11,997 items.
    """
    known, following = (
        read_frame(file_below(folder, f"tafeng/{name}.csv.gz", source=_TAFENG)) for name in ("history", "future")
    )
    for frame in (known, following):
        frame["basket"] = numbers(column(frame, "basket", "basket"), "basket").astype(np.int64)
    until: dict[str, int] = {}
    for user, basket in zip(column(known, "user", "user"), known["basket"], strict=True):
        until[user] = max(basket, until.get(user, basket))
    pairs = zip(column(following, "user", "user"), following["basket"], strict=True)
    wrong = np.array([user in until and basket <= until[user] for user, basket in pairs])
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InputError(f"future.csv.gz, row {at + 1}: the basket is not after those of its user in history.csv.gz")
    parts = []
    for frame in (known, following):
        follow = frame.groupby("user")["basket"].rank("dense", ascending=False)
        parts.append(frame.assign(follow=-follow).sort_values(["follow", "user", "basket"], kind="stable"))
    rows = pd.concat(parts, ignore_index=True)
    rows["session"] = rows["user"].astype(str) + "#" + rows["basket"].astype(str)
    log = EventLog.read(rows, session="session", user="user", item="item")
    cut = len(known)
    return log.before(cut).aligned_to(log.items, log.users), log.after(cut).aligned_to(log.items, log.users)


def _path(folder: Path | None, name: str) -> Path | None:
    root = folder or os.environ.get("GRAPHMETA_DATA")
    return Path(root) / name if root else None


def file_below(folder: Path | None, name: str, *, source: str) -> Path:
    """The path of a file below ``folder`` or GRAPHMETA_DATA; the error names the source of a missing file."""
    path = _path(folder, name)
    if path is None or not path.is_file():
        raise InputError(
            f"{path or name}: no such file; get it from {source}; then set GRAPHMETA_DATA to the folder "
            f"above {name.split('/')[0]!r}, or pass it as folder="
        )
    return path


def _train_and_test(
    folder: Path | None, name: str, *, source: str, items: EntityTable | None = None
) -> tuple[EventLog, EventLog]:
    lines, clicks = _sessions(file_below(folder, f"{name}/train_sessions.txt", source=source))
    later_lines, later_clicks = _sessions(file_below(folder, f"{name}/test_sessions.txt", source=source))
    session = np.concatenate([lines, lines[-1] + later_lines])
    frame = pd.DataFrame({"session": session, "item": np.concatenate([clicks, later_clicks])})
    log = EventLog.read(frame, session="session", item="item", items=items)
    cut = len(clicks)
    return log.before(cut).aligned_to(log.items), log.after(cut).aligned_to(log.items)


def _sessions(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Line (from 1) and item of each click in a file with one session a line."""
    text = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    blank = np.isin(text, np.frombuffer(b" \t\r\n", dtype=np.uint8))
    line = 1 + np.cumsum(text == ord("\n"))
    invalid = ~blank & ((text < ord("0")) | (text > ord("9")))
    if invalid.any() or blank.all():
        at = int(np.argmax(invalid))
        found = f"line {line[at]} holds {chr(text[at])!r}" if invalid.any() else "it is empty"
        raise InputError(f"{path}: {found}; write one session per line, item ids as numbers separated by blanks")
    begins = ~blank & np.concatenate([[True], blank[:-1]])
    return line[begins], np.fromstring(text.tobytes(), dtype=np.int64, sep=" ")


def _ratings(folder: Path | None) -> pd.DataFrame:
    table = _path(folder, "ml-1m/ratings.csv")
    if table is not None and table.is_file():
        return read_frame(table)
    return double_colons(folder, "ratings.dat", names=["user_id", "item_id", "rating", "timestamp"])


def double_colons(folder: Path | None, name: str, *, names: list[str], encoding: str = "latin-1") -> pd.DataFrame:
    """A table in GroupLens' format: no header, columns separated by ``::``."""
    path = file_below(folder, f"ml-1m/{name}", source=_MOVIELENS)
    text = path.read_text(encoding=encoding).replace("::", "\t")
    width = [row.count("\t") + 1 for row in text.split("\n")[:-1]]
    bad = next((line for line, found in enumerate(width, 1) if found != len(names)), 0 if width else 1)
    if bad:
        reason = f"line {bad} does not have {len(names)} columns separated by '::'"
        raise InputError(f"{path}: {reason}; get it from {_MOVIELENS}")
    return pd.read_csv(StringIO(text), sep="\t", names=names, dtype=str, quoting=csv.QUOTE_NONE)


def _clothing_times(frame: pd.DataFrame) -> np.ndarray:
    year, month, day = (column(frame, name, "time").astype(str) for name in ("year", "month", "day"))
    date = (year + "-" + month.str.zfill(2) + "-" + day.str.zfill(2)).rename("year, month, day")
    return seconds(date) + numbers(column(frame, "order", "order"), "order") - 1
