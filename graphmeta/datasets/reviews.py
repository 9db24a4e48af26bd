"""Reviews of two domains: Amazon's public files, one file split in two by item texts, and synthetic reviews with known
aspects.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from graphmeta.data.reviews import ReviewLog
from graphmeta.datasets.session_logs import file_below
from graphmeta.errors import InputError

_AMAZON = "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html (5-core reviews)"
_COLUMNS = {"user": "reviewerID", "item": "asin", "rating": "overall", "text": "reviewText", "time": "unixReviewTime"}


def amazon_reviews(path: Path) -> ReviewLog:
    """Reviews in Amazon's public 5-core format: one JSON object per line, plain or ``.gz``; times in seconds since
    1970.

    CATN's pairs are ``Books``, ``Movies_and_TV`` and ``CDs_and_Vinyl``, each ``.filter()``-ed.

    Raises:
        InputError: a missing or truncated file, a line that is not a JSON object, or one without user, item, rating or
            time; names line or row and remedy.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; get it from {_AMAZON}")
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            rows = [_fields(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if not line.isspace()]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); get it from {_AMAZON}") from None
    return ReviewLog.read(pd.DataFrame(rows), **_COLUMNS)


def _fields(line: str, where: str) -> dict[str, object]:
    """The fields that are read from a line; all others are dropped to save memory."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{where}: not a JSON object; repair or remove the line, or get the file from {_AMAZON}")
    return {name: found[name] for name in _COLUMNS.values() if name in found}


def musical_instruments(folder: Path | None = None, *, seed: int = 0) -> tuple[ReviewLog, ReviewLog]:
    """Amazon's Musical Instruments as two domains, split by item texts: instruments, and electric equipment.

    Reads ``amazon_musical_instruments/Musical_Instruments.json``. The larger part (strings, straps, stands, tuners) is
    the source. The domains are parts of one catalogue, a substitute for two shops: most users reviewed items of both.

    Args:
        folder: the parent folder; GRAPHMETA_DATA if not given.
        seed: of the clustering.
    """
    name = "amazon_musical_instruments/Musical_Instruments.json"
    log = amazon_reviews(file_below(folder, name, source=_AMAZON))
    second = split_items_by_text(log, seed=seed)
    return log.of_items(~second), log.of_items(second)


def split_items_by_text(log: ReviewLog, *, seed: int = 0) -> np.ndarray:
    """Two groups of items by their review texts: TF-IDF, 50 singular vectors, k-means; True in the smaller group.

    An item's domain is a property of the item, like a shop's category: it is determined before users are split, from
    the words of all reviews and no rating.

    Shapes: returns ``[items]`` bool.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import KMeans
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import normalize
    except ImportError:
        raise InputError("clustering texts needs scikit-learn; pip install 'graphmeta[text]'") from None
    words = pd.Series(log.text).groupby(log.item).agg(" ".join).reindex(range(len(log.items)), fill_value="")
    table = TfidfVectorizer(stop_words="english", max_df=0.5, min_df=3 if len(words) > 100 else 1).fit_transform(words)
    width = min(50, min(table.shape) - 1)
    found = normalize(TruncatedSVD(width, random_state=seed).fit_transform(table))
    group = KMeans(2, n_init=10, random_state=seed).fit_predict(found)  # pyright: ignore[reportArgumentType]
    return group == np.bincount(group, minlength=2).argmin()


# Words of each aspect: in both domains, in books, in films; positive and negative words.
_SHARED = {
    "humour": ("funny joke", "pun witty", "gag slapstick", "hilarious laughing", "unfunny lame"),
    "romance": ("love couple", "courtship letters", "kiss chemistry", "tender swoon", "sappy loveless"),
    "suspense": ("mystery twist", "whodunit clue", "chase ambush", "gripping breathless", "predictable dull"),
    "history": ("war century", "footnote archive", "costume armour", "authentic accurate", "anachronism careless"),
}
_OWN = (
    {
        "prose": ("", "sentence paragraph", "", "lyrical polished", "clumsy wordy"),
        "binding": ("", "paperback spine", "", "sturdy handsome", "flimsy torn"),
    },
    {
        "acting": ("", "", "actor performance", "convincing nuanced", "wooden hammy"),
        "picture": ("", "", "camera lighting", "stunning crisp", "grainy murky"),
    },
)
_FILLER = "bought gift week friend afternoon copy arrived finished evening sister shelf again later started town train"


