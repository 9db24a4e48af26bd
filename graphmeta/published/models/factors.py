"""Cross-domain rating prediction from matrix factors: one user table for both domains, or a mapping between two."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphmeta.data.cross_domain import LINKING, SOURCE, TARGET, VALID, CrossDomain, Rows, Texts
from graphmeta.errors import InputError
from graphmeta.evaluation.metrics import rating_errors
from graphmeta.nn.cross_domain.factors import (
    DenoisingFactors,
    Factors,
    Mapping,
    PersonalMapping,
    SimilarityFactors,
    UserVectors,
    user_similarity,
    user_table,
)
from graphmeta.nn.cross_domain.text import WordVectors
from graphmeta.published.models.cross_domain import cold_errors, device_of, predict
from graphmeta.published.names import rating_model
from graphmeta.training.stages import Stage

Side = Factors | DenoisingFactors


class TwoDomainFactors(nn.Module):
    """Factors of two domains; predicts ratings within a domain."""

    def __init__(self, sides: tuple[Side, Side]) -> None:
        super().__init__()
        self.sides = nn.ModuleList(sides)

    def forward(self, rows: Rows) -> Tensor:
        """Predicted rating of each row by the factors of its domain, ``[N]``."""
        return self._each(rows, lambda side, own: side.rate(side.vectors(own.user), own.item))

    def losses(self, rows: Rows) -> Tensor:
        """Loss of each row by the factors of its domain, ``[N]``."""
        return self._each(rows, lambda side, own: side.losses(own.user, own.item, own.rating))

    def _each(self, rows: Rows, compute) -> Tensor:  # noqa: ANN001
        found = rows.rating.new_zeros(len(rows))
        for domain, side in enumerate(self.sides):
            at = (rows.domain == domain).nonzero().flatten()
            if len(at):
                found = found.index_add(0, at, compute(side, rows.take(at)))
        return found

    def stages(self, cut: CrossDomain) -> list[Stage]:
        """Train on all known ratings; the epoch is chosen on cold-start users, whose vectors come from the source
        domain.
        """
        rows = cut.ratings().to(device_of(self))
        return [Stage(self, len(rows), lambda at: self.losses(rows.take(at)), lambda: cold_errors(self, cut, VALID))]


class MappedFactors(nn.Module):
    """Factors of each domain, then a mapping from the users' source vectors to their target vectors."""

    def __init__(self, factors: TwoDomainFactors, mapping: Mapping | PersonalMapping) -> None:
        super().__init__()
        self.factors, self.mapping = factors, mapping

    def forward(self, rows: Rows) -> Tensor:
        """Predicted ratings of cold-start users on target items, ``[N]``.

        Raises:
            InputError: an item of the source domain; there is no mapping into it.
        """
        if (rows.domain == SOURCE).any():
            raise InputError("the mapping leads from source to target; pass items of the target domain")
        sides: Any = self.factors.sides
        source, target = sides
        return target.rate(self.mapping(rows.user, source.vectors), rows.item)

    def stages(self, cut: CrossDomain) -> list[Stage]:
        """First the factors, whose epoch is chosen on a tenth of the known ratings, excluded from training and from the
        rating rows that autoencoders read (not from the item means); then the mapping, whose epoch is chosen on
        cold-start users.
        """
        training, validation = (rows.to(device_of(self)) for rows in _train_validation(cut.ratings()))
        mapping: Any = self.mapping
        sides: Any = self.factors.sides
        learners, vectors = mapping.learners, [_frozen(side) for side in sides]

        def held_out() -> dict[str, float]:
            return rating_errors(predict(self.factors, validation), validation.rating.cpu())

        def losses(at: Tensor) -> Tensor:
            return mapping.losses(learners[at], *vectors)

        return [
            Stage(self.factors, len(training), lambda at: self.factors.losses(training.take(at)), held_out),
            Stage(self.mapping, len(learners), losses, lambda: cold_errors(self, cut, VALID)),
        ]


