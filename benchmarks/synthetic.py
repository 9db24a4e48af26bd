"""Synthetic logs of any size: sessions with Zipf-distributed items, written as Parquet files, a part at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

PART = 2_500_000  # events per file
_DAY = 86400.0


def zipf(random: np.random.Generator, size: int, items: int, exponent: float = 1.0) -> np.ndarray:
    """Item numbers ``[size]``, item r with probability ∝ ``(r + 1)^-exponent``.

    By the inverse of the continuous distribution's cumulative function, so that no table of all items is needed.
    """
    uniform = random.random(size)
    if exponent == 1.0:
        rank = np.exp(uniform * np.log(items + 1.0))
    else:
        power = 1.0 - exponent
        rank = (1.0 + uniform * ((items + 1.0) ** power - 1.0)) ** (1.0 / power)
    return np.minimum(rank.astype(np.int64), items) - 1


def parts(events: int, items: int, *, seed: int = 0, length: float = 5.0, part: int = PART) -> Iterator[pd.DataFrame]:
    """Frames ``session, item, time`` of about ``part`` events each, in time order by file; sessions do not cross files.

    Sessions have a geometric number of clicks with mean ``length``. Nearly every second click is on an item near the
    one before, so that there is something to learn.
    """
    random, first, done = np.random.default_rng(seed), 0, 0
    while done < events:
        size = min(part, events - done)
        lengths = random.geometric(1 / length, max(int(1.2 * size / length), 2))
        lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), size)) + 1]
        session = np.repeat(np.arange(len(lengths)), lengths)[:size]
        item, near = zipf(random, size, items), random.random(size) < 0.45
        begins = np.diff(session, prepend=-1) != 0
        follows = np.flatnonzero(near & ~begins)
        item[follows] = (item[follows - 1] + random.integers(1, 4, len(follows))) % items
        start = (done + np.cumsum(lengths) - lengths) / events * 30 * _DAY
        time = 1.7e9 + start[session] + (np.arange(size) - (np.cumsum(lengths) - lengths)[session]) * 30.0
        yield pd.DataFrame({"session": session + first, "item": item, "time": time.round(3)})
        first, done = first + len(lengths), done + size


def write(folder: Path, events: int, items: int, *, seed: int = 0, part: int = PART) -> str:
    """Write the parts as Parquet files and return the pattern that matches them; parts that exist are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(parts(events, items, seed=seed, part=part)):
        path = folder / f"{number:03d}.parquet"
        if not path.exists():
            frame.to_parquet(path.with_suffix(".tmp"), index=False)
            path.with_suffix(".tmp").replace(path)
    return str(folder / "*.parquet")
