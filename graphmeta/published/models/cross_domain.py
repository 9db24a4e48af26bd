"""Cross-domain rating prediction for cold-start users: CATN and ANR from reviews, the others from matrix factors.

Each function returns a module that predicts ratings, ``model(rows) -> [N]``, and its training stages,
``model.stages(cut)``; :func:`fit` trains any of them. A :class:`~graphmeta.system.System`, in contrast,
scores the items of one table for a session; here users and items belong to different domains, and a user is
represented by text or by a vector mapped from the source domain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from graphmeta.data.cross_domain import SOURCE, TARGET, TEST, VALID, CrossDomain, Rows, Texts
from graphmeta.errors import InputError
from graphmeta.evaluation.metrics import rating_errors
from graphmeta.nn.cross_domain.aspects import AspectExtractor, DocumentAspects, Fusion, Matching
from graphmeta.nn.cross_domain.text import WordVectors
from graphmeta.published.names import rating_model
from graphmeta.training.optimizers import Factory, Optimizer
from graphmeta.training.run import Report
from graphmeta.training.stages import Stage, train_stages


class CrossDomainModel(Protocol):
    """Predicts ratings across domains."""

    def __call__(self, rows: Rows) -> Tensor:
        """The predicted rating of each row, ``[N]``."""
        ...

    def stages(self, cut: CrossDomain) -> list[Stage]:
        """The training stages; empty if there is nothing to train."""
        ...


def fit(
    model: CrossDomainModel,
    cut: CrossDomain,
    *,
    epochs: int = 200,
    optimizer: Optimizer | Factory | None = None,
    batch_size: int = 256,
    patience: int = 4,
    seed: int = 0,
) -> Iterator[Report]:
    """Train a model in its stages, one epoch per report; iterate to the end.

    Args:
        cut: the split of users; its training reviews are trained on, its validation users choose the epochs.
        epochs, optimizer, batch_size, patience, seed: as :func:`~graphmeta.training.stages.train_stages`.

    Raises:
        DivergedError: a loss or, after an epoch, a weight that is not finite.
    """
    return train_stages(
        model.stages(cut), epochs=epochs, optimizer=optimizer, batch_size=batch_size, patience=patience, seed=seed
    )


def cold_errors(model: CrossDomainModel, cut: CrossDomain, role: int = TEST) -> dict[str, float]:
    """MSE, RMSE and MAE on the target-domain ratings of cold-start users, over all these ratings.

    In units of the rating scale (MSE: squared); ``role`` selects the users: TEST, or VALID for validation.
    """
    rows = cut.queries(role)
    return rating_errors(predict(model, rows), rows.rating)


@torch.no_grad()
def predict(model: CrossDomainModel, rows: Rows, *, batch_size: int = 256) -> Tensor:
    """Predicted ratings of these rows in eval mode, ``[N]``."""
    if isinstance(model, nn.Module):
        model.eval()
        rows = rows.to(device_of(model))
    return torch.cat([model(rows.take(at)) for at in torch.arange(len(rows)).split(batch_size)]).cpu()


def device_of(model: nn.Module) -> torch.device:
    """The device of the module's weights (or, without weights, of its buffers)."""
    return next(chain(model.parameters(), model.buffers())).device


class Means(nn.Module):
    """Mean-rating baseline; nothing is trained.

    Args:
        of_items: mean of each item of the two domains, ``cut.means()`` or ``cut.damped()``; the mean of its domain if
            not given.
        of_users: offset of each user, ``cut.user_bias()``, read from the domain that is not predicted.
    """

    items: Tensor
    users: Tensor

    def __init__(
        self, cut: CrossDomain, of_items: tuple[Tensor, Tensor] | None = None, of_users: Tensor | None = None
    ) -> None:
        super().__init__()
        self.first = cut.num_items[0]
        domains = torch.tensor(cut.mean).repeat_interleave(torch.tensor(cut.num_items))
        self.register_buffer("items", domains if of_items is None else torch.cat(of_items))
        self.register_buffer("users", torch.zeros(2, len(cut.users)) if of_users is None else of_users)

    def forward(self, rows: Rows) -> Tensor:
        """The means."""
        return self.items[rows.item + rows.domain * self.first] + self.users[1 - rows.domain, rows.user]

    def stages(self, cut: CrossDomain) -> list[Stage]:
        """No stages."""
        return []


class DocumentTables(nn.Module):
    """Documents as tensors: of users in each domain, auxiliary documents of users, and of items without the user's own
    review.
    """

    users: Tensor
    auxiliary: Tensor
    items: Tensor
    writer: Tensor

    def __init__(self, texts: Texts) -> None:
        super().__init__()
        of_items = np.concatenate([documents.review for documents in texts.items])
        tables = {
            "users": np.stack([documents.word for documents in texts.users]),
            "auxiliary": np.stack([documents.word for documents in texts.auxiliary]),
            "items": np.concatenate([documents.word for documents in texts.items]),
            "writer": np.where(of_items >= 0, texts.writer[of_items], -1),
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.from_numpy(table), persistent=False)

    def item(self, number: Tensor, user: Tensor) -> Tensor:
        """Documents of items without the user's own review, which would leak the rating: ``[N] -> [N, L]``."""
        return self.items[number].masked_fill(self.writer[number] == user.unsqueeze(1), 0)


