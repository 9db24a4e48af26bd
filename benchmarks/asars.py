"""Training settings of the ASARS family on MovieLens-1M, compared on the validation log.

    GRAPHMETA_DATA=… python -m benchmarks.asars ["random batches"]

Hit@20 / MRR@20 in percent for every position of the 337 validation sessions (2,987 samples), for the last one (337
samples, which choose the epoch), and for every position without the items that the user has rated as candidates. One
seed; dropout 0.5 unless given. Measured on 2026-11-21, mostly by an earlier form of this file (popularity was run
again, with equal results):

    popularity                                                    1.94 / 0.30   1.19 / 0.45    6.03 / 1.37
    item_knn                                                      7.93 / 1.14   5.64 / 0.99   15.90 / 3.99
    session_knn                                                   8.17 / 1.24   6.82 / 1.04   15.73 / 4.07
    stan                                                          4.52 / 0.59   5.64 / 0.62    6.60 / 1.22
    gru4rec, Adam 0.003, 10 epochs                               10.55 / 2.33   5.93 / 1.80   16.57 / 3.87
    user_cat as in the paper, 6 epochs                            1.24 / 0.27   1.78 / 0.65    1.67 / 0.34
    time_cat as in the paper, 6 epochs                            1.57 / 0.37   2.08 / 0.74    2.04 / 0.57
    user_cat as in the paper, tables from N(0, 1/d²), 8 epochs    1.14 / 0.22   0.59 / 0.30    2.14 / 0.38
    the same, batches at random                                   2.41 / 0.41   2.97 / 0.39    3.92 / 0.83
    user_cat, all items, Adam 0.003, rows of users, 8 epochs      1.77 / 0.39   2.97 / 1.09    2.58 / 0.53
    the same, batches at random                                   4.99 / 0.87   2.67 / 0.59    9.21 / 2.11
    the same, tables from N(0, 1/d²)                              4.72 / 0.80   2.97 / 0.54    9.24 / 1.92
    time_cat, hinge, Adam 0.003, dropout 0.2, 10 epochs           4.42 / 0.72   3.86 / 0.67    8.67 / 1.88
    time_cat, all items, Adam 0.003, dropout 0.2, 10 epochs       8.64 / 1.83   4.75 / 1.70   14.06 / 3.24
    the same, dropout 0.5                                         8.91 / 1.70   4.45 / 0.90   13.66 / 3.06
    the same, Adam 0.01                                          13.49 / 3.02   8.31 / 1.33   19.52 / 4.84
    the same, Adam 0.005, batches of 16, 5 epochs                12.45 / 2.68   7.42 / 1.20   17.91 / 4.45
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.accuracy import BASELINES, DATASETS
from graphmeta.data.events import EventLog
from graphmeta.evaluation.ranking import evaluate
from graphmeta.nn.features.tables import scaled_normal_
from graphmeta.protocols import Scorer
from graphmeta.published.catalogue import build
from graphmeta.sampling.order import user_parallel
from graphmeta.sampling.samples import Samples, last_clicks, prefixes
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adagrad, Adam, Scheduled


@dataclass(frozen=True)
class Setting:
    """A system and its training; ``by_user``: user-parallel batches; ``small``: tables initialised from N(0, 1/d²)."""

    system: str
    optimizer: Scheduled
    arguments: dict[str, Any] = field(default_factory=dict)
    epochs: int = 10
    batch_size: int = 64
    by_user: bool = False
    small: bool = False

    def trained(self, log: EventLog, valid: Samples) -> Scorer:
        """The system with the weights of its best epoch."""
        torch.manual_seed(0)
        system = build(self.system, log.items, users=log.users, **self.arguments)
        if self.small:
            scaled_normal_(system.recommender)
        if self.by_user:
            system.batches = user_parallel
        for report in train(
            system, log, epochs=self.epochs, optimizer=self.optimizer, batch_size=self.batch_size, valid=valid
        ):
            print("   ", report, flush=True)
        return system


def adam(lr: float) -> Adam:
    """Adam with weight decay on all weights."""
    return Adam(lr=lr, decay_tables=True)


_HINGE, _PAPER, _SLOW, _QUICK = {"loss": "hinge"}, Adagrad(lr=0.2), adam(0.003), adam(0.01)
USER, TIME = "asars_user_cat", "asars_time_cat"
SETTINGS = {
    "gru4rec": Setting("gru4rec", _SLOW),
    "user_cat as in the paper": Setting(USER, _PAPER, _HINGE, epochs=6, by_user=True),
    "time_cat as in the paper": Setting(TIME, _PAPER, _HINGE, epochs=6, by_user=True),
    "user_cat as in the paper, small tables": Setting(USER, _PAPER, _HINGE, epochs=8, by_user=True, small=True),
    "user_cat, hinge, Adagrad, random batches, small tables": Setting(USER, _PAPER, _HINGE, epochs=8, small=True),
    "user_cat, rows of users": Setting(USER, _SLOW, epochs=8, by_user=True),
    "user_cat, random batches": Setting(USER, _SLOW, epochs=8),
    "user_cat, random batches, small tables": Setting(USER, _SLOW, epochs=8, small=True),
    "time_cat, hinge, dropout 0.2": Setting(TIME, _SLOW, {**_HINGE, "dropout": 0.2}),
    "time_cat, dropout 0.2": Setting(TIME, _SLOW, {"dropout": 0.2}),
    "time_cat, dropout 0.5": Setting(TIME, _SLOW),
    "time_cat, Adam 0.01": Setting(TIME, _QUICK),
    "time_cat, Adam 0.005, batches of 16": Setting(TIME, adam(0.005), epochs=5, batch_size=16),
}


class Unrated:
    """A model without the items as candidates that the user clicked in training or in the session so far."""

    def __init__(self, model: Scorer, log: EventLog) -> None:
        assert log.users is not None and log.session_user is not None
        self.model, self.num_items = model, model.num_items
        self.rated = torch.zeros(len(log.users), log.num_items, dtype=torch.bool)
        self.rated[log.session_user[log.session], log.item] = True

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``, -inf for items clicked before."""
        assert samples.user is not None
        item, ptr = samples.flat()
        rated = self.rated[samples.user]
        rated[np.repeat(np.arange(len(samples)), np.diff(ptr)), item] = True
        return self.model.scores(samples).masked_fill(rated, -torch.inf)


def main() -> None:
    """Print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="?", default="", help="settings whose names contain this")
    only = parser.parse_args().only
    log, valid, _ = DATASETS["movielens1m"].parts()
    assert valid is not None
    last, every = last_clicks(valid, max_length=200), prefixes(valid, max_length=200)
    for name in ("popularity", "item_knn", "session_knn", "stan", *SETTINGS):
        if only in name:
            model = SETTINGS[name].trained(log, last) if name in SETTINGS else BASELINES[name](log)
            arms = ((model, every), (model, last), (Unrated(model, log), every))
            found = [evaluate(one, samples, ks=(20,)).metrics for one, samples in arms]
            print(f"{name:60}", *(f"{100 * m['hit@20']:6.2f} / {100 * m['mrr@20']:.2f}" for m in found), flush=True)


if __name__ == "__main__":
    main()
