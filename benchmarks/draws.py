"""How far a figure measured on drawn test prefixes is from that of the whole test.

    GRAPHMETA_DATA=… python -m benchmarks.draws diginetica saved/niser_recipe --size 12000 --draws 8

Scores every test prefix once with a saved model, then prints P@20 and MRR@20 on all of them, on each draw without
replacement (seeds 0, 1, …), and mean and standard deviation over the draws.
"""

from __future__ import annotations

import argparse

import numpy as np

import graphmeta as gm
from graphmeta import datasets
from graphmeta.evaluation.ranking import evaluate

LOADED = {"diginetica": datasets.diginetica, "yoochoose1_64": datasets.yoochoose_1_64}


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=[*LOADED])
    parser.add_argument("model", help="the folder of a saved model")
    parser.add_argument("--size", type=int, default=12_000, help="prefixes per draw")
    parser.add_argument("--draws", type=int, default=8)
    options = parser.parse_args(arguments)
    _, test = LOADED[options.dataset]()
    ranks = evaluate(gm.load(options.model), gm.prefixes(test), ks=(20,)).ranks.numpy()
    print(line(f"all {len(ranks):,}", figures(ranks)))
    found = [figures(drawn(ranks, options.size, seed)) for seed in range(options.draws)]
    for seed, one in enumerate(found):
        print(line(f"draw {seed}", one))
    print(line("mean of the draws", np.mean(found, 0)), line("standard deviation", np.std(found, 0, ddof=1)), sep="\n")


def drawn(ranks: np.ndarray, size: int, seed: int) -> np.ndarray:
    """``size`` of the ranks, without replacement."""
    return ranks[np.random.default_rng(seed).choice(len(ranks), size, replace=False)]


def figures(ranks: np.ndarray) -> np.ndarray:
    """P@20 and MRR@20 in percent, ``[2]``."""
    return 100 * np.array([(ranks <= 20).mean(), np.where(ranks <= 20, 1 / ranks, 0).mean()])


def line(name: str, found: np.ndarray) -> str:
    """One line of the table."""
    return f"{name:20} {found[0]:6.2f} {found[1]:6.2f}"


if __name__ == "__main__":
    main()
