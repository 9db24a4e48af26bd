"""Named public logs as :class:`~graphmeta.events.EventLog`.

:func:`complete_journey` comes with the library. The others belong to owners who do not allow redistribution: get
the files from them (``data/README.md`` says where), one folder a log, and name the folder above in GRAPHMETA_DATA
or pass it as ``folder``.
"""

from __future__ import annotations

import csv
import os
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from graphmeta.columns import read_frame
from graphmeta.errors import InputError
from graphmeta.events import EventLog
from graphmeta.tables import EntityTable

_DIGINETICA = (
    "CIKM Cup 2016, track 2 (https://competitions.codalab.org/competitions/11161), one session a line"
)
_YOOCHOOSE = "the RecSys Challenge 2015 (https://recsys.acm.org/recsys15/challenge/)"
_MOVIELENS = "https://grouplens.org/datasets/movielens/1m/"
_CLOTHING = "https://archive.ics.uci.edu/dataset/553"
_CLOTHING_COLUMNS = {
    "session ID": "session",
    "page 2 (clothing model)": "item",
    "page 1 (main category)": "category",
}
_CLOTHING_CATEGORIES = {"1": "trousers", "2": "skirts", "3": "blouses", "4": "sale"}


def complete_journey() -> EventLog:
    """A year of grocery baskets of 497 households, embedded: items with category, department, brand and seller.

    Users have age, income and the like. A basket has one time, so the order inside it means nothing;
    ``data/complete_journey/README.md`` says what the sample is and where it is from.
    """
    here = Path(__file__).parent
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
    """Item views of an online shop, as SR-GNN splits them: training and test log, both in the training log's items.

    Reads ``diginetica/train_sessions.txt`` and ``test_sessions.txt``: one session a line, its item ids separated by
    blanks, in time order. The time of a click is its number; a session's id is its line, test after training.

    Args:
        folder: the folder above ``diginetica``; GRAPHMETA_DATA if not given.
        categories: read the item attribute ``category`` from ``diginetica/item_category.csv`` (columns ``item``,
            ``category``; items without a row are unknown).

    Raises:
        InputError: a missing file, or one that is not as described.

    Source: Wu et al. 2019 (SR-GNN), section 4.1: 719,470 training and 60,858 test prefixes of 43,097 items.
    """
    if not categories:
        return _train_and_test(folder, "diginetica", _DIGINETICA)
    path = _file(folder, "diginetica/item_category.csv", _DIGINETICA + "; or do without, categories=False")
    items = EntityTable.read(path, key="item", attributes=["category"], complete=False)
    return _train_and_test(folder, "diginetica", _DIGINETICA, items=items)


def yoochoose_1_64(folder: Path | None = None) -> tuple[EventLog, EventLog]:
    """Clicks in an online shop, the last 1/64 before the test day as SR-GNN cuts it: training and test log.

    Reads ``yoochoose1_64/train_sessions.txt`` and ``test_sessions.txt``, in the form of :func:`diginetica`.

    Args:
        folder: the folder above ``yoochoose1_64``; GRAPHMETA_DATA if not given.

    Raises:
        InputError: a missing file, or one that is not as described.

    Source: Wu et al. 2019 (SR-GNN), section 4.1: 369,859 training and 55,898 test prefixes.
    """
    return _train_and_test(folder, "yoochoose1_64", _YOOCHOOSE + ", one session a line")


def yoochoose_times(folder: Path | None = None) -> EventLog:
    """A week of the same shop's clicks, with times.

    Reads ``yoochoose_times_100k/train_full.txt`` and ``test.txt`` as one log (tab-separated SessionId, ItemId, Time
    in seconds), less the rows that stand there twice.

    Args:
        folder: the folder above ``yoochoose_times_100k``; GRAPHMETA_DATA if not given.

    Raises:
        InputError: a missing file, or one that is not as described.
    """
    names = ("train_full.txt", "test.txt")
    source = _YOOCHOOSE + ", tab-separated SessionId, ItemId, Time"
    frames = [read_frame(_file(folder, f"yoochoose_times_100k/{name}", source)) for name in names]
    frame = pd.concat(frames, ignore_index=True).drop_duplicates()
    return EventLog.read(frame, session="SessionId", item="ItemId", time="Time")


def movielens_1m(folder: Path | None = None) -> EventLog:
    """Ratings of movies, 1 to 5: users with gender, age, occupation and zip, movies with year and genres.

    Reads ``ml-1m/users.dat``, ``movies.dat`` and the ratings: ``ratings.dat`` as GroupLens ships it, or else
    ``ratings.csv`` (user_id, item_id, rating, timestamp). Ratings without a time are left out. A session is a run of
    a user's ratings without a pause of more than an hour. Codes of age and occupation are those of the owner's
    README; the genres of a movie stay together as one value.

    Args:
        folder: the folder above ``ml-1m``; GRAPHMETA_DATA if not given.

    Raises:
        InputError: a missing file, or one that is not as described.

    Source: Harper & Konstan 2015.
    """
    user_names = ["user_id", "gender", "age", "occupation", "zip"]
    users = _double_colons(_file(folder, "ml-1m/users.dat", _MOVIELENS), user_names)
    movies = _double_colons(_file(folder, "ml-1m/movies.dat", _MOVIELENS), ["item_id", "title", "genres"])
    movies["year"] = movies["title"].str.extract(r"\((\d{4})\)$", expand=False)
    ratings = _ratings(folder)
    return EventLog.read(
        ratings[ratings["timestamp"].notna()],
        item="item_id",
        time="timestamp",
        user="user_id",
        value="rating",
        items=EntityTable.read(movies, key="item_id", label="title"),
        users=EntityTable.read(users, key="user_id"),
    )


