"""Reviews of two domains: Amazon's public files, items of one file cut in two by their texts, and invented ones whose
aspects are known."""

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
    """Reviews in Amazon's public 5-core form: a JSON object a line, plain or ``.gz``; seconds since 1970.

    CATN's pairs are ``Books``, ``Movies_and_TV`` and ``CDs_and_Vinyl``, each ``.filter()``-ed.

    Raises:
        InputError: no such file, one that is cut off, a line that is no JSON object, or one without the user, item,
            rating or time; names line or row and remedy.
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
    """Of a line, what is read of a review; the rest would fill the memory."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{where}: no JSON object; mend or drop the line, or get the file from {_AMAZON}")
    return {name: found[name] for name in _COLUMNS.values() if name in found}


def musical_instruments(folder: Path | None = None, *, seed: int = 0) -> tuple[ReviewLog, ReviewLog]:
    """Amazon's Musical Instruments as two domains, cut by the items' texts: what one plays on, and what is plugged in.

    Reads ``amazon_musical_instruments/Musical_Instruments.json``. The greater part (strings, straps, stands, tuners) is
    the source. No two shops, but the nearest that one file gives: most users bought of both.

    Args:
        folder: the folder above; GRAPHMETA_DATA if not given. seed: of the clustering.
    """
    name = "amazon_musical_instruments/Musical_Instruments.json"
    log = amazon_reviews(file_below(folder, name, source=_AMAZON))
    second = split_items_by_text(log, seed=seed)
    return log.of_items(~second), log.of_items(second)


def split_items_by_text(log: ReviewLog, *, seed: int = 0) -> np.ndarray:
    """Two groups of items by what is written of them: TF-IDF, 50 singular vectors, k-means; True in the smaller one.

    Which domain an item is of is a fact about the item, as a shop's category is: it is settled before users are split,
    by the words of all reviews and by no rating.

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
    said = pd.Series(log.text).groupby(log.item).agg(" ".join).reindex(range(len(log.items)), fill_value="")
    table = TfidfVectorizer(stop_words="english", max_df=0.5, min_df=3 if len(said) > 100 else 1).fit_transform(said)
    width = min(50, min(table.shape) - 1)
    found = normalize(TruncatedSVD(width, random_state=seed).fit_transform(table))
    group = KMeans(2, n_init=10, random_state=seed).fit_predict(found)  # pyright: ignore[reportArgumentType]
    return group == np.bincount(group, minlength=2).argmin()


# Of each aspect: words for it in both domains, in books, in films; words of praise and of blame.
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
    """Reviews of books and films by people who each care for a few aspects, and what is behind them.

    ``preferences [U, A]`` says who preferences for what; ``quality[d] [I, A]`` how good items are, −1 or 1; ``aspects [A]`` the names,
    of which the first ``shared`` are aspects of both domains; ``words[a]`` the words of an aspect in any domain. Users
    are called ``u0 …``, items ``book0 …`` and ``film0 …``, by their rows in these tables.
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
    """Reviews whose words say what a person preferences for, and whose ratings depend on how good the item is at that.

    Of four aspects of books and films a person preferences for two, and of each domain's two own aspects for one: C. An item
    is good or bad (q = ±1) at each aspect of its domain. The rating is ``3 + 2 mean_{a ∈ C} q_{i,a} + ε``, ε normal,
    rounded and cut to 1 … 5; the text has for each a in C two words for the aspect and a word of praise or blame, as
    q says, and four words that mean nothing. So a book's reader tells two thirds of why they will like a film, in
    words of which half are not those that films are described with, and the rest nobody can know.

    Args:
        common: people who review in both domains; alone: people in each domain only; items: of each domain.
        each: reviews of a person in a domain; noise: standard deviation of ε.
    """
    random = np.random.default_rng(seed)
    rows = [{**_SHARED, **own} for own in _OWN]
    aspects = (*_SHARED, *_OWN[0], *_OWN[1])
    preferences = _choose(random, common + 2 * alone, len(aspects))
    quality = random.choice([-1, 1], (2, items, len(aspects)))
    logs = []
    for domain, (table, what) in enumerate(zip(rows, ("book", "film"), strict=True)):
        here = [number for number, name in enumerate(aspects) if name in table]
        people = np.r_[:common, common + domain * alone : common + (domain + 1) * alone]
        reviews = []
        for user in people:
            liked = [a for a in here if preferences[user, a]]
            for item in random.permutation(items)[:each]:
                score = 3 + 2 * quality[domain, item, liked].mean() + random.normal(0, noise)
                said = [_sentence(random, table[aspects[a]], domain, quality[domain, item, a] > 0) for a in liked]
                said += random.choice(_FILLER.split(), (2, 2)).tolist()
                text = " ".join(" ".join(said[n]) for n in random.permutation(len(said)))
                reviews.append((f"u{user}", f"{what}{item}", float(np.clip(np.rint(score), 1, 5)), text))
        frame = pd.DataFrame(reviews, columns=["user", "item", "rating", "text"])
        frame = frame.iloc[random.permutation(len(frame))].reset_index(drop=True)
        logs.append(ReviewLog.read(frame, user="user", item="item", rating="rating", text="text"))
    lists = {**rows[0], **rows[1]}
    words = tuple(frozenset(" ".join(lists[name]).split()) for name in aspects)
    return SyntheticReviews(logs[0], logs[1], preferences, (quality[0], quality[1]), aspects, words, len(_SHARED))


def _choose(random: np.random.Generator, people: int, aspects: int) -> np.ndarray:
    """Who preferences for what: two of the shared aspects, one of each domain's own."""
    out, shared = np.zeros((people, aspects), dtype=bool), len(_SHARED)
    for row in out:
        row[random.permutation(shared)[:2]] = True
        row[shared + random.integers(2)] = row[shared + 2 + random.integers(2)] = True
    return out


def _sentence(random: np.random.Generator, words: tuple[str, ...], domain: int, good: bool) -> list[str]:
    """Two words for the aspect, and one of praise or blame."""
    topic = f"{words[0]} {words[1 + domain]}".split()
    return [*random.choice(topic, 2), str(random.choice(words[3 if good else 4].split()))]
