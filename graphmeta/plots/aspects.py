"""Aspects that CATN extracts for a cold-start user, with the words and reviews they are read from."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from graphmeta.data.cross_domain import SOURCE, TARGET, CrossDomain, Texts
from graphmeta.data.tables import locate
from graphmeta.errors import InputError
from graphmeta.plots.figures import BLUE, INK, figure, save
from graphmeta.published.models.cross_domain import Catn


@dataclass(frozen=True)
class UserAspect:
    """One aspect of a user.

    ``points`` is its effect on predicted ratings (standard deviation over target items); ``words`` and ``reviews`` are
    those it was read from, with their shares of the attention.
    """

    number: int
    points: float
    words: list[tuple[str, float]]
    reviews: list[tuple[str, float]]


@torch.no_grad()
def user_aspects(
    model: Catn, cut: CrossDomain, texts: Texts, user: str, *, words: int = 6, reviews: int = 2
) -> list[UserAspect]:
    """The aspects of a user's source reviews, ordered by their effect on ratings in the target domain.

    Args:
        words, reviews: maximum number per aspect.

    Raises:
        InputError: an unknown user, or a user without a known review in the source domain.
    """
    number = int(locate(cut.users, np.array([user]))[0])
    if number < 0 or not texts.users[SOURCE].word[number].any():
        raise InputError(f"user {user!r} has no known review in the source domain; name one of those in cut.users")
    model.eval()
    device = model.bias.device
    row, items = torch.tensor([number], device=device), torch.arange(cut.num_items[TARGET], device=device)
    users = row.expand(len(items))
    parts = model.parts(users, items + cut.num_items[SOURCE], TARGET).sum(2)  # [items, aspects of the user]
    weights = model.user(row, TARGET).weights[0].double().cpu().numpy()
    points, document = parts.std(0).tolist(), (texts.users[SOURCE].word[number], texts.users[SOURCE].review[number])
    return [
        UserAspect(
            aspect,
            points[aspect],
            [(str(texts.vocabulary.words[w - 1]), share) for w, share in _most(document[0], weights[:, aspect], words)],
            [(str(texts.reviews[r]), share) for r, share in _most(document[1], weights[:, aspect], reviews)],
        )
        for aspect in np.argsort(points)[::-1].tolist()
    ]


def _most(key: np.ndarray, weight: np.ndarray, count: int) -> list[tuple[int, float]]:
    """The keys with the largest sums of weight, and the sums; padding is excluded."""
    keys, place = np.unique(key, return_inverse=True)
    sums = np.bincount(place, weight)
    chosen = [n for n in np.argsort(-sums, kind="stable")[:count] if sums[n] > 0]
    return [(int(keys[n]), float(sums[n])) for n in chosen]


def draw_aspects(found: Sequence[UserAspect], path: Path, *, title: str = "") -> None:
    """Bar chart of the effect of each aspect, with its words and reviews, as PNG.

    Raises:
        InputError: matplotlib is not installed.
    """
    lines = max((len(aspect.reviews) for aspect in found), default=0)
    picture = figure(9, (0.45 + 0.2 * lines) * len(found) + 1.2)
    axes = picture.subplots()
    place = np.arange(len(found))[::-1]
    axes.barh(place, [aspect.points for aspect in found], color=BLUE, height=0.8 / (1 + lines), align="edge")
    axes.set_yticks(place, [f"aspect {aspect.number + 1}" for aspect in found])
    for at, aspect in zip(place, found, strict=True):
        top_words = "  ".join(word for word, _ in aspect.words)
        below = [f"{share:.0%} in: {textwrap.shorten(text, 110)}" for text, share in aspect.reviews]
        axes.annotate(top_words, (aspect.points, at), (6, 4), textcoords="offset points", color=INK, parse_math=False)
        axes.annotate(
            "\n".join(below),
            (0, at),
            (4, -4),
            textcoords="offset points",
            va="top",
            color=INK,
            fontsize=8,
            linespacing=1.5,
            parse_math=False,  # a review may contain a dollar sign
        )
    axes.set_xlim(0, 2.2 * max((aspect.points for aspect in found), default=1.0) or 1.0)
    axes.set_ylim(-0.8, len(found) - 0.4)
    axes.set_xlabel("effect on predicted ratings (standard deviation over items)")
    axes.set_title(title, loc="left", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    save(picture, path)