def eshop_clothing(folder: Path | None = None) -> EventLog:
    """Clicks in a shop for maternity clothes, April to August 2008; items with category, colour and price.

    Reads ``eshop_clothing_2008/e-shop clothing 2008.csv``. The file knows the day of a click and its place in the
    session: the time is midnight plus one second a place. An item that stands in two categories gets the more
    frequent one.

    Args:
        folder: the folder above ``eshop_clothing_2008``; GRAPHMETA_DATA if not given.

    Raises:
        InputError: a missing file, or one that is not as described.

    Source: UCI Machine Learning Repository, data set 553 (CC BY 4.0).
    """
    path = _file(folder, "eshop_clothing_2008/e-shop clothing 2008.csv", _CLOTHING)
    frame = read_frame(path).rename(columns=_CLOTHING_COLUMNS)
    wanted = ["year", "month", "day", "order", "session", "item", "category", "colour", "price"]
    missing = [name for name in wanted if name not in frame]
    if missing:
        raise InputError(f"{path}: no column for the {missing[0]}; get the file again from {_CLOTHING}")
    frame["time"] = pd.to_datetime(frame[["year", "month", "day"]]) + pd.to_timedelta(
        frame["order"].astype(np.int64) - 1, unit="s"
    )
    frame["category"] = frame["category"].map(_CLOTHING_CATEGORIES)
    seen = frame.groupby("item", sort=False)[["category", "colour", "price"]]
    items = EntityTable.read(seen.agg(lambda values: values.mode().iloc[0]).reset_index(), key="item")
    return EventLog.read(frame, session="session", item="item", time="time", items=items)


def _file(folder: Path | None, name: str, source: str) -> Path:
    """The path of a file below ``folder`` or GRAPHMETA_DATA, or an error that says where to get it."""
    root = folder or os.environ.get("GRAPHMETA_DATA")
    if not root:
        raise InputError(
            f"{name} is not part of the library; get it from {source}; "
            f"then set GRAPHMETA_DATA to the folder it is below"
        )
    path = Path(root) / name
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; get it from {source}; put it there or set GRAPHMETA_DATA to the folder above"
        )
    return path


def _train_and_test(
    folder: Path | None, name: str, source: str, *, items: EntityTable | None = None
) -> tuple[EventLog, EventLog]:
    lines, clicks = _sessions(_file(folder, f"{name}/train_sessions.txt", source))
    later_lines, later_clicks = _sessions(_file(folder, f"{name}/test_sessions.txt", source))
    session = np.concatenate([lines, lines[-1] + later_lines])
    frame = pd.DataFrame({"session": session, "item": np.concatenate([clicks, later_clicks])})
    log = EventLog.read(frame, session="session", item="item", items=items)
    train = log.before(len(clicks))
    return train, log.after(len(clicks)).aligned_to(train.items)


def _sessions(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Line (from 1) and item of each click in a file with one session a line, its item ids separated by blanks."""
    text = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    blank = np.isin(text, np.frombuffer(b" \t\r\n", dtype=np.uint8))
    line = 1 + np.cumsum(text == ord("\n"))
    strange = ~blank & ((text < ord("0")) | (text > ord("9")))
    if strange.any() or blank.all():
        place = (
            f"line {line[np.argmax(strange)]} holds {chr(text[np.argmax(strange)])!r}"
            if strange.any()
            else "empty"
        )
        raise InputError(
            f"{path}: {place}; write one session a line, item ids as whole numbers between blanks"
        )
    begins = ~blank & np.concatenate([[True], blank[:-1]])
    return line[begins], np.fromstring(text.tobytes(), dtype=np.int64, sep=" ")


def _ratings(folder: Path | None) -> pd.DataFrame:
    table = Path(folder or os.environ.get("GRAPHMETA_DATA", "")) / "ml-1m" / "ratings.csv"
    if table.is_file():
        return read_frame(table)
    names = ["user_id", "item_id", "rating", "timestamp"]
    return _double_colons(_file(folder, "ml-1m/ratings.dat", _MOVIELENS), names)


def _double_colons(path: Path, names: list[str]) -> pd.DataFrame:
    """A GroupLens table: no header, columns between ``::``, Latin-1."""
    text = path.read_text(encoding="latin-1").replace("::", "\t")
    width = len(names)
    bad = next((n for n, row in enumerate(text.splitlines(), 1) if row.count("\t") != width - 1), 0)
    if bad or not text:
        raise InputError(
            f"{path}: line {bad or 1} has not {width} columns between '::'; get it from {_MOVIELENS}"
        )
    return pd.read_csv(StringIO(text), sep="\t", names=names, dtype=str, quoting=csv.QUOTE_NONE)
