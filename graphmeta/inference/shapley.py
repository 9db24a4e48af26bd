"""Shapley values: what each player adds to the value of a set, on average over the orders in which they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import factorial

import numpy as np

EXACT = 8  # players; with more, orders are sampled
ORDERS = 16  # sampled ones, and each in reverse
Set = frozenset[int]


def shapley(players: int, value: Callable[[Sequence[Set]], np.ndarray], *, seed: int = 0) -> np.ndarray:
    """The share of each player in ``value(all) − value(none)``, ``[players, P]``; their sum is that difference.

    Up to 8 players exactly: ``φ_i = Σ_S |S|! (n − |S| − 1)! / n! (v(S + i) − v(S))``. With more, the mean of
    ``v(S + i) − v(S)`` over 16 random orders and their reverses, S being the players before i: within each order the
    differences telescope, so that their sum is exact and only its division is an estimate.

    Args:
        value: the values of sets of players, ``[sets, P]``; called once.

    Source: Shapley 1953; Castro, Gómez & Tejada 2009, for the sampled orders.

    >>> shapley(2, lambda sets: np.array([[len(s) ** 2.0] for s in sets])).tolist()
    [[2.0], [2.0]]
    """
    if players <= EXACT:
        sets = [frozenset(i for i in range(players) if number >> i & 1) for number in range(2**players)]
        values = dict(zip(sets, np.asarray(value(sets), dtype=np.float64), strict=True))
        shares = np.zeros((players, len(values[frozenset()])))
        for one in sets:
            for player in set(range(players)) - one:
                weight = factorial(len(one)) * factorial(players - len(one) - 1) / factorial(players)
                shares[player] += weight * (values[one | {player}] - values[one])
        return shares
    orders = sampled_orders(players, seed)
    sets = list({frozenset(order[:size]): None for order in orders for size in range(players + 1)})
    values = dict(zip(sets, np.asarray(value(sets), dtype=np.float64), strict=True))
    shares = np.zeros((players, len(values[frozenset()])))
    for order in orders:
        for at, player in enumerate(order):
            shares[player] += values[frozenset(order[: at + 1])] - values[frozenset(order[:at])]
    return shares / len(orders)


def sampled_orders(players: int, seed: int) -> list[list[int]]:
    """Random orders of the players, each followed by its reverse."""
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(players).tolist() for _ in range(ORDERS)]
    return [one for order in orders for one in (order, order[::-1])]
