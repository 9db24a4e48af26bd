"""Two shops with some users in common: who is new in the second, what training may know, and the graph of it.

Of the users who wrote in both domains some are *linking*, known in both, and the rest are *cold*: what they wrote and
rated in the target domain is hidden from everything but the question, what do they rate there. All that models,
documents, vocabulary and graph are made of is :attr:`CrossDomain.known`, in which it is not.
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
    """Ratings to learn or to ask: this user, this item of this domain, this many points.

    Shapes: user, item, domain ``[N]`` int64 (items are numbered within their domain); rating ``[N]``.
    """

    user: Tensor
    item: Tensor
    domain: Tensor
    rating: Tensor

    def __len__(self) -> int:
        return len(self.user)

    def take(self, at: Tensor) -> Rows:
        """These rows (a mask or numbers)."""
        return Rows(*(getattr(self, column.name)[at] for column in fields(self)))

    def to(self, device: torch.device | str) -> Rows:
        """The same rows on another device."""
        return Rows(*(getattr(self, column.name).to(device) for column in fields(self)))

    @classmethod
    def of(cls, log: ReviewLog, domain: int) -> Rows:
        """A row for each review."""
        columns = torch.from_numpy(log.user), torch.from_numpy(log.item)
        rating = torch.from_numpy(log.rating).to(torch.get_default_dtype())
        return cls(*columns, torch.full((len(log),), domain), rating)

    @classmethod
    def joined(cls, *parts: Rows) -> Rows:
        """One after another."""
        return cls(*(torch.cat([getattr(part, column.name) for part in parts]) for column in fields(cls)))


@dataclass(frozen=True, eq=False)
class CrossDomain:
    """Reviews of two domains over one table of users, and the role of each user.

    Shapes: role ``[U]``: in one domain only (ALONE), LINKING, cold and asked for choosing the epoch (VALID), cold and
    asked in the end (TEST), or left out of everything (DROPPED).
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
        """Draw who of the users in both domains is cold, and who of the others links the domains.

        Args:
            cold: the share of common users who are new in the target domain; valid: the share of these who choose the
                epoch, the rest is asked in the end.
            linking: the share of the other common users that is kept (η); the rest is left out of both domains.

        Raises:
            InputError: too few users in common to have one of each kind.

        Source: CATN, protocol (cold .5, valid .4, η of 1, .5, .2, .1, .05).
        """
        users = np.unique(np.concatenate([source.users.astype(str), target.users.astype(str)]))
        logs = source.with_users(users), target.with_users(users)
        wrote = [np.bincount(log.user, minlength=len(users)) > 0 for log in logs]
        common = np.random.default_rng(seed).permutation(np.flatnonzero(wrote[SOURCE] & wrote[TARGET]))
        new = round(len(common) * cold)
        asked, kept = round(new * valid), round((len(common) - new) * linking)
        if min(asked, new - asked, kept) < 1:
            raise InputError(
                f"{len(common)} users in both domains are too few for cold={cold}, valid={valid}, linking={linking}"
            )
        role = np.full(len(users), ALONE)
        role[common[:asked]], role[common[asked:new]] = VALID, TEST
        role[common[new : new + kept]], role[common[new + kept :]] = LINKING, DROPPED
        return cls(logs, role)

    @property
    def users(self) -> np.ndarray:
        """The ids of users."""
        return self.logs[SOURCE].users

    @property
    def num_items(self) -> tuple[int, int]:
        """Items of the two domains."""
        return len(self.logs[SOURCE].items), len(self.logs[TARGET].items)

    @cached_property
    def known(self) -> tuple[ReviewLog, ReviewLog]:
        """What training may know of the two domains: all but the target of cold users and all of those left out."""
        source, target = self.logs
        return (
            source.select(self.role[source.user] != DROPPED),
            target.select(np.isin(self.role[target.user], (ALONE, LINKING))),
        )

    @property
    def is_cold(self) -> np.ndarray:
        """Who is new in the target domain, ``[U]``."""
        return (self.role == VALID) | (self.role == TEST)

    def ratings(self) -> Rows:
        """All known ratings of both domains."""
        return Rows.joined(*(Rows.of(log, domain) for domain, log in enumerate(self.known)))

    def flows(self) -> Rows:
        """The known ratings of linking users: each item of a domain is asked of who they are in the other."""
        rows = self.ratings()
        return rows.take(torch.from_numpy(self.role == LINKING)[rows.user])

    def queries(self, role: int = TEST) -> Rows:
        """What cold users (VALID or TEST) rated in the target domain: the questions, and nothing else."""
        target = self.logs[TARGET]
        return Rows.of(target.select(self.role[target.user] == role), TARGET)

    @property
    def mean(self) -> tuple[float, float]:
        """The mean known rating of the two domains."""
        return float(self.known[SOURCE].rating.mean()), float(self.known[TARGET].rating.mean())

    def means(self) -> tuple[Tensor, Tensor]:
        """The mean known rating of each item of the two domains; of all, where an item has none."""
        first, second = (_means(log.item, log.rating, len(log.items)) for log in self.known)
        return _tensor(first), _tensor(second)

    def damped(self) -> tuple[Tensor, Tensor]:
        """The mean known rating of each item of the two domains, nearer to that of all the fewer ratings there are."""
        first, second = (damped_means(log.item, log.rating, len(log.items)) for log in self.known)
        return _tensor(first), _tensor(second)

    def user_bias(self) -> Tensor:
        """How much more each user is known to give in each domain than its items get, damped likewise, ``[2, U]``."""
        found = []
        for log in self.known:
            above = log.rating - damped_means(log.item, log.rating, len(log.items))[log.item]
            found.append(damped_means(log.user, above, len(self.users)))
        return _tensor(np.stack(found))