@dataclass(frozen=True, eq=False)
class SyntheticReviews:
    """Synthetic reviews of books and films by users who care about a few aspects, with the ground truth.

    ``preferences [U, A]`` marks the aspects of each user; ``quality[d] [I, A]`` the quality of items, −1 or 1;
    ``aspects [A]`` the names, the first ``shared`` of both domains; ``words[a]`` the words of an aspect in any domain.
    User ids are ``u0 …``, item ids ``book0 …`` and ``film0 …``, by their rows in these tables.
    """

    source: ReviewLog
    target: ReviewLog
    preferences: np.ndarray
    quality: tuple[np.ndarray, np.ndarray]
    aspects: tuple[str, ...]
    words: tuple[frozenset[str], ...]
    shared: int


def synthetic_reviews(
    *, common: int = 800, alone: int = 200, items: int = 60, each: int = 5, noise: float = 0.3, seed: int = 0
) -> SyntheticReviews:
    """Reviews whose words reveal a user's preferred aspects, and whose ratings depend on the item's quality in these.

    Each user prefers two of four aspects shared by books and films, and one of the two own aspects of each domain: C.
    An item is good or bad (q = ±1) at each aspect of its domain. The rating is ``3 + 2 mean_{a ∈ C} q_{i,a} + ε``, ε
    normal, rounded and clipped to 1 … 5; for each a in C, the text has two words of the aspect and one positive or
    negative word, by q, and four filler words. So a user's book reviews reveal two thirds of their film preferences,
    half of them in words that film reviews do not use; the rest is unpredictable.

    Args:
        common: users with reviews in both domains.
        alone: users in each domain only.
        items: of each domain.
        each: reviews per user and domain.
        noise: standard deviation of ε.
    """
    random = np.random.default_rng(seed)
    rows = [{**_SHARED, **own} for own in _OWN]
    aspects = (*_SHARED, *_OWN[0], *_OWN[1])
    preferences = _choose(random, common + 2 * alone, len(aspects))
    quality = random.choice([-1, 1], (2, items, len(aspects)))
    logs = []
    for domain, (table, kind) in enumerate(zip(rows, ("book", "film"), strict=True)):
        own = [number for number, name in enumerate(aspects) if name in table]
        users = np.r_[:common, common + domain * alone : common + (domain + 1) * alone]
        reviews = []
        for user in users:
            chosen = [a for a in own if preferences[user, a]]
            for item in random.permutation(items)[:each]:
                score = 3 + 2 * quality[domain, item, chosen].mean() + random.normal(0, noise)
                words = [_sentence(random, table[aspects[a]], domain, quality[domain, item, a] > 0) for a in chosen]
                words += random.choice(_FILLER.split(), (2, 2)).tolist()
                text = " ".join(" ".join(words[n]) for n in random.permutation(len(words)))
                reviews.append((f"u{user}", f"{kind}{item}", float(np.clip(np.rint(score), 1, 5)), text))
        frame = pd.DataFrame(reviews, columns=["user", "item", "rating", "text"])
        frame = frame.iloc[random.permutation(len(frame))].reset_index(drop=True)
        logs.append(ReviewLog.read(frame, user="user", item="item", rating="rating", text="text"))
    lists = {**rows[0], **rows[1]}
    words = tuple(frozenset(" ".join(lists[name]).split()) for name in aspects)
    return SyntheticReviews(logs[0], logs[1], preferences, (quality[0], quality[1]), aspects, words, len(_SHARED))


def _choose(random: np.random.Generator, users: int, aspects: int) -> np.ndarray:
    """Preferences of users: two of the shared aspects, one of each domain's own."""
    out, shared = np.zeros((users, aspects), dtype=bool), len(_SHARED)
    for row in out:
        row[random.permutation(shared)[:2]] = True
        row[shared + random.integers(2)] = row[shared + 2 + random.integers(2)] = True
    return out


def _sentence(random: np.random.Generator, words: tuple[str, ...], domain: int, good: bool) -> list[str]:
    """Two words of the aspect, and one positive or negative word."""
    topic = f"{words[0]} {words[1 + domain]}".split()
    return [*random.choice(topic, 2), str(random.choice(words[3 if good else 4].split()))]