@rating_model("Singh & Gordon 2008, CMF")
def cmf(cut: CrossDomain, *, width: int = 16, shrink: float = 0.05) -> TwoDomainFactors:
    """CMF: joint factorisation of both domains' ratings, with one vector per user.

    ``Σ_s (r − r̂)² + Σ_t (r − r̂)² + λ(…)`` with ``r̂ = b_i + u·v_i + u_0``.

    Args:
        cut: the split of users.
        width: of the vectors.
        shrink: λ.

    Source: Singh & Gordon, Relational Learning via Collective Matrix Factorization, KDD 2008.
    Differs: ratings of two domains only; user and item biases, the latter regularised towards damped item means.
    """
    one = user_table(len(cut.users), width)
    first, second = (Factors(one, of_items, shrink=shrink) for of_items in cut.damped())
    return TwoDomainFactors((first, second))


@rating_model("Man et al. 2017, EMCDR (linear)", variants={"emcdr_mlp": ("Man et al. 2017, EMCDR (MLP)", "mlp=True")})
def emcdr(cut: CrossDomain, *, width: int = 16, shrink: float = 0.05, mlp: bool = False) -> MappedFactors:
    """EMCDR: separate factors per domain, then a mapping learned on linking users, ``min ‖f(u^s) − u^t‖²``.

    Args:
        cut: the split of users.
        width: of the vectors.
        shrink: λ of their L2 term.
        mlp: ``f`` is an MLP with one tanh layer of twice the width; else a matrix.

    Source: Man et al., Cross-Domain Recommendation: An Embedding and Mapping Approach, IJCAI 2017.
    Differs: biases as in :func:`cmf`; the mapped vector includes the user bias.
    """
    first, second = (Factors(user_table(len(cut.users), width), of_items, shrink=shrink) for of_items in cut.damped())
    return MappedFactors(TwoDomainFactors((first, second)), _mapping(cut, width + 1, mlp=mlp))


@rating_model("Wang et al. 2018, CDLFM")
def cdlfm(
    cut: CrossDomain, *, width: int = 16, shrink: float = 0.05, pull: float = 0.1, neighbours: int = 50
) -> MappedFactors:
    """CDLFM: factors regularised by user similarity, and a mapping per cold-start user, learned on similar linking
    users.

    Args:
        cut: the split of users.
        width: of the vectors.
        shrink: λ of their L2 term.
        pull: α of the similarity regulariser.
        neighbours: linking users per mapping.

    Source: Wang et al., Cross-Domain Recommendation for Cold-Start Users via Neighborhood Based Feature Mapping,
    DASFAA 2018. Differs: the similarity is :func:`~graphmeta.nn.cross_domain.factors.user_similarity`; mappings are
    networks, not boosted trees, trained jointly for all cold-start users; a cold-start user who resembles no linking
    user learns from as many random ones with equal weights.
    """
    similarities = [user_similarity(*_table(cut, domain, centred=False)) for domain in (SOURCE, TARGET)]
    first, second = (
        SimilarityFactors(user_table(len(cut.users), width), of_items, of_users, pull=pull, shrink=shrink)
        for of_items, of_users in zip(cut.damped(), similarities, strict=True)
    )
    cold, linking = (torch.from_numpy(np.flatnonzero(chosen)) for chosen in (cut.is_cold, cut.role == LINKING))
    weight, near = _nearest(similarities[SOURCE][cold][:, linking], min(neighbours, len(linking)))
    mapping = PersonalMapping(cold, linking[near], weight, users=len(cut.users), width=width + 1)
    return MappedFactors(TwoDomainFactors((first, second)), mapping)


@rating_model("Fu et al. 2019, RC-DFM (ratings alone)")
def dfm(cut: CrossDomain, *, width: int = 32, shrink: float = 0.05) -> MappedFactors:
    """DFM: user and item vectors are codes of denoising autoencoders over rows and columns of the ratings; an MLP maps
    them.

    Args:
        cut: the split of users.
        width: of the codes.
        shrink: weight of their L2 term.

    Source: Fu et al., Deeply Fusing Reviews and Contents for Cold Start Users in Cross-Domain Recommendation Systems
    (RC-DFM), AAAI 2019: its ratings-only variant.
    Differs: rating tables are dense, which limits it to some ten thousand users and items.
    """
    return _denoised(cut, None, None, width=width, shrink=shrink)


