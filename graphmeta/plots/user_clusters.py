"""Clusters of users: their sizes, and the user vectors in two dimensions."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch

from graphmeta.nn.conditioning.cluster import Assignment
from graphmeta.plots.figures import BLUE, GREEN, GREY, INK, ORANGE, PINK, SKY, VERMILION, figure, label_axes, save

_COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILION, GREY)


def clusters(found: Assignment, path: Path, *, title: str = "Clusters of users") -> None:
    """Users by cluster with their mean membership, beside the two main components of the user vectors, as PNG.

    The title of the left panel has the effective number of clusters, which is 1 if they have collapsed.

    Args:
        found: memberships, see :meth:`~graphmeta.published.models.few_shot.ClusteredSystem.clusters`.

    Raises:
        InputError: matplotlib is not installed.
    """
    picture = figure(10, 4)
    left, right = picture.subplots(1, 2)
    users, number = found.membership.shape
    for k, (size, share, colour) in enumerate(zip(found.sizes, found.shares, itertools.cycle(_COLOURS))):
        left.bar(k + 1, 100 * size / users, 0.7, color=colour)
        left.plot(k + 1, 100 * share, "D", color="white", mec=INK, label=None if k else "mean membership")
        left.annotate(f"{size:,}", (k + 1, 100 * size / users), (0, 8), textcoords="offset points", ha="center")
    label_axes(
        left, f"{title} (effective number {found.distinct:.2f} of {number})", ("cluster", "% of users"), (1, number)
    )
    left.set_xlim(0.3, number + 0.7)
    left.set_ylim(0, 112)
    place, explained = principal_components(found.vectors)
    for k, colour in zip(range(number), itertools.cycle(_COLOURS)):
        mine = (found.cluster == k).cpu()
        right.plot(*place[mine].T.numpy(), ".", ms=3, alpha=0.5, color=colour)
    right.set_title("User vectors by principal component", loc="left", color=INK, fontweight="bold")
    right.set_xlabel(f"first ({explained[0]:.0%} of the variance)")
    right.set_ylabel(f"second ({explained[1]:.0%})")
    right.spines[["top", "right"]].set_visible(False)
    save(picture, path)


def principal_components(vectors: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
    """The first two principal components ``[S, 2]``, and their shares of the variance.

    Directions without variance are zero. Each component's largest entry, by absolute value, is positive.
    """
    centred = vectors.detach().double().cpu()
    centred = centred - centred.mean(0)
    values, vectors_of = torch.linalg.eigh(centred.t() @ centred)
    values, axes = values.flip(0).clamp(min=0)[:2], vectors_of.flip(1)[:, :2]
    if len(values) < 2:
        values, axes = torch.cat([values, values.new_zeros(1)]), torch.cat([axes, torch.zeros_like(axes)], 1)
    place = centred @ axes
    largest = place.gather(0, place.abs().argmax(0, keepdim=True))
    total = centred.square().sum().clamp(min=torch.finfo(centred.dtype).tiny)
    return place * torch.where(largest < 0, -1.0, 1.0), (values / total).tolist()