def damped_means(group: np.ndarray, value: np.ndarray, count: int) -> np.ndarray:
    """Means of groups, drawn towards the mean of all as far as chance alone would spread them.

    ``μ + n a / (n a + s) · (m − μ)`` for a group of n values with mean m, where s is how much values differ within a
    group and a how much groups differ beyond what s explains, both estimated from the values. Nothing is to be set.

    Shapes: group, value ``[N]`` -> ``[count]``; a group without a value has the mean of all.
    Source: Bühlmann & Straub 1970 (credibility), with the moment estimates of one-way random effects.
    """
    size, mean, middle = np.bincount(group, minlength=count), _means(group, value, count), value.mean()
    spare, groups = len(value) - (size > 0).sum(), (size > 0).sum()
    within = np.square(value - mean[group]).sum() / spare if spare else np.inf
    between = (size @ np.square(mean - middle)) / max(within, 1e-12) - (groups - 1)  # 0 were it chance alone
    ratio = max(between / max(len(value) - (size @ size) / len(value), 1e-12), 0.0)  # a / s
    return middle + size * ratio / (size * ratio + 1) * (mean - middle)


def _means(group: np.ndarray, value: np.ndarray, count: int) -> np.ndarray:
    size, total = np.bincount(group, minlength=count), np.bincount(group, value, minlength=count)
    return np.where(size > 0, total / np.maximum(size, 1), value.mean())


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).to(torch.get_default_dtype())


def review_graph(cut: CrossDomain, *, aspects: int = 5, correlation: Tensor | None = None) -> HeteroData:
    """What is known, as a graph: users, the reviews they wrote, the items of two domains, and nodes for aspects.

    Node types: ``user`` (with ``role``), ``item_source``, ``item_target``, ``review`` (with ``rating``, ``time`` and
    ``domain``; the source's come first, each domain's in the order of time), ``aspect_source``, ``aspect_target``. Edge
    types: ``(user, writes, review)``, ``(review, about, item_source)`` and ``(review, about, item_target)``, in the
    order of the reviews, and ``(aspect_source, goes_with, aspect_target)``, each with each.

    Args:
        aspects: of each domain.
        correlation: how they belong together, as a model has learned it (``Catn.correlation``), for ``weight`` of
            their edges.
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
    """The documents of a graph: of each user and each item in both domains, and what others wrote in a user's place.

    ``users[d]``, ``items[d]`` and ``auxiliary[d]`` are those of domain d; ``words``, ``writer [R]`` and ``said [R]``
    are the known words of each review of the graph, who wrote it, and its text.
    """

    vocabulary: Vocabulary
    users: tuple[Documents, Documents]
    items: tuple[Documents, Documents]
    auxiliary: tuple[Documents, Documents]
    words: Words
    writer: np.ndarray
    said: np.ndarray


def read_texts(cut: CrossDomain, *, length: int = 500, size: int = 20_000, min_count: int = 1, seed: int = 0) -> Texts:
    """Words and documents of what is known, in the order of the graph's edges.

    Args:
        length: words a document; size: words of the vocabulary; min_count: reviews that must hold a word.
        seed: of who stands in for whom in the auxiliary documents, see :func:`auxiliary_reviews`.
    """
    graph = review_graph(cut)
    said = np.concatenate([log.text for log in cut.known])
    vocabulary = Vocabulary.fit(said, size=size, min_count=min_count)
    words, writes = Words.of(said, vocabulary), graph["user", "writes", "review"].edge_index.numpy()

    def documents(edges: np.ndarray, count: int) -> Documents:
        return Documents.of(edges, words, count=count, length=length)

    users, items, others = [], [], []
    for domain, name in enumerate(DOMAINS):
        inside = graph["review"].domain.numpy() == domain
        users.append(documents(writes[:, inside], len(cut.users)))
        about = graph["review", "about", f"item_{name}"].edge_index.numpy()
        items.append(documents(about[::-1], cut.num_items[domain]))
        instead = auxiliary_reviews(cut, domain, seed=seed)
        instead[1] += domain * len(cut.known[SOURCE])  # numbered as the graph numbers reviews
        others.append(documents(instead, len(cut.users)))
    return Texts(vocabulary, (*users,), (*items,), (*others,), words, writes[0], said)  # pyright: ignore


def auxiliary_reviews(cut: CrossDomain, domain: int, *, seed: int = 0) -> np.ndarray:
    """For each known review of a common user, one of the same item by somebody who is in this domain only.

    It has the same rating; where there is none such, one point more, then one less; where there is none either, the
    review has no stand-in. Nobody stands in for themselves, for only users of both domains need it.

    Shapes: ``[2, ·]``: the user, and the number of the stand-in among the known reviews of the domain.
    Source: CATN, auxiliary reviews. Differs: the released code builds them for the users of one domain, so that those
    it asks about have none.
    """
    log, random = cut.known[domain], np.random.default_rng([seed, domain])
    alone = cut.role[log.user] == ALONE
    offers: dict[tuple[int, float], list[int]] = {}
    for row in np.flatnonzero(alone).tolist():
        offers.setdefault((int(log.item[row]), float(log.rating[row])), []).append(row)
    found = []
    for row, lot in zip(np.flatnonzero(~alone).tolist(), random.random((~alone).sum()).tolist(), strict=True):
        item, rating = int(log.item[row]), float(log.rating[row])
        offer = next((o for step in (0, 1, -1) if (o := offers.get((item, rating + step)))), None)
        if offer is not None:
            found.append((log.user[row], offer[int(lot * len(offer))]))
    return np.array(found, dtype=np.int64).reshape(-1, 2).T