class ReviewModel(nn.Module):
    """Predicts a rating from documents: biases of user and item, plus a match of aspects.

    Both biases are trained. The item's starts at its damped mean known rating. The user's starts at their damped mean
    deviation in the domain that is not predicted, so that before training the prediction is that of
    :class:`Means` with both, plus the match; or, without ``user_means``, at 0, where it stays for cold-start users,
    whose differences then come from the match only. Items are numbered across both domains, the source's first.
    """

    def __init__(self, cut: CrossDomain, texts: Texts, words: WordVectors, *, user_means: bool = True) -> None:
        super().__init__()
        self.documents, self.words = DocumentTables(texts), words
        self.first, self.bias = cut.num_items[0], nn.Parameter(torch.cat(cut.damped()))
        self.of_user = nn.Parameter(cut.user_bias() if user_means else torch.zeros(2, len(cut.users)))

    def forward(self, rows: Rows) -> Tensor:
        """The predicted ratings, ``[N]``."""
        item = rows.item + rows.domain * self.first
        found = self.of_user[1 - rows.domain, rows.user] + self.bias[item]
        for domain in (SOURCE, TARGET):
            at = (rows.domain == domain).nonzero().flatten()
            if len(at):
                found = found.index_add(0, at, self.match(rows.user[at], item[at], domain))
        return found

    def match(self, user: Tensor, item: Tensor, domain: int) -> Tensor:
        """Contribution of the user's document in the other domain and the item's in this one, ``[N]``."""
        raise NotImplementedError

    def penalty(self) -> Tensor:
        """The L2 term."""
        raise NotImplementedError

    def training_rows(self, cut: CrossDomain) -> Rows:
        """The ratings to train on."""
        return cut.flows()

    def stages(self, cut: CrossDomain) -> list[Stage]:
        """Squared errors on ratings of linking users; the epoch is chosen on cold-start users."""
        training_rows = self.training_rows(cut).to(self.bias.device)

        def losses(at: Tensor) -> Tensor:
            rows = training_rows.take(at)
            return (self(rows) - rows.rating).square() + self.penalty()

        return [Stage(self, len(training_rows), losses, lambda: cold_errors(self, cut, VALID))]


class Catn(ReviewModel):
    """See :func:`catn`."""

    def __init__(
        self,
        cut: CrossDomain,
        texts: Texts,
        words: WordVectors,
        extractors: list[AspectExtractor],
        matching: Matching,
        *,
        user_means: bool = True,
    ) -> None:
        super().__init__(cut, texts, words, user_means=user_means)
        self.extractors, self.matching = nn.ModuleList(extractors), matching
        aspects, size = extractors[0].gate.shape
        self.query = nn.Parameter(torch.randn(2, aspects, size))
        self.fusion = Fusion(size) if extractors[0].deeper is not None else None
        self.by_flow = False

    def read(self, word: Tensor, domain: int, *, flow: int, auxiliary: bool = False) -> DocumentAspects:
        """Aspects of documents of a domain; ``flow`` is the domain of the items that are predicted."""
        extractor = self.extractors[(flow if self.by_flow else domain) % len(self.extractors)]
        return extractor(word, self.words, self.query[domain], auxiliary=auxiliary)

    def user(self, user: Tensor, domain: int) -> DocumentAspects:
        """Aspects of users from their (and auxiliary) reviews in the domain that is not predicted."""
        other = 1 - domain
        own = self.read(self.documents.users[other][user], other, flow=domain)
        if self.fusion is None:
            return own
        others = self.read(self.documents.auxiliary[other][user], other, flow=domain, auxiliary=True)
        return DocumentAspects(self.fusion(own.aspects, others.aspects), own.weights)

    def parts(self, user: Tensor, item: Tensor, domain: int) -> Tensor:
        """Contribution of each pair of aspects (user by item) to the rating, ``[N, M, M]``."""
        distinct, row = user.unique(return_inverse=True)
        of_user = self.user(distinct, domain).aspects[row]
        of_item = self.read(self.documents.item(item, user), domain, flow=domain).aspects
        found = self.matching(of_user, of_item, self.correlation, backwards=domain == SOURCE)
        return found / found[0].numel()

    @property
    def correlation(self) -> Tensor:
        """Correlation of the source's aspects with the target's, ``[M, M]``."""
        return self.matching.correlation(*self.query)

    def match(self, user: Tensor, item: Tensor, domain: int) -> Tensor:
        """The mean over pairs of aspects."""
        return self.parts(user, item, domain).sum((1, 2))

    def penalty(self) -> Tensor:
        """L2 term of all weights except word vectors, biases and aspect vectors."""
        parts = [self.extractors, self.matching, *([self.fusion] if self.fusion is not None else [])]
        return 1e-5 * torch.cat([weight.flatten() for part in parts for weight in part.parameters()]).square().sum()


