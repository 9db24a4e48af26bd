"""Vectors of users and items of one domain, and maps from the vectors of one domain to those of another.

A domain is rated by ``r̂ = μ + b_i + u·v_i + u_0``: a user's own mean is one more coordinate of their vector, so that a
map carries it from domain to domain with the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Ask = Callable[[Tensor], Tensor]  # numbers of users -> their vectors


def rated(vectors: Tensor, items: Tensor, bias: Tensor) -> Tensor:
    """``b_i + u·v_i + u_0``; vectors ``[N, D + 1]``, items ``[N, D]``, bias ``[N]`` -> ``[N]``."""
    return bias + (vectors[:, :-1] * items).sum(1) + vectors[:, -1]


class Factors(nn.Module):
    """Matrix factors of one domain, with an L2 term ``λ (‖u‖² + ‖v‖² + (b_i − m_i)²)`` for each rating.

    Args:
        people: the table of users ``[U, D + 1]``; share it between domains, and it is collective factorisation.
        means: what each item gets on average, ``m [I]``, damped; the biases begin there and are drawn back to it.
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
        """What somebody with this vector gives to the item, ``[N, D + 1], [N] -> [N]``."""
        return rated(vectors, self.items(item), self.bias[item])

    def losses(self, user: Tensor, item: Tensor, rating: Tensor) -> Tensor:
        """The squared errors and what they are regularised by, ``[N]``."""
        vectors, items = self.vectors(user), self.items(item)
        size = vectors.square().sum(1) + items.square().sum(1) + (self.bias[item] - self.means[item]).square()
        return (self.rate(vectors, item) - rating).square() + self.shrink * size


def user_table(count: int, width: int) -> nn.Embedding:
    """A table of users' vectors ``[count, width + 1]``, near 0."""
    table = nn.Embedding(count, width + 1)
    nn.init.normal_(table.weight, std=0.1)
    return table


