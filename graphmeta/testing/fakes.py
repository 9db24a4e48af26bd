"""Synthetic logs with a known rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.testing.encoder import check_encoder
from graphmeta.testing.report import Check, CheckReport

__all__ = ["Check", "CheckReport", "Mixture", "check_encoder", "fake_log", "fake_ratings"]


@dataclass(frozen=True)
class Mixture:
    """Which clicks of a :func:`fake_log` leave the ring, as shares of all clicks.

    Args:
        random: on an item by popularity, which falls as 1 / rank.
        repeats: on an item of the session again.
        favourites: on one of five items of the session's user, the same in all of the user's sessions.
        users: number of users; 0 for a log without users.
    """

    random: float = 0.0
    repeats: float = 0.0
    favourites: float = 0.0
    users: int = 20


def fake_log(
    *, sessions: int = 200, items: int = 40, length: int = 6, seed: int = 0, mixture: Mixture = Mixture()
) -> EventLog:
    """Sessions over a ring of items: item ``n`` is always followed by ``n + 1``, so the true next item is known.

    Items are ``i0, i1, …`` with a ``category`` (five consecutive items each) and a ``brand``; session s belongs to user
    s mod 20; one click per minute, one session per hour.

    Args:
        mixture: shares of clicks that leave the ring, and the number of users; none, and 20, if not given.

    >>> log = fake_log(sessions=3)
    >>> names = log.items.ids[log.item[log.session == 0]]
    >>> [(int(b[1:]) - int(a[1:])) % 40 for a, b in zip(names, names[1:])]
    [1, 1, 1, 1, 1]
    """
    random = np.random.default_rng(seed)
    first = random.integers(0, items, sessions)
    step, session = np.tile(np.arange(length), sessions), np.repeat(np.arange(sessions), length)
    user = session % max(mixture.users, 1)
    clicked = _mixed((first[session] + step) % items, (step, user), mixture, items, seed=seed)
    frame = pd.DataFrame(
        {
            "session": session,
            "item": [f"i{n}" for n in clicked],
            "time": 1.7e9 + session * 3600.0 + step * 60.0,
            "user": [f"u{n}" for n in user],
        }
    )
    table = pd.DataFrame({"item": [f"i{n}" for n in range(items)]})
    table["category"] = [f"c{n // 5}" for n in range(items)]
    table["brand"] = [f"b{n % 3}" for n in range(items)]
    known = EntityTable.read(table, key="item")
    owner = "user" if mixture.users else None
    return EventLog.read(frame, session="session", item="item", time="time", user=owner, items=known)


def _mixed(
    item: np.ndarray, of: tuple[np.ndarray, np.ndarray], mixture: Mixture, items: int, *, seed: int
) -> np.ndarray:
    """The clicks, some of them replaced; ``of`` has the step and the user of each."""
    step, user = of
    shares = np.cumsum([mixture.random, mixture.repeats, mixture.favourites])
    if not shares[-1]:
        return item
    random, number = np.random.default_rng([seed, 1]), np.arange(len(item))
    chance = 1 / np.arange(1, items + 1)
    popular = random.permutation(items)[random.choice(items, len(item), p=chance / chance.sum())]
    own = random.integers(0, items, (user.max(initial=0) + 1, 5))[user, random.integers(0, 5, len(item))]
    kind = np.searchsorted(shares, random.random(len(item)), side="right")
    made = np.select([kind == 0, kind == 2], [popular, own], item)
    back = number - random.integers(1, np.maximum(step, 1) + 1)
    return np.where((kind == 1) & (step > 0), made[back], made)


def fake_ratings(*, users: int = 40, items: int = 30, each: int = 16, seed: int = 0) -> EventLog:
    """Ratings 1 to 5 by a known rule; each session holds the ratings of one user.

    Item n has the genres ``g{n % 5}`` and ``g{n % 3}`` (in the column ``genre`` of ``items.several``) and a ``rate``;
    user u has an ``age`` and likes one genre: 5 for items that have it, else 1 + u mod 3.

    >>> log = fake_ratings(users=3)
    >>> log.num_sessions, log.lengths.tolist(), sorted(log.items.several)
    (3, [16, 16, 16], ['genre'])
    """
    random = np.random.default_rng(seed)
    rated = np.concatenate([random.permutation(items)[:each] for _ in range(users)])
    person = np.repeat(np.arange(users), each)
    taste = person % 5
    likes = (rated % 5 == taste) | (rated % 3 == taste)
    frame = pd.DataFrame({"person": person, "item": rated, "rating": np.where(likes, 5, 1 + person % 3)})
    numbers = range(items)
    known = pd.DataFrame({"item": numbers, "rate": [f"r{n % 2}" for n in numbers]})
    known["genre"] = [[f"g{n % 5}", f"g{n % 3}"] for n in numbers]
    ages = pd.DataFrame({"person": range(users), "age": [f"a{n % 4}" for n in range(users)]})
    return EventLog.read(
        frame,
        session="person",
        user="person",
        item="item",
        value="rating",
        items=EntityTable.read(known, key="item", several={"genre": ","}),
        users=EntityTable.read(ages, key="person"),
    )