@dataclass(frozen=True)
class AspectSizes:
    """Sizes of CATN: width of word vectors (if none are given), filters, aspects per document, width of an aspect."""

    width: int = 300
    filters: int = 50
    aspects: int = 5
    size: int = 32


@dataclass(frozen=True)
class CatnVariant:
    """What CATN reads with, and where it starts.

    Args:
        attention: attention over words and the aspect correlation S; if False, uniform word weights and no S.
        per_domain: an extractor for each domain instead of one.
        auxiliary: the user's aspects are fused with those of an auxiliary document by like-minded users.
        user_means: user biases start at the user's damped mean deviation in the other domain; if False, at 0, so that
            only aspects distinguish cold-start users.
    """

    attention: bool = True
    per_domain: bool = True
    auxiliary: bool = True
    user_means: bool = True


VARIANTS = {  # as the paper calls them
    "simple": CatnVariant(attention=False, per_domain=False, auxiliary=False),
    "share": CatnVariant(per_domain=False, auxiliary=False),
    "doubleS": CatnVariant(auxiliary=False),
    "full": CatnVariant(),
}
SIMPLE, SHARE, DOUBLE_S, FULL = VARIANTS.values()


@rating_model(
    "Zhao et al. 2020, CATN",
    equations="1-15",
    variants={
        "catn_simple": ("Zhao et al. 2020, CATN (basic)", "variant=SIMPLE"),
        "catn_share": ("Zhao et al. 2020, CATN (attn)", "variant=SHARE"),
        "catn_double": ("Zhao et al. 2020, CATN (doubleS)", "variant=DOUBLE_S"),
        "catn_zero_start": ("Zhao et al. 2020, CATN (user biases from 0)", "variant=CatnVariant(user_means=False)"),
    },
)
def catn(
    cut: CrossDomain,
    texts: Texts,
    *,
    variant: CatnVariant = FULL,
    sizes: AspectSizes = AspectSizes(),
    vectors: Tensor | None = None,
    by_flow: bool = False,
) -> Catn:
    """CATN: aspects of a user's reviews in one domain matched with aspects of an item's reviews in the other.

    ``r̂ = mean_{p,q} (S ⊙ A_u W A_iᵀ)_{p,q} + b_u + b_i`` with ``S = LeakyReLU(V_s W V_tᵀ)``; for an item of the source
    domain ``Wᵀ``. ``A`` are convolution, gate and attention over a document (:mod:`graphmeta.nn.cross_domain.aspects`);
    in ``FULL`` the user's is fused with that of an auxiliary document by like-minded users. Both flows, source
    documents to target items and the reverse, are trained on linking users.

    Args:
        cut: the split of users.
        texts: its documents, see :func:`~graphmeta.data.cross_domain.read_texts`.
        variant: ``SIMPLE`` (uniform word weights, no S, one extractor), ``SHARE`` (attention and S, one extractor),
            ``DOUBLE_S`` (an extractor per domain), ``FULL`` (also auxiliary documents), or another.
        sizes: of words and aspects.
        vectors: pretrained word vectors, see :func:`~graphmeta.data.reviews.read_vectors`; trained further.
        by_flow: read both documents with the extractor of the item's domain, as the released code does, instead of
            each with that of its own domain.

    Raises:
        InputError: a variant that is not a :class:`CatnVariant`, such as a name.

    Source: Zhao et al., CATN: Cross-Domain Recommendation for Cold-Start Users via Aspect Transfer Network, SIGIR 2020.
    Differs: auxiliary documents exist for test users; padding is masked in the softmax; the user's own review of the
    item is removed from the item's document; one step for both flows, whose rows are mixed in a batch; a user's bias
    starts at their damped mean deviation in the other domain, not at random, and that of a cold-start user is not
    trained (``CatnVariant(user_means=False)`` starts at 0 and keeps the other differences); an item's bias starts at
    its damped mean rating, an unseen item's at the mean of its domain, not at 0; fusion starts at the user's own
    aspects.
    """
    if not isinstance(variant, CatnVariant):
        raise InputError(f"variant={variant!r} must be SIMPLE, SHARE, DOUBLE_S, FULL or another CatnVariant(…)")
    words = WordVectors(len(texts.vocabulary), sizes.width, vectors=vectors)
    extractors = [
        AspectExtractor(
            words.width,
            filters=sizes.filters,
            aspects=sizes.aspects,
            size=sizes.size,
            attend=variant.attention,
            deep=variant.auxiliary,
        )
        for _ in range(2 if variant.per_domain else 1)
    ]
    matching = Matching(sizes.size, related=variant.attention)
    model = Catn(cut, texts, words, extractors, matching, user_means=variant.user_means)
    model.by_flow = by_flow
    return model
