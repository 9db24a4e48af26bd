"""Matrix factors of users and items in one domain, and mappings between the user vectors of two domains.

A rating is ``r̂ = μ + b_i + u·v_i + u_0``: the user bias is one more coordinate of the user vector, so that a mapping
transfers it too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

UserVectors = Callable[[Tensor], Tensor]  # user numbers -> user vectors


def rated(vectors: Tensor, items: Tensor, bias: Tensor) -> Tensor:
    """``b_i + u·v_i + u_0``; vectors ``[N, D + 1]``, items ``[N, D]``, bias ``[N]`` -> ``[N]``."""
    return bias + (vectors[:, :-1] * items).sum(1) + vectors[:, -1]


class Factors(nn.Module):
    """Matrix factors of one domain, with an L2 term ``λ (‖u‖² + ‖v‖² + (b_i − m_i)²)`` for each rating.

    Args:
        users: the user table ``[U, D + 1]``; a table shared by both domains gives collective factorisation.
        means: damped mean rating of each item, ``m [I]``; the biases start there and are regularised towards it.
        shrink: λ.
    """

    means: Tensor

    def __init__(self, users: nn.Embedding, means: Tensor, *, shrink: float = 0.05) -> None:
        super().__init__()
        self.users, self.shrink = users, shrink
        self.register_buffer("means", means, persistent=False)
        self.items = nn.Embedding(len(means), users.embedding_dim - 1)
        nn.init.normal_(self.items.weight, std=0.1)
        self.bias = nn.Parameter(means.clone())

    def vectors(self, user: Tensor) -> Tensor:
        """Vectors of users, ``[N] -> [N, D + 1]``."""
        return self.users(user)

    def rate(self, vectors: Tensor, item: Tensor) -> Tensor:
        """Predicted ratings for these user vectors and items, ``[N, D + 1], [N] -> [N]``."""
        return rated(vectors, self.items(item), self.bias[item])

    def losses(self, user: Tensor, item: Tensor, rating: Tensor) -> Tensor:
        """Squared errors plus the L2 term, ``[N]``."""
        vectors, items = self.vectors(user), self.items(item)
        size = vectors.square().sum(1) + items.square().sum(1) + (self.bias[item] - self.means[item]).square()
        return (self.rate(vectors, item) - rating).square() + self.shrink * size


def user_table(count: int, width: int) -> nn.Embedding:
    """A table of user vectors ``[count, width + 1]``, initialised near 0."""
    table = nn.Embedding(count, width + 1)
    nn.init.normal_(table.weight, std=0.1)
    return table


class SimilarityFactors(Factors):
    """Factors with a similarity regulariser: ``+ α Σ_w s_{u,w} ‖u_u − u_w‖²``, where s sums to 1 over w.

    Args:
        similarity: ``s [U, U]``.
        pull: α.
    """

    similarity: Tensor

    def __init__(
        self, users: nn.Embedding, means: Tensor, similarity: Tensor, *, pull: float = 0.1, shrink: float = 0.05
    ) -> None:
        super().__init__(users, means, shrink=shrink)
        self.pull = pull
        self.register_buffer(
            "similarity", similarity / similarity.sum(1, keepdim=True).clamp(min=1e-12), persistent=False
        )

    def losses(self, user: Tensor, item: Tensor, rating: Tensor) -> Tensor:
        """The losses of the factors plus the regulariser."""
        of_user, share, all_users = self.users(user), self.similarity[user], self.users.weight
        # ‖u − w‖² = ‖u‖² − 2 u·w + ‖w‖², summed over w without a table of distances
        own = of_user.square().sum(1) * share.sum(1) - 2 * (of_user * (share @ all_users)).sum(1)
        return super().losses(user, item, rating) + self.pull * (own + share @ all_users.square().sum(1))


class Autoencoder(nn.Module):
    """Autoencoder of a row of ratings; side information enters every layer.

    In training, a share of the ratings is hidden from the encoder (masking noise).

    Args:
        inputs: ratings per row.
        side: width of the side information, 0 for none.

    Source: RC-DFM's (additional) stacked denoising autoencoder.
    """

    def __init__(self, inputs: int, code: int, *, hidden: int = 256, side: int = 0, noise: float = 0.3) -> None:
        super().__init__()
        sizes = [inputs, hidden, code, hidden, inputs]
        self.layers = nn.ModuleList(nn.Linear(n + side, m) for n, m in zip(sizes[:-1], sizes[1:], strict=True))
        self.noise = nn.Dropout(noise)

    def forward(self, row: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Code and reconstruction: ``[N, inputs], [N, side] -> [N, code], [N, inputs]``."""
        first, second, third, last = self.layers
        code = second(torch.cat([first(torch.cat([self.noise(row), side], 1)).tanh(), side], 1))
        return code, last(torch.cat([third(torch.cat([code, side], 1)).tanh(), side], 1))


