"""ANR: aspects from windowed attention, matched by co-attention."""

from __future__ import annotations

from torch import Tensor, nn

from graphmeta.data.cross_domain import TARGET, CrossDomain, Rows, Texts
from graphmeta.nn.cross_domain.aspects import CoAttention, WindowAspects
from graphmeta.nn.cross_domain.text import WordVectors
from graphmeta.published.models.cross_domain import ReviewModel
from graphmeta.published.names import rating_model


class Anr(ReviewModel):
    """See :func:`anr`."""

    def __init__(
        self,
        cut: CrossDomain,
        texts: Texts,
        words: WordVectors,
        extractor: WindowAspects,
        match: CoAttention,
        *,
        user_means: bool = True,
    ) -> None:
        super().__init__(cut, texts, words, user_means=user_means)
        self.extractor, self.importance, self.dropout = extractor, match, nn.Dropout(0.5)

    def match(self, user: Tensor, item: Tensor, domain: int) -> Tensor:
        """Similarity of the aspects, weighted by their importance."""
        distinct, row = user.unique(return_inverse=True)
        of_user = self.extractor(self.documents.users[1 - domain][distinct], self.words).aspects[row]
        of_item = self.extractor(self.documents.item(item, user), self.words).aspects
        return self.importance(self.dropout(of_user), self.dropout(of_item))

    def penalty(self) -> Tensor:
        """L2 term of the user biases."""
        return 1e-6 * self.of_user.square().sum()

    def training_rows(self, cut: CrossDomain) -> Rows:
        """Target ratings of linking users."""
        rows = cut.flows()
        return rows.take(rows.domain == TARGET)


@rating_model("Chin et al. 2018, ANR")
def anr(
    cut: CrossDomain,
    texts: Texts,
    *,
    width: int = 300,
    aspects: int = 5,
    size: int = 10,
    hidden: int = 50,
    vectors: Tensor | None = None,
    user_means: bool = True,
) -> Anr:
    """ANR: aspects from projection and attention, compared with importance weights from co-attention.

    ``r̂ = Σ_m p_{u,m} p_{i,m} (a_{u,m} · a_{i,m}) + b_u + b_i``, the user's document from the source domain, the item's
    from the target; one shared extractor.

    Args:
        cut: the split of users.
        texts: its documents, see :func:`~graphmeta.data.cross_domain.read_texts`.
        width: of word vectors, if none are given.
        aspects: per document.
        size: of each.
        hidden: of the co-attention.
        vectors: pretrained word vectors, frozen. If not given, word vectors are random and trained.
        user_means: user biases start at the user's damped mean deviation in the other domain; if False, at 0.

    Source: Chin et al., ANR: Aspect-based Neural Recommender, CIKM 2018.
    Differs: applied across domains, which ANR is not designed for; no pretraining of the extractor; the user's own
    review of the item is removed from the item's document; ``b_i`` starts at the item's damped mean and so includes
    μ; ``b_u`` starts at the user's mean deviation, not at random.
    """
    words = WordVectors(len(texts.vocabulary), width, vectors=vectors, frozen=vectors is not None)
    extractor = WindowAspects(words.width, aspects=aspects, size=size)
    return Anr(cut, texts, words, extractor, CoAttention(size, hidden), user_means=user_means)
