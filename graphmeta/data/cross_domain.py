"""Cross-domain cold-start users: the split of users, the training reviews, and their graph and documents.

Users with reviews in both domains are either *linking* (training has both domains) or *cold*: their reviews and ratings
in the target domain are hidden and serve only as queries. Models, documents, vocabulary and graph are built from
:attr:`CrossDomain.known`, which excludes them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphmeta.data.reviews import Documents, ReviewLog, Vocabulary, Words
from graphmeta.errors import InputError

SOURCE, TARGET = 0, 1
DOMAINS = ("source", "target")
ALONE, LINKING, DROPPED, VALID, TEST = range(5)  # roles of users


@dataclass(frozen=True, eq=False)
class Rows:
    """Ratings for training or testing: user, item, domain and rating of each row.

    Shapes: user, item, domain ``[N]`` int64 (item indices are per domain); rating ``[N]``.
    """

    user: Tensor
    item: Tensor
    domain: Tensor
    rating: Tensor

    def __len__(self) -> int:
        return len(self.user)

    def take(self, at: Tensor) -> Rows:
        """These rows (a mask or indices)."""
        return Rows(*(getattr(self, column.name)[at] for column in fields(self)))

    def to(self, device: torch.device | str) -> Rows:
        """The same rows on another device."""
        return Rows(*(getattr(self, column.name).to(device) for column in fields(self)))

    @classmethod
    def of(cls, log: ReviewLog, domain: int) -> Rows:
        """One row per review."""
        columns = torch.from_numpy(log.user), torch.from_numpy(log.item)
        rating = torch.from_numpy(log.rating).to(torch.get_default_dtype())
        return cls(*columns, torch.full((len(log),), domain), rating)

    @classmethod
    def joined(cls, *parts: Rows) -> Rows:
        """The rows of all parts, concatenated."""
        return cls(*(torch.cat([getattr(part, column.name) for part in parts]) for column in fields(cls)))


@dataclass(frozen=True, eq=False)
class CrossDomain:
    """Reviews of two domains with a shared table of users, and the role of each user.

    Shapes: role ``[U]``: in one domain only (ALONE), LINKING, cold user for validation (VALID), cold user for the test
    (TEST), or excluded (DROPPED).
    """

    logs: tuple[ReviewLog, ReviewLog]
    role: np.ndarray

    @classmethod
    def split(
        cls,
        source: ReviewLog,
        target: ReviewLog,
        *,
        cold: float = 0.5,
        linking: float = 1.0,
        valid: float = 0.4,
        seed: int = 0,
    ) -> CrossDomain:
        """Sample the cold and the linking users among the users in both domains.

        Args:
            cold: the share of common users who are cold in the target domain.
            valid: the share of these used for validation, the rest for the test.
            linking: the share of the other common users that is kept (η); the rest is excluded from both domains.

        Raises:
            InputError: too few common users to have one of each kind.

        Source: CATN, protocol (cold .5, valid .4, η of 1, .5, .2, .1, .05).
        """
        users = np.unique(np.concatenate([source.users.astype(str), target.users.astype(str)]))
        logs = source.with_users(users), target.with_users(users)
        wrote = [np.bincount(log.user, minlength=len(users)) > 0 for log in logs]
        common = np.random.default_rng(seed).permutation(np.flatnonzero(wrote[SOURCE] & wrote[TARGET]))
        new = round(len(common) * cold)
        validation, kept = round(new * valid), round((len(common) - new) * linking)
        if min(validation, new - validation, kept) < 1:
            raise InputError(
                f"{len(common)} users in both domains are too few for cold={cold}, valid={valid}, linking={linking}"
            )
        role = np.full(len(users), ALONE)
        role[common[:validation]], role[common[validation:new]] = VALID, TEST
        role[common[new : new + kept]], role[common[new + kept :]] = LINKING, DROPPED
        return cls(logs, role)

    @property
    def users(self) -> np.ndarray:
        """The user ids."""
        return self.logs[SOURCE].users

    @property
    def num_items(self) -> tuple[int, int]:
        """Number of items of the two domains."""
        return len(self.logs[SOURCE].items), len(self.logs[TARGET].items)

    @cached_property
    def known(self) -> tuple[ReviewLog, ReviewLog]:
        """The training reviews of both domains: no cold users in the target domain, no DROPPED users."""
        source, target = self.logs
        return (
            source.select(self.role[source.user] != DROPPED),
            target.select(np.isin(self.role[target.user], (ALONE, LINKING))),
        )

    @property
    def is_cold(self) -> np.ndarray:
        """Whether each user is cold in the target domain, ``[U]``."""
        return (self.role == VALID) | (self.role == TEST)

    def ratings(self) -> Rows:
        """All training ratings of both domains."""
        return Rows.joined(*(Rows.of(log, domain) for domain, log in enumerate(self.known)))

    def flows(self) -> Rows:
        """The training ratings of linking users, to be predicted from their reviews in the other domain."""
        rows = self.ratings()
        return rows.take(torch.from_numpy(self.role == LINKING)[rows.user])

    def queries(self, role: int = TEST) -> Rows:
        """The queries: ratings of cold users (VALID or TEST) in the target domain."""
        target = self.logs[TARGET]
        return Rows.of(target.select(self.role[target.user] == role), TARGET)

    @property
    def mean(self) -> tuple[float, float]:
        """The mean training rating of each of the two domains."""
        return float(self.known[SOURCE].rating.mean()), float(self.known[TARGET].rating.mean())

    def means(self) -> tuple[Tensor, Tensor]:
        """The mean training rating of each item of the two domains; the global mean for items without ratings."""
        first, second = (_means(log.item, log.rating, len(log.items)) for log in self.known)
        return _tensor(first), _tensor(second)

    def damped(self) -> tuple[Tensor, Tensor]:
        """The mean training rating of each item of the two domains, shrunk to the global mean."""
        first, second = (damped_means(log.item, log.rating, len(log.items)) for log in self.known)
        return _tensor(first), _tensor(second)

    def user_bias(self) -> Tensor:
        """Mean deviation of each user's training ratings from the item means in each domain, damped too, ``[2, U]``."""
        found = []
        for log in self.known:
            above = log.rating - damped_means(log.item, log.rating, len(log.items))[log.item]
            found.append(damped_means(log.user, above, len(self.users)))
        return _tensor(np.stack(found))