class DenoisingFactors(nn.Module):
    """User and item vectors as codes of two autoencoders, over rows and columns of a domain's ratings.

    Loss of a rating: its squared error, the mean squared errors of the two reconstructions over rated cells, and an L2
    term of the codes.

    Args:
        ratings: ``[U, I]`` minus the mean, 0 where unrated.
        rated: mask of rated cells.
        side: side information of users and of items, modules ``[N] -> [N, side_width]``.

    Source: Fu et al. 2019 (RC-DFM). Differs: a user's code has a coordinate for the user bias, as all vectors here.
    """

    ratings: Tensor
    rated: Tensor

    def __init__(
        self,
        ratings: Tensor,
        rated: Tensor,
        means: Tensor,
        *,
        width: int,
        side: Sequence[nn.Module] = (),
        side_width: int = 0,
        shrink: float = 0.05,
    ) -> None:
        super().__init__()
        self.shrink = shrink
        self.register_buffer("ratings", ratings, persistent=False)
        self.register_buffer("rated", rated, persistent=False)
        self.side = nn.ModuleList(side)
        self.users = Autoencoder(ratings.shape[1], width + 1, side=side_width)
        self.items = Autoencoder(ratings.shape[0], width, side=side_width)
        self.bias = nn.Parameter(means.clone())

    def vectors(self, user: Tensor) -> Tensor:
        """User vectors."""
        return self._read(self.users, self.ratings, self.rated, user, 0)[0]

    def rate(self, vectors: Tensor, item: Tensor) -> Tensor:
        """Predicted ratings for these user vectors and items."""
        code, _ = self._read(self.items, self.ratings.T, self.rated.T, item, 1)
        return rated(vectors, code, self.bias[item])

    def losses(self, user: Tensor, item: Tensor, rating: Tensor) -> Tensor:
        """Rating and reconstruction errors plus the L2 term."""
        one, user_error = self._read(self.users, self.ratings, self.rated, user, 0)
        other, item_error = self._read(self.items, self.ratings.T, self.rated.T, item, 1)
        error = (rated(one, other, self.bias[item]) - rating).square()
        return error + user_error + item_error + self.shrink * (one.square().sum(1) + other.square().sum(1))

    def _read(self, part: Autoencoder, rows: Tensor, rated: Tensor, at: Tensor, whose: int) -> tuple[Tensor, Tensor]:
        distinct, place = at.unique(return_inverse=True)  # few distinct items, with long rows
        row, known = rows[distinct], rated[distinct]
        side = self.side[whose](distinct) if len(self.side) else row.new_zeros(len(distinct), 0)
        code, back = part(row, side)
        error = ((back - row).square() * known).sum(1) / known.sum(1).clamp(min=1)
        return code[place], error[place]


class Mapping(nn.Module):
    """One mapping for all users, learned on users with vectors in both domains: ``min ‖f(u^s) − u^t‖²``.

    Args:
        layers: ``[N, D] -> [N, D]``.
        learners: the training users.

    Source: Man et al. 2017 (EMCDR).
    """

    learners: Tensor

    def __init__(self, layers: nn.Module, learners: Tensor) -> None:
        super().__init__()
        self.layers = layers
        self.register_buffer("learners", learners, persistent=False)

    def forward(self, user: Tensor, source: UserVectors) -> Tensor:
        """Target vectors of users from their source vectors."""
        return self.layers(source(user))

    def losses(self, user: Tensor, source: UserVectors, target: UserVectors) -> Tensor:
        """Squared mapping error of these users, ``[N]``."""
        return (self(user, source) - target(user)).square().sum(1)


