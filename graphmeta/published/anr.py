"""ANR: aspects by attention windows, matched by co-attention."""

from __future__ import annotations

from torch import Tensor, nn

from graphmeta.data.cross_domain import TARGET, CrossDomain, Rows, Texts
from graphmeta.nn.cross_domain.aspects import CoAttention, WindowAspects
from graphmeta.nn.cross_domain.text import WordVectors
from graphmeta.published.cross_domain import ReviewModel


class Anr(ReviewModel):
    """See :func:`anr`."""

    def __init__(
        self, cut: CrossDomain, texts: Texts, words: WordVectors, extractor: WindowAspects, match: CoAttention
    ) -> None:
        super().__init__(cut, texts, words)
        self.extractor, self.importance, self.dropout = extractor, match, nn.Dropout(0.5)

    def match(self, user: Tensor, item: Tensor, domain: int) -> Tensor:
        """The match of the aspects, weighed by what matters."""
        distinct, row = user.unique(return_inverse=True)
        of_user = self.extractor(self.documents.users[1 - domain][distinct], self.words).aspects[row]
        of_item = self.extractor(self.documents.item(item, user), self.words).aspects
        return self.importance(self.dropout(of_user), self.dropout(of_item))

    def penalty(self) -> Tensor:
        """The squares of the users' biases."""
        return 1e-6 * self.of_user.square().sum()

    def learned(self, cut: CrossDomain) -> Rows:
        """Target ratings of linking users."""
        rows = cut.flows()
        return rows.take(rows.domain == TARGET)


def anr(
    cut: CrossDomain,
    texts: Texts,
    *,
    width: int = 300,
    aspects: int = 5,
    size: int = 10,
    hidden: int = 50,
    vectors: Tensor | None = None,
) -> Anr:
    """ANR: aspects by projection and attention, compared with each other as co-attention finds them important.

    ``r̂ = Σ_m p_{u,m} p_{i,m} (a_{u,m} · a_{i,m}) + b_u + b_i``, the user's document from the source domain, the item's
    from the target; one extractor for all.

    Args:
        width: of word vectors, where none are given; aspects: a document; size: of each; hidden: of the co-attention.
        vectors: of the words; they stay as they are. Without, words begin as noise and are trained.

    Source: Chin et al., ANR: Aspect-based Neural Recommender, CIKM 2018.
    Differs: across domains, which ANR is not made for; no training of the extractor beforehand; what the asker wrote
    about the item is no part of its document; ``b_i`` begins with the item's mean and so holds μ.
    """
    words = WordVectors(len(texts.vocabulary), width, vectors=vectors, frozen=vectors is not None)
    extractor = WindowAspects(words.width, aspects=aspects, size=size)
    return Anr(cut, texts, words, extractor, CoAttention(size, hidden))