def damped_means(group: np.ndarray, value: np.ndarray, count: int) -> np.ndarray:
    """Group means, shrunk to the global mean.

    ``μ + n a / (n a + s) · (m − μ)`` for a group of n values with mean m, where s is the variance within groups and a
    the variance between groups, both estimated from the values; there is no hyperparameter.

    Shapes: group, value ``[N]`` -> ``[count]``; a group without a value has the mean of all.
    Source: Bühlmann & Straub 1970 (credibility), with the moment estimates of one-way random effects.
    """
    size, mean, middle = np.bincount(group, minlength=count), _means(group, value, count), value.mean()
    spare, groups = len(value) - (size > 0).sum(), (size > 0).sum()
    within = np.square(value - mean[group]).sum() / spare if spare else np.inf
    between = (size @ np.square(mean - middle)) / max(within, 1e-12) - (groups - 1)  # 0 if explained by s alone
    ratio = max(between / max(len(value) - (size @ size) / len(value), 1e-12), 0.0)  # a / s
    return middle + size * ratio / (size * ratio + 1) * (mean - middle)


def _means(group: np.ndarray, value: np.ndarray, count: int) -> np.ndarray:
    size, total = np.bincount(group, minlength=count), np.bincount(group, value, minlength=count)
    return np.where(size > 0, total / np.maximum(size, 1), value.mean())


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).to(torch.get_default_dtype())


def review_graph(cut: CrossDomain, *, aspects: int = 5, correlation: Tensor | None = None) -> HeteroData:
    """The training reviews as a graph: users, reviews, the items of two domains, and aspects.

    Node types: ``user`` (with ``role``), ``item_source``, ``item_target``, ``review`` (with ``rating``, ``time`` and
    ``domain``; source domain first, each domain by time), ``aspect_source``, ``aspect_target``. Edge
    types: ``(user, writes, review)``, ``(review, about, item_source)`` and ``(review, about, item_target)``, in the
    order of the reviews, and ``(aspect_source, goes_with, aspect_target)``, fully connected.

    Args:
        aspects: number of aspects per domain.
        correlation: the learned correlation of aspects (``Catn.correlation``), stored as ``weight`` of their edges.
    """
    graph, first = HeteroData(), 0
    graph["user"].num_nodes, graph["user"].role = len(cut.users), torch.from_numpy(cut.role)
    for name, log in zip(DOMAINS, cut.known, strict=True):
        graph[f"item_{name}"].num_nodes, graph[f"aspect_{name}"].num_nodes = len(log.items), aspects
        edges = torch.stack([torch.arange(first, first + len(log)), torch.from_numpy(log.item)])
        graph["review", "about", f"item_{name}"].edge_index = edges
        first += len(log)
    user, rating, time = (np.concatenate([getattr(log, n) for log in cut.known]) for n in ("user", "rating", "time"))
    graph["review"].num_nodes = first
    graph["review"].rating, graph["review"].time = torch.from_numpy(rating), torch.from_numpy(time)
    graph["review"].domain = torch.arange(2).repeat_interleave(torch.tensor([len(log) for log in cut.known]))
    graph["user", "writes", "review"].edge_index = torch.stack([torch.from_numpy(user), torch.arange(first)])
    pairs = graph["aspect_source", "goes_with", "aspect_target"]
    pairs.edge_index = torch.cartesian_prod(torch.arange(aspects), torch.arange(aspects)).T
    if correlation is not None:
        pairs.weight = correlation.detach().flatten()
    graph.validate()
    return graph