class PersonalMapping(nn.Module):
    """A mapping per new user, learned from the most similar linking users: ``min Σ_n s_n ‖f_u(u_n^s) − u_n^t‖²``.

    ``f_u`` is a tanh layer and a linear one; all users' mappings are stacked and trained at once.

    Args:
        learners: the new users.
        near: linking users of each ``[N, neighbours]``.
        weight: their ``s``, not all 0.

    Source: Wang et al. 2018 (CDLFM).
    """

    learners: Tensor
    near: Tensor
    weight: Tensor
    place: Tensor

    def __init__(self, learners: Tensor, near: Tensor, weight: Tensor, *, users: int, width: int) -> None:
        super().__init__()
        tables = {
            "learners": learners,
            "near": near,
            "weight": weight / weight.sum(1, keepdim=True).clamp(min=1e-12),
            "place": torch.zeros(users, dtype=torch.int64).scatter(0, learners, torch.arange(len(learners))),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        first, second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        for name, layer in (("first", first), ("second", second)):
            start = torch.cat([layer.weight.data.T, layer.bias.data[None]])
            setattr(self, name, nn.Parameter(start.expand(len(learners), -1, -1).clone()))

    def forward(self, user: Tensor, source: UserVectors) -> Tensor:
        """Target vectors of new users from their source vectors."""
        return self._map(self.place[user], source(user).unsqueeze(1)).squeeze(1)

    def losses(self, user: Tensor, source: UserVectors, target: UserVectors) -> Tensor:
        """Weighted squared error of each user's mapping on similar users, ``[N]``."""
        at = self.place[user]
        near = self.near[at]
        error = self._map(at, source(near.flatten()).view(*near.shape, -1)) - target(near.flatten()).view(
            *near.shape, -1
        )
        return (error.square().sum(2) * self.weight[at]).sum(1)

    def _map(self, at: Tensor, x: Tensor) -> Tensor:
        """``[N, n, D] -> [N, n, D]``, each of the N by its own mapping."""
        hidden = _affine(x, self.get_parameter("first")[at]).tanh()
        return _affine(hidden, self.get_parameter("second")[at])


def _affine(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight[:, :-1] + weight[:, -1:]


def user_similarity(ratings: Tensor, rated: Tensor) -> Tensor:
    """Similarity of users' ratings: the mean of the cosine of centred ratings, the Jaccard overlap of rated items, and
    the overlap of rating histograms.

    ``s = (max(0, cos) + |I_u ∩ I_w| / |I_u ∪ I_w| + Σ_r min(h_u(r), h_w(r))) / 3``, 0 on the diagonal and for users
    without a rating.

    Shapes: ratings, rated ``[U, I]`` -> ``[U, U]``.
    Source: Wang et al. 2018 (CDLFM) names three such measures; their forms here are our own.
    """
    count = rated.sum(1, keepdim=True)
    centred = (ratings - ratings.sum(1, keepdim=True) / count.clamp(min=1)) * rated
    unit = centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-12)
    both = rated @ rated.T
    style = sum(torch.minimum(share, share.T) for share in _shares(ratings, rated, count))
    total = ((unit @ unit.T).clamp(min=0) + both / (count + count.T - both).clamp(min=1) + style) / 3
    return total.fill_diagonal_(0) * ((count > 0) & (count.T > 0))


def _shares(ratings: Tensor, rated: Tensor, count: Tensor) -> list[Tensor]:
    """For each rating value, its share of each user's ratings, ``[U, 1]``."""
    return [
        ((ratings == value) * rated).sum(1, keepdim=True) / count.clamp(min=1) for value in ratings[rated > 0].unique()
    ]
