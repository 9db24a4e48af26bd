"""Train a session graph network on a log, choose the epoch on validation sessions, compare with baselines.

    python examples/train_session_model.py

Uses a part of the bundled dataset, to finish in seconds; SESSIONS = 23_862 is all of it.
"""

import torch

import graphmeta as gm
from graphmeta.baselines import Popularity, SessionKNN

SESSIONS, EPOCHS, WIDTH = 2_500, 3, 32

log = gm.datasets.complete_journey()
log = log.before(log.starts[SESSIONS]) if log.num_sessions > SESSIONS else log
split = gm.split_by_time(log, test=0.1, valid=0.1)

torch.manual_seed(0)
system = gm.build("sr_gnn", split.train.items, width=WIDTH)

# `train` is a generator of one report per epoch. At its end the system has the weights of the best epoch.
for report in gm.train(system, split.train, epochs=EPOCHS, optimizer=gm.Adam(lr=5e-3), valid=split.valid, seed=0):
    print(f"epoch {report.epoch + 1}: loss {report.loss:.3f}, validation MRR@20 {report.valid['mrr@20']:.4f}")

# The last item of each test session, ranked among all items. Ties count as the expected value over random order.
queries = gm.last_clicks(split.test)
models = {"popularity": Popularity(split.train), "session kNN": SessionKNN(split.train), "SR-GNN": system}
print(f"{len(queries)} test sessions, {system.num_items:,} candidate items")
for name, model in models.items():
    found = gm.evaluate(model, queries, ks=(5, 20), support=split.train.support)
    print(f"  {name:12} Hit@20 {found.metrics['hit@20']:.4f}   MRR@20 {found.metrics['mrr@20']:.4f}")

# Accuracy by context length (clicks observed).
for clicks, part in gm.evaluate(system, queries, ks=(20,)).slices["context length"].items():
    print(
        f"  {clicks:>4} clicks observed: {part['samples']:>4} sessions, Hit@20 {part.get('hit@20', float('nan')):.4f}"
    )