@rating_model("Fu et al. 2019, RC-DFM (without contents)")
def r_dfm(
    cut: CrossDomain,
    texts: Texts,
    *,
    width: int = 32,
    shrink: float = 0.05,
    word_width: int = 64,
    vectors: Tensor | None = None,
) -> MappedFactors:
    """R-DFM: :func:`dfm` with the mean word vector of the user's (the item's) reviews as input of every layer.

    Args:
        cut, width, shrink: as :func:`dfm`.
        texts: documents of the training reviews.
        word_width: of word vectors, if none are given.
        vectors: pretrained word vectors, trained further.

    Source: Fu et al. 2019 (RC-DFM) without contents. Differs: word vectors are random if none are given; documents of a
    training rating include the user's own review of the item, which catn and anr remove.
    """
    words = WordVectors(len(texts.vocabulary), word_width, vectors=vectors)
    return _denoised(cut, texts, words, width=width, shrink=shrink)


def _frozen(side: Side) -> UserVectors:
    """The user vectors of a domain in eval mode, as constants."""

    @torch.no_grad()
    def vectors(user: Tensor) -> Tensor:
        return side.eval().vectors(user)

    return vectors


class DocumentMean(nn.Module):
    """The mean word vector of each document, ``[N] -> [N, D]``."""

    documents: Tensor

    def __init__(self, words: WordVectors, documents: Tensor) -> None:
        super().__init__()
        self.words = words
        self.register_buffer("documents", documents, persistent=False)

    def forward(self, number: Tensor) -> Tensor:
        """The mean word vectors."""
        return self.words.mean(self.documents[number])


def _denoised(
    cut: CrossDomain, texts: Texts | None, words: WordVectors | None, *, width: int, shrink: float
) -> MappedFactors:
    sides = []
    for domain in (SOURCE, TARGET):
        ratings, rated = _table(cut, domain, centred=True)
        side, side_width = (), 0
        if texts is not None and words is not None:
            documents = texts.users[domain].word, texts.items[domain].word
            side, side_width = [DocumentMean(words, torch.from_numpy(d)) for d in documents], words.width
        sides.append(
            DenoisingFactors(
                ratings,
                rated,
                cut.damped()[domain],
                width=width,
                side=side,
                side_width=side_width,
                shrink=shrink,
            )
        )
    return MappedFactors(TwoDomainFactors((sides[0], sides[1])), _mapping(cut, width + 1, mlp=True))


def _nearest(similarity: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Similarity and column of the most similar, ``[N, count]``; random ones, with weight 1, where none is similar."""
    weight, near = similarity.topk(count, 1)
    alone = weight.sum(1) == 0
    key = torch.from_numpy(np.random.default_rng(0).random((int(alone.sum()), similarity.shape[1])))
    near[alone], weight[alone] = key.argsort(1)[:, :count], 1.0
    return weight, near


def _mapping(cut: CrossDomain, width: int, *, mlp: bool) -> Mapping:
    layers: nn.Module = nn.Linear(width, width, bias=False)
    if mlp:
        layers = nn.Sequential(nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, width))
    return Mapping(layers, torch.from_numpy(np.flatnonzero(cut.role == LINKING)))


def _train_validation(rows: Rows) -> tuple[Rows, Rows]:
    """Random 90 % of the ratings for training and 10 % for choosing the factors' epoch; a fixed split."""
    kept = torch.from_numpy(np.random.default_rng(0).random(len(rows)) < 0.1)
    return rows.take(~kept), rows.take(kept)


def _table(cut: CrossDomain, domain: int, *, centred: bool) -> tuple[Tensor, Tensor]:
    """Training ratings of a domain ``[U, I]``, 0 where unrated, and the mask of rated cells (1 or 0)."""
    training, _ = _train_validation(cut.ratings())
    rows, shape = training.take(training.domain == domain), (len(cut.users), cut.num_items[domain])
    ratings, rated = torch.zeros(shape), torch.zeros(shape)
    ratings[rows.user, rows.item] = rows.rating - (cut.mean[domain] if centred else 0.0)
    rated[rows.user, rows.item] = 1.0
    return ratings, rated
