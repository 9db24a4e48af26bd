"""Reviews with ratings, the vocabulary of their texts, and documents of users and items.

A document is the concatenation of the reviews of a user (or of an item), by time. Each word keeps the index of its
review, so that a review can be removed from a document and a word traced back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from graphmeta.data.columns import column, ids, numbers
from graphmeta.data.parse_rows import Parser, parse_rows
from graphmeta.data.read_options import Source, table_of
from graphmeta.data.table_files import read_frame
from graphmeta.data.tables import locate
from graphmeta.data.times import seconds
from graphmeta.errors import InputError


@dataclass(frozen=True, eq=False)
class ReviewLog:
    """Reviews sorted by time; those with equal times keep the order of their rows.

    Shapes: user, item ``[R]`` int64 indices; rating, time ``[R]`` float64 (time in seconds, or row numbers); text
    ``[R]`` str; users, items: original ids.

    >>> frame = pd.DataFrame({"who": ["a", "b"], "what": [7, 7], "stars": [5, 3], "review": ["Loud.", ""]})
    >>> log = ReviewLog.read(frame, user="who", item="what", rating="stars", text="review")
    >>> log.user.tolist(), log.item.tolist(), log.items.tolist()
    ([0, 1], [0, 0], [7])
    """

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    time: np.ndarray
    text: np.ndarray
    users: np.ndarray
    items: np.ndarray

    @classmethod
    def read(
        cls, source: Source, *, user: str, item: str, rating: str, text: str, time: str | None = None
    ) -> ReviewLog:
        """Read reviews from a CSV, TSV or Parquet file or a frame; you name the columns. A missing text is empty.

        Raises:
            InputError: a missing column, user, item or rating, or unreadable times; names row and remedy.
        """
        frame, options = read_frame(source), table_of(source).options
        if len(frame) == 0:
            raise InputError("there are no reviews; nothing to read")
        parsers: dict[str, Parser] = {
            "user": lambda frame: ids(column(frame, user, "user"), "user"),
            "item": lambda frame: ids(column(frame, item, "item"), "item"),
            "rating": lambda frame: numbers(column(frame, rating, "rating"), "rating"),
        }
        if time is not None:
            parsers["time"] = lambda frame: seconds(column(frame, time, "time"), "time", options.time_format)
        frame, found = parse_rows(frame, parsers, drop=options.drop_bad_rows)
        times = found.get("time", np.arange(len(frame), dtype=np.float64))
        order = np.argsort(times, kind="stable")
        who, users = pd.factorize(found["user"][order])
        what, items = pd.factorize(found["item"][order])
        stars = found["rating"][order]
        texts = column(frame, text, "text").fillna("").astype(str).to_numpy(dtype=object)[order]
        numbered = who.astype(np.int64), what.astype(np.int64)
        return cls(*numbered, stars, times[order], texts, np.asarray(users), np.asarray(items))

    def __len__(self) -> int:
        return len(self.user)

    def select(self, reviews: np.ndarray) -> ReviewLog:
        """These reviews (a mask or rows ``[·]``); user and item indices stay the same."""
        columns = {name: getattr(self, name)[reviews] for name in ("user", "item", "rating", "time", "text")}
        return replace(self, **columns)

    def of_items(self, items: np.ndarray) -> ReviewLog:
        """The reviews of these items (a mask over items), with new indices for the remaining items and users."""
        some = self.select(items[self.item])
        who, users = pd.factorize(some.user)
        what, kept = pd.factorize(some.item)
        return replace(some, user=who, item=what, users=self.users[users], items=self.items[kept])

    def with_users(self, users: np.ndarray) -> ReviewLog:
        """The same reviews with the user indices of this table of ids, which must contain all users."""
        return replace(self, user=locate(users, self.users)[self.user], users=users)

    def filter(self, *, min_item_reviews: int = 30, min_user_reviews: int = 10) -> ReviewLog:
        """Filter items, then users, by their number of reviews, each once. Source: CATN's preparation of Amazon.

        Reviews without a text are dropped first.
        """
        kept = self.select(np.array([bool(text.strip()) for text in self.text], dtype=bool))
        kept = kept.select(np.bincount(kept.item, minlength=len(self.items))[kept.item] >= min_item_reviews)
        kept = kept.select(np.bincount(kept.user, minlength=len(self.users))[kept.user] >= min_user_reviews)
        if len(kept) == 0:
            raise InputError("no review is left; lower min_item_reviews or min_user_reviews")
        return kept.of_items(np.ones(len(self.items), dtype=bool))


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Words with indices from 1; 0 is padding. ``weights`` are their inverse document frequencies.

    ``split`` is the tokeniser, the same for all texts.
    """

    words: np.ndarray
    weights: np.ndarray
    split: Callable[[str], list[str]]

    @classmethod
    def fit(
        cls, texts: Sequence[str] | np.ndarray, *, size: int = 20_000, max_share: float = 0.5, min_count: int = 1
    ) -> Vocabulary:
        """The words with the largest TF-IDF sums over these texts; pass training texts only.

        Args:
            max_share: maximum document frequency of a word, as a share; English stop words are removed too.
            min_count: minimum document frequency of a word.

        Raises:
            InputError: scikit-learn is not installed, or no word is left.

        Source: CATN's preparation (20,000 words, .5). Differs: texts and vocabulary are lower-cased, and
        punctuation and English stop words are removed; the released code keeps stop words, and loses capitalised words
        because it lower-cases the vocabulary only.
        """
        vectorizer = _vectorizer(max_share, min_count)
        try:
            sums = np.asarray(vectorizer.fit_transform(texts).sum(0)).ravel()
        except ValueError as error:
            raise InputError(f"no word is left of {len(texts)} texts ({error}); lower min_count") from None
        chosen = np.sort(np.argsort(-sums, kind="stable")[:size])
        words = vectorizer.get_feature_names_out()[chosen]
        return cls(words, np.asarray(vectorizer.idf_)[chosen], vectorizer.build_analyzer())

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words.tolist(), 1)}

    def encode(self, text: str) -> list[int]:
        """The indices of the vocabulary words of a text, in order."""
        return [self._number[word] for word in self.split(text) if word in self._number]