class SimilarityFactors(Factors):
    """Factors pulled together where users are alike: ``+ α Σ_w s_{u,w} ‖u_u − u_w‖²``, the s of a row sum to 1.

    Args:
        alike: ``s [U, U]``.
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
        """The losses of factors, and the pull."""
        of_user, share, all_users = self.users(user), self.similarity[user], self.users.weight
        # ‖u − w‖² = ‖u‖² − 2 u·w + ‖w‖², summed over w without a table of distances
        own = of_user.square().sum(1) * share.sum(1) - 2 * (of_user * (share @ all_users)).sum(1)
        return super().losses(user, item, rating) + self.pull * (own + share @ all_users.square().sum(1))


class Autoencoder(nn.Module):
    """A row of ratings to a code and back; what is known beside the ratings enters every layer.

    While training, a share of the ratings is hidden from the encoder (masking noise).

    Args:
        inputs: ratings a row; side: width of what is known beside them, 0 for nothing.

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
    """Vectors of a domain that are codes of two autoencoders, one over rows and one over columns of its ratings.

    Loss of a rating: its squared error, the mean squared errors of the two reconstructions over the ratings there are,
    and the size of the codes.

    Args:
        ratings: ``[U, I]`` less the mean, 0 where there are none; there: where there are.
        side: of users and of items, modules from their numbers to what is known beside, ``[N] -> [N, side_width]``.

    Source: Fu et al. 2019 (RC-DFM). Differs: a user's code has a coordinate for their mean, as all vectors here.
    """

    ratings: Tensor
    there: Tensor

    def __init__(
        self,
        ratings: Tensor,
        there: Tensor,
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
        self.register_buffer("there", there, persistent=False)
        self.side = nn.ModuleList(side)
        self.users = Autoencoder(ratings.shape[1], width + 1, side=side_width)
        self.items = Autoencoder(ratings.shape[0], width, side=side_width)
        self.bias = nn.Parameter(means.clone())

    def vectors(self, user: Tensor) -> Tensor:
        """Vectors of users."""
        return self._read(self.users, self.ratings, self.there, user, 0)[0]

    def rate(self, vectors: Tensor, item: Tensor) -> Tensor:
        """What somebody with this vector gives to the item."""
        code, _ = self._read(self.items, self.ratings.T, self.there.T, item, 1)
        return rated(vectors, code, self.bias[item])

    def losses(self, user: Tensor, item: Tensor, rating: Tensor) -> Tensor:
        """Errors of rating and of reconstruction."""
        one, one_wrong = self._read(self.users, self.ratings, self.there, user, 0)
        other, other_wrong = self._read(self.items, self.ratings.T, self.there.T, item, 1)
        wrong = (rated(one, other, self.bias[item]) - rating).square()
        return wrong + one_wrong + other_wrong + self.shrink * (one.square().sum(1) + other.square().sum(1))

    def _read(self, part: Autoencoder, rows: Tensor, there: Tensor, at: Tensor, whose: int) -> tuple[Tensor, Tensor]:
        distinct, place = at.unique(return_inverse=True)  # of items there are few, and their rows are long
        row, known = rows[distinct], there[distinct]
        beside = self.side[whose](distinct) if len(self.side) else row.new_zeros(len(distinct), 0)
        code, back = part(row, beside)
        wrong = ((back - row).square() * known).sum(1) / known.sum(1).clamp(min=1)
        return code[place], wrong[place]


class Mapping(nn.Module):
    """One map for all users, learned on users who have vectors in both domains: ``min ‖f(u^s) − u^t‖²``.

    Args:
        layers: ``[N, D] -> [N, D]``; learners: the users to learn from.

    Source: Man et al. 2017 (EMCDR).
    """

    learners: Tensor

    def __init__(self, layers: nn.Module, learners: Tensor) -> None:
        super().__init__()
        self.layers = layers
        self.register_buffer("learners", learners, persistent=False)

    def forward(self, user: Tensor, source: Ask) -> Tensor:
        """Target vectors of users from their source vectors."""
        return self.layers(source(user))

    def losses(self, user: Tensor, source: Ask, target: Ask) -> Tensor:
        """How far off the map is for these users, ``[N]``."""
        return (self(user, source) - target(user)).square().sum(1)


class PersonalMapping(nn.Module):
    """A map for each new user, learned from the linking users most like them: ``min Σ_n s_n ‖f_u(u_n^s) − u_n^t‖²``.

    ``f_u`` is a layer of tanh and a linear one; all users' maps are stacked and learned at once.

    Args:
        learners: the new users; near: for each, numbers of linking users ``[N, neighbours]``; weight: ``s`` of these.

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

    def forward(self, user: Tensor, source: Ask) -> Tensor:
        """Target vectors of new users from their source vectors."""
        return self._map(self.place[user], source(user).unsqueeze(1)).squeeze(1)

    def losses(self, user: Tensor, source: Ask, target: Ask) -> Tensor:
        """How far off each user's map is for those like them, ``[N]``."""
        at = self.place[user]
        near = self.near[at]
        wrong = self._map(at, source(near.flatten()).view(*near.shape, -1)) - target(near.flatten()).view(
            *near.shape, -1
        )
        return (wrong.square().sum(2) * self.weight[at]).sum(1)

    def _map(self, at: Tensor, x: Tensor) -> Tensor:
        """``[N, n, D] -> [N, n, D]``, the N each by their own map."""
        hidden = (_affine(x, self.first[at])).tanh()  # pyright: ignore[reportIndexIssue]
        return _affine(hidden, self.second[at])  # pyright: ignore[reportIndexIssue]


def _affine(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight[:, :-1] + weight[:, -1:]


def user_similarity(ratings: Tensor, there: Tensor) -> Tensor:
    """How alike users rate: a third each of the cosine of centred ratings, the overlap of what they rated, and how
    often they give which rating.

    ``s = (max(0, cos) + |I_u ∩ I_w| / |I_u ∪ I_w| + Σ_r min(h_u(r), h_w(r))) / 3``, 0 on the diagonal and for users
    without a rating.

    Shapes: ratings, there ``[U, I]`` -> ``[U, U]``.
    Source: Wang et al. 2018 (CDLFM) names three such measures; their forms here are our own.
    """
    count = there.sum(1, keepdim=True)
    centred = (ratings - ratings.sum(1, keepdim=True) / count.clamp(min=1)) * there
    unit = centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-12)
    both = there @ there.T
    style = sum(torch.minimum(share, share.T) for share in _shares(ratings, there, count))
    total = ((unit @ unit.T).clamp(min=0) + both / (count + count.T - both).clamp(min=1) + style) / 3
    return total.fill_diagonal_(0) * ((count > 0) & (count.T > 0))


def _shares(ratings: Tensor, there: Tensor, count: Tensor) -> list[Tensor]:
    """For each rating that occurs, its share of each user's, ``[U, 1]``."""
    return [
        ((ratings == value) * there).sum(1, keepdim=True) / count.clamp(min=1) for value in ratings[there > 0].unique()
    ]