@dataclass(frozen=True, eq=False)
class Texts:
    """The documents of users and items in both domains, and auxiliary documents of users.

    ``users[d]``, ``items[d]`` and ``auxiliary[d]`` are those of domain d; ``words``, ``writer [R]`` and ``reviews [R]``
    are the vocabulary words, the user and the text of each review of the graph.
    """

    vocabulary: Vocabulary
    users: tuple[Documents, Documents]
    items: tuple[Documents, Documents]
    auxiliary: tuple[Documents, Documents]
    words: Words
    writer: np.ndarray
    reviews: np.ndarray


def read_texts(cut: CrossDomain, *, length: int = 500, size: int = 20_000, min_count: int = 1, seed: int = 0) -> Texts:
    """Vocabulary and documents of the training reviews, in the order of the graph's edges.

    Args:
        length: words per document.
        size: vocabulary size.
        min_count: minimum document frequency of a word.
        seed: for sampling the auxiliary reviews, see :func:`auxiliary_reviews`.
    """
    graph = review_graph(cut)
    reviews = np.concatenate([log.text for log in cut.known])
    vocabulary = Vocabulary.fit(reviews, size=size, min_count=min_count)
    words, writes = Words.of(reviews, vocabulary), graph["user", "writes", "review"].edge_index.numpy()

    def documents(edges: np.ndarray, count: int) -> Documents:
        return Documents.of(edges, words, count=count, length=length)

    users, items, others = [], [], []
    for domain, name in enumerate(DOMAINS):
        inside = graph["review"].domain.numpy() == domain
        users.append(documents(writes[:, inside], len(cut.users)))
        about = graph["review", "about", f"item_{name}"].edge_index.numpy()
        items.append(documents(about[::-1], cut.num_items[domain]))
        auxiliary = auxiliary_reviews(cut, domain, seed=seed)
        auxiliary[1] += domain * len(cut.known[SOURCE])  # to review indices of the graph
        others.append(documents(auxiliary, len(cut.users)))
    return Texts(vocabulary, (*users,), (*items,), (*others,), words, writes[0], reviews)  # pyright: ignore


def auxiliary_reviews(cut: CrossDomain, domain: int, *, seed: int = 0) -> np.ndarray:
    """For each training review of a common user, a review of the same item by a user of this domain only.

    It has the same rating; if there is none, one point more, then one point less; otherwise the review has no
    auxiliary review.

    Shapes: ``[2, ·]``: the user, and the index of the auxiliary review among the training reviews of the domain.
    Source: CATN, auxiliary reviews. Differs: the released code builds them for the users of one domain, so that its
    test users have none.
    """
    log, random = cut.known[domain], np.random.default_rng([seed, domain])
    single = cut.role[log.user] == ALONE
    offers: dict[tuple[int, float], list[int]] = {}
    for row in np.flatnonzero(single).tolist():
        offers.setdefault((int(log.item[row]), float(log.rating[row])), []).append(row)
    found = []
    for row, sample in zip(np.flatnonzero(~single).tolist(), random.random((~single).sum()).tolist(), strict=True):
        item, rating = int(log.item[row]), float(log.rating[row])
        offer = next((o for step in (0, 1, -1) if (o := offers.get((item, rating + step)))), None)
        if offer is not None:
            found.append((log.user[row], offer[int(sample * len(offer))]))
    return np.array(found, dtype=np.int64).reshape(-1, 2).T