def _vectorizer(max_share: float, min_count: int):  # noqa: ANN202
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise InputError("reading texts needs scikit-learn; pip install 'graphmeta[text]'") from None
    return TfidfVectorizer(stop_words="english", max_df=max_share, min_df=min_count)


@dataclass(frozen=True, eq=False)
class Words:
    """The words of reviews in one flat array: review r has ``word[ptr[r]:ptr[r + 1]]``."""

    word: np.ndarray
    ptr: np.ndarray

    @classmethod
    def of(cls, texts: np.ndarray, vocabulary: Vocabulary) -> Words:
        """The vocabulary words of these texts."""
        known = [vocabulary.encode(text) for text in texts]
        ptr = np.concatenate([[0], np.cumsum([len(words) for words in known])]).astype(np.int64)
        return cls(np.array([word for words in known for word in words], dtype=np.int64), ptr)


@dataclass(frozen=True, eq=False)
class Documents:
    """Documents padded with 0 to equal length; ``review`` is the review of each word (-1 for padding).

    Shapes: word, review ``[N, L]`` int64.
    """

    word: np.ndarray
    review: np.ndarray

    @classmethod
    def of(cls, edges: np.ndarray, words: Words, *, count: int, length: int) -> Documents:
        """One document for each of ``count`` owners: the first ``length`` words of their reviews.

        Args:
            edges: owner and review ``[2, ·]``; an owner's reviews come in the order of the edges.
        """
        owner, review = edges[:, np.argsort(edges[0], kind="stable")]
        size = np.diff(words.ptr)[review]
        begin = np.cumsum(size) - size  # of each review among all words
        first = np.concatenate([begin, [size.sum()]])[np.searchsorted(owner, owner)]  # of its owner's first review
        inside = np.arange(size.sum()) - np.repeat(begin, size)
        place = inside + np.repeat(begin - first, size)
        kept = place < length
        at = np.repeat(owner, size)[kept], place[kept]
        word, source = np.zeros((count, length), np.int64), np.full((count, length), -1, np.int64)
        word[at] = words.word[(np.repeat(words.ptr[:-1][review], size) + inside)[kept]]
        source[at] = np.repeat(review, size)[kept]
        return cls(word, source)


def latent_vectors(words: Words, vocabulary: Vocabulary, width: int, *, seed: int = 0) -> np.ndarray:
    """Word vectors from the reviews themselves, without a file of pretrained vectors: words of the same reviews are
    similar.

    Left singular vectors times singular values of the word-review TF-IDF matrix, each row scaled to length √D. Row 0 is
    padding, zeros.

    Shapes: returns ``[words + 1, D]`` float32.
    Source: Deerwester et al. 1990 (latent semantic analysis).
    """
    try:
        from scipy.sparse import csr_array
        from scipy.sparse.linalg import svds
    except ImportError:
        raise InputError("vectors of words need scipy; pip install 'graphmeta[text]'") from None

    review = np.repeat(np.arange(len(words.ptr) - 1), np.diff(words.ptr))
    shape = len(vocabulary), len(words.ptr) - 1
    table = csr_array((vocabulary.weights[words.word - 1], (words.word - 1, review)), shape=shape)
    if not 0 < width < min(shape):
        raise InputError(f"{shape[0]} words in {shape[1]} reviews have no {width} latent dimensions; use fewer")
    left, values, _ = svds(table, k=width, rng=np.random.default_rng(seed))
    found = left * values
    found *= np.sqrt(width) / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return np.concatenate([np.zeros((1, width)), found]).astype(np.float32)


def read_vectors(path: Path, vocabulary: Vocabulary, *, seed: int = 0) -> np.ndarray:
    """Pretrained word vectors from a text file in the format of word2vec or GloVe: one word and its vector per line.

    Row 0 is padding, zeros; words not in the file get Gaussian noise with the standard deviation of those in it.

    Shapes: returns ``[words + 1, D]`` float32.

    Raises:
        InputError: no such file, a line with another number of values, or none of the words.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; name one with one word and its vector per line (GloVe, word2vec as text)"
        )
    wanted, found, width = set(vocabulary.words.tolist()), {}, 0
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            word, *values = line.rstrip().split(" ")
            if number == 1 and len(values) == 1:
                continue  # word2vec header: count and width
            width = width or len(values)
            if len(values) != width:
                raise InputError(f"{path}, line {number}: {len(values)} numbers instead of {width}")
            if word in wanted:
                found[word] = np.array(values, dtype=np.float32)
    if not found:
        raise InputError(f"{path}: has none of the {len(vocabulary)} words; is it of the same language?")
    known = np.stack(list(found.values()))
    out = np.random.default_rng(seed).normal(0, known.std(), (len(vocabulary) + 1, width)).astype(np.float32)
    out[0] = 0
    for number, word in enumerate(vocabulary.words.tolist(), 1):
        out[number] = found.get(word, out[number])
    return out
