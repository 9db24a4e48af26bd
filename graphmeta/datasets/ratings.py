"""Public rating logs with the cold-start splits of the papers that published them.

As in :mod:`graphmeta.datasets.session_logs`: get the files from their owners, one folder per log, and set
GRAPHMETA_DATA to the parent folder or pass it as ``folder``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.datasets.session_logs import double_colons, file_below
from graphmeta.errors import InputError, nearest
from graphmeta.evaluation.cold_start import Cold, ColdStart, cold_start
from graphmeta.sampling.few_shot import RandomQueries

_MELU = "https://github.com/hoyeoplee/MeLU (its processed scenarios)"
_METAHIN = "https://github.com/rootlu/MetaHIN (its processed tasks)"
_MELU_STATES = ("warm_state", "user_cold_state", "item_cold_state", "user_and_item_cold_state")
_METAHIN_NAMES = ("movielens", "dbook")
_METAHIN_STATES = (
    "meta_training", "warm_up", "user_cold_testing", "item_cold_testing", "user_and_item_cold_testing",
)  # fmt: skip
_EXTRA = ["item", "title", "year", "rate", "released", "genre", "director", "writer", "actor", "plot", "poster"]


def melu_movielens(folder: Path | None = None, *, share: float = 0.2, seed: int = 0) -> ColdStart:
    """MovieLens-1M with MeLU's split: a random fifth of the users are new, and movies of 1998 or later.

    Reads ``melu_ml1m/*_state.json`` (user to movies) and ``*_state_y.json`` (user to ratings, in the same order);
    ``warm_state.reconstructed.json`` where the first is missing, as in the published archive. Movies have ``rate`` and
    multi-valued ``genre, director, actor`` from ``ml-1m/movies_extrainfos.dat``, users ``gender, age, occupation, zip``
    from ``ml-1m/users.dat``. The log has no times.

    Args:
        folder: the parent folder of ``melu_ml1m``; GRAPHMETA_DATA if not given.
        share: of the warm users, those with ten held-out ratings, see
            :func:`~graphmeta.evaluation.cold_start.cold_start`; 0 trains on all of MeLU's training ratings.
        seed: of the held-out ratings and of each user's queries.

    Raises:
        InputError: a missing or malformed file.

    Source: Lee et al. 2019 (MeLU), section 4.1.
    """
    frames = [_state(folder, "melu_ml1m", name, source=_MELU) for name in _MELU_STATES]
    log = _log(pd.concat(frames, ignore_index=True), _movies(folder), _users(folder))
    users = Cold(np.isin(log.sessions, np.concatenate([frames[1]["user"], frames[3]["user"]])), "MeLU's random fifth")
    items = Cold(np.isin(log.items.ids, np.concatenate([frames[2]["item"], frames[3]["item"]])), "1998 or later")
    return cold_start(log, users, items, share=share, queries=RandomQueries(seed=seed))


def metahin(name: str = "movielens", folder: Path | None = None, *, seed: int = 0) -> ColdStart:
    """MetaHIN's MovieLens (``movielens``) or Douban books (``dbook``), with its own training and warm-up ratings.

    Reads ``metahin/<name>/*.json`` (user to items, and ``_y`` to ratings). Content is that of MeLU's movies, or for
    books ``author, publisher, year`` and for users ``location``, where ``original/*.dat`` has it. A user's warm-up
    ratings are held out, and are split into support and queries there.

    Args:
        folder: the parent folder of ``metahin``; GRAPHMETA_DATA if not given.

    Raises:
        InputError: another name, or a missing or malformed file.

    Source: Lu et al. 2020 (MetaHIN), section 5.1.
    """
    if name not in _METAHIN_NAMES:
        near = nearest(str(name), _METAHIN_NAMES)
        meant = f"did you mean {near!r}? " if near else ""
        raise InputError(f"MetaHIN has no data set {name!r}; {meant}it has {' and '.join(_METAHIN_NAMES)}")
    frames = [_state(folder, f"metahin/{name}", part, source=_METAHIN) for part in _METAHIN_STATES]
    both = pd.concat(frames, keys=range(len(frames)), names=["part"]).reset_index(level=0)
    both = both.drop_duplicates(["user", "item"], ignore_index=True)
    contents = (_movies(folder), _users(folder)) if name == "movielens" else _books(folder, both)
    log = _log(both, *contents)
    users = Cold(np.isin(log.sessions, both["user"][both["part"].isin([2, 4])]), "MetaHIN's")
    items = Cold(np.isin(log.items.ids, both["item"][both["part"].isin([3, 4])]), "MetaHIN's")
    warm_up = both.loc[both["part"] == 1, ["user", "item"]].assign(held_out=True)
    pairs = pd.DataFrame({"user": log.sessions[log.session], "item": log.items.ids[log.item]})
    held_out = pairs.merge(warm_up, how="left", on=["user", "item"])["held_out"].notna().to_numpy()
    return ColdStart(
        log, users, items, held_out & ~users.rows[log.session] & ~items.rows[log.item], RandomQueries(seed=seed)
    )


def _state(folder: Path | None, below: str, name: str, *, source: str) -> pd.DataFrame:
    """One row per rating of a scenario: user, item and rating."""
    try:
        path = file_below(folder, f"{below}/{name}.json", source=source)
    except InputError:
        path = file_below(folder, f"{below}/{name}.reconstructed.json", source=source)
    rated = json.loads(path.read_text())
    stars = json.loads(file_below(folder, f"{below}/{name}_y.json", source=source).read_text())
    unequal = next((user for user, items in rated.items() if len(items) != len(stars.get(user, ()))), None)
    if unequal is not None:
        raise InputError(
            f"{path}: user {unequal} has a different number of ratings in {name}_y.json; get both from {source}"
        )
    count = [len(items) for items in rated.values()]
    return pd.DataFrame(
        {
            "user": np.repeat(np.array([int(user) for user in rated]), count),
            "item": np.array([int(item) for items in rated.values() for item in items]),
            "rating": np.array([float(star) for user in rated for star in stars[user]]),
        }
    )


def _log(frame: pd.DataFrame, items: EntityTable, users: EntityTable) -> EventLog:
    return EventLog.read(frame, session="user", item="item", user="user", value="rating", items=items, users=users)


def _movies(folder: Path | None) -> EntityTable:
    movies = double_colons(folder, "movies_extrainfos.dat", names=_EXTRA, encoding="utf-8")
    several: dict[str, str] = dict.fromkeys(("genre", "director", "actor"), ",")
    return EntityTable.read(movies, key="item", attributes=["rate"], label="title", several=several, complete=False)


def _users(folder: Path | None) -> EntityTable:
    names = ["user", "gender", "age", "occupation", "zip"]
    return EntityTable.read(double_colons(folder, "users.dat", names=names), key="user", complete=False)


def _books(folder: Path | None, ratings: pd.DataFrame) -> tuple[EntityTable, EntityTable]:
    books = pd.DataFrame({"item": ratings["item"].unique()})
    users = pd.DataFrame({"user": ratings["user"].unique()})
    for frame, name in ((books, "author"), (books, "publisher"), (books, "year"), (users, "location")):
        known = _pairs(folder, f"{'book' if frame is books else 'user'}_{name}")
        frame[name] = [known.get(one) for one in frame.iloc[:, 0]]
    several: dict[str, str] = dict.fromkeys(("author", "publisher", "year"), ",")
    return (
        EntityTable.read(books, key="item", several=several),
        EntityTable.read(users, key="user", several={"location": ","}),
    )


def _pairs(folder: Path | None, name: str) -> dict[int, list[int]]:
    """The values of each id in a two-column file."""
    path = file_below(folder, f"metahin/dbook/original/{name}.dat", source=_METAHIN)
    pairs = pd.read_csv(path, sep=r"\s+", names=["id", "value"], usecols=[0, 1])
    return {key: own["value"].tolist() for key, own in pairs.groupby("id")}  # pyright: ignore[reportReturnType]
