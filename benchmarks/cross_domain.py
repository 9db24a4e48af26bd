"""Rating prediction for cross-domain cold-start users: a row of results per system and seed.

    python -m benchmarks.cross_domain planted catn item_mean --seed 0 1 2
    GRAPHMETA_DATA=… python -m benchmarks.cross_domain musical_instruments catn --seed 0

The seed determines the cold-start and the linking users and initialises the training. Half of the common users are
cold-start users: 40 % of them are for choosing the epoch, the others are the test. Documents, word vectors and filters
are smaller than CATN's, for two cores. All systems that read texts start from word vectors of the training reviews. The
means are not trained and take no options. catn and anr start at the means of item and user ("user_item_mean");
catn_zero_start and anr_zero_start start at those of items ("damped_mean"), so that only aspects distinguish cold-start
users.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.rows import cost, epoch_row, provenance, write
from graphmeta.data.cross_domain import LINKING, TEST, CrossDomain, Texts, read_texts
from graphmeta.data.reviews import ReviewLog, latent_vectors
from graphmeta.datasets.reviews import musical_instruments, synthetic_reviews
from graphmeta.published.models.anr import anr
from graphmeta.published.models.cross_domain import (
    DOUBLE_S,
    FULL,
    SHARE,
    SIMPLE,
    AspectSizes,
    CatnVariant,
    CrossDomainModel,
    Means,
    catn,
    cold_errors,
    fit,
)
from graphmeta.published.models.factors import cdlfm, cmf, dfm, emcdr, r_dfm
from graphmeta.training.optimizers import Adam


def vectors(texts: Texts, data: Dataset) -> torch.Tensor:
    """Initial word vectors of all systems that read texts, from the training reviews."""
    return torch.from_numpy(latent_vectors(texts.words, texts.vocabulary, data.width))


@dataclass(frozen=True)
class Dataset:
    """The reviews, the length of documents and the sizes of the models."""

    read: Callable[[], tuple[ReviewLog, ReviewLog]]
    length: int
    min_count: int
    width: int
    shrink: float = 0.05  # regularisation of factors
    filters: int = 16
    size: int = 8


def planted() -> tuple[ReviewLog, ReviewLog]:
    """The synthetic reviews."""
    found = synthetic_reviews()
    return found.source, found.target


DATASETS = {
    "planted": Dataset(planted, length=64, min_count=1, width=16, shrink=0.05),
    "musical_instruments": Dataset(musical_instruments, length=80, min_count=5, width=16, shrink=0.5),
}


Factory = Callable[[CrossDomain, Texts, Dataset], CrossDomainModel]


def by_catn(variant: CatnVariant) -> Factory:
    """This variant of CATN."""
    return lambda cut, texts, data: catn(
        cut,
        texts,
        variant=variant,
        vectors=vectors(texts, data),
        sizes=AspectSizes(filters=data.filters, size=data.size),
    )


SYSTEMS: dict[str, Factory] = {
    "global_mean": lambda cut, texts, data: Means(cut),
    "item_mean": lambda cut, texts, data: Means(cut, cut.means()),
    "damped_mean": lambda cut, texts, data: Means(cut, cut.damped()),
    "user_item_mean": lambda cut, texts, data: Means(cut, cut.damped(), cut.user_bias()),
    "cmf": lambda cut, texts, data: cmf(cut, shrink=data.shrink),
    "emcdr": lambda cut, texts, data: emcdr(cut, shrink=data.shrink),
    "emcdr_mlp": lambda cut, texts, data: emcdr(cut, shrink=data.shrink, mlp=True),
    "cdlfm": lambda cut, texts, data: cdlfm(cut, shrink=data.shrink),
    "dfm": lambda cut, texts, data: dfm(cut, shrink=data.shrink),
    "r_dfm": lambda cut, texts, data: r_dfm(cut, texts, shrink=data.shrink, vectors=vectors(texts, data)),
    "anr": lambda cut, texts, data: anr(cut, texts, vectors=vectors(texts, data)),
    "catn_simple": by_catn(SIMPLE),
    "catn_share": by_catn(SHARE),
    "catn_doubleS": by_catn(DOUBLE_S),
    "catn": by_catn(FULL),
    "catn_zero_start": by_catn(CatnVariant(user_means=False)),
    "anr_zero_start": lambda cut, texts, data: anr(cut, texts, vectors=vectors(texts, data), user_means=False),
}


def main() -> None:
    """Run rows from the command line."""
    options = parser().parse_args()
    data, ran = DATASETS[options.dataset], provenance("benchmarks.cross_domain")
    given = f"--linking {options.linking:g} --epochs {options.epochs} --lr {options.lr:g}"
    given += f" --batch-size {options.batch_size} --patience {options.patience}"
    source, target = data.read()
    for seed in options.seed:
        cut = CrossDomain.split(source, target, linking=options.linking, seed=seed)
        texts = read_texts(cut, length=data.length, min_count=data.min_count, seed=seed)
        for system in options.systems:
            row = {"dataset": options.dataset, "protocol": "cross-domain", "system": system, "seed": seed}
            row |= ran | {
                "command": f"python -m benchmarks.cross_domain {options.dataset} {system} {given} --seed {seed}"
            }
            write(row | facts(cut) | one(options, seed, partial(SYSTEMS[system], cut, texts, data), cut))


def parser() -> argparse.ArgumentParser:
    """The command-line options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("systems", nargs="+", choices=SYSTEMS)
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--linking", type=float, default=1.0, help="share of the linking users that is used (η)")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--patience", type=int, default=8)
    return parser


def one(
    options: argparse.Namespace, seed: int, make: Callable[[], CrossDomainModel], cut: CrossDomain
) -> dict[str, Any]:
    """Train and evaluate a system."""
    torch.manual_seed(seed)
    began, model = time.perf_counter(), make()
    optimizer = Adam(lr=options.lr, weight_decay=0.0)
    given = {"epochs": options.epochs, "batch_size": options.batch_size, "patience": options.patience}
    history = [epoch_row(report) for report in fit(model, cut, optimizer=optimizer, seed=seed, **given)]
    return {"metrics": cold_errors(model, cut), "history": history} | cost(time.perf_counter() - began)


def facts(cut: CrossDomain) -> dict[str, Any]:
    """Numbers of test ratings, users, training reviews and items."""
    return {
        "samples": len(cut.queries()),
        "cold": int((cut.role == TEST).sum()),
        "linking": int((cut.role == LINKING).sum()),
        "known": [len(log) for log in cut.known],
        "items": list(cut.num_items),
    }


if __name__ == "__main__":
    main()
