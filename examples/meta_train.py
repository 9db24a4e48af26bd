"""Meta-train a recommender: learn shared weights that one or two steps on a session's own clicks adapt to the session.

    python examples/meta_train.py

A system is a recommender and an adaptation. Here the prediction layer of a self-attention recommender is adapted,
with a learned rate for every weight. Uses a part of the bundled dataset, to finish in seconds.
"""

import torch

import graphmeta as gm
from graphmeta.published.models.session import if_san

SESSIONS, EPOCHS, WIDTH = 2_500, 2, 16

log = gm.datasets.complete_journey()
split = gm.split_by_time(log.before(log.starts[SESSIONS]), test=0.1, valid=0.1)
items = split.train.items

torch.manual_seed(0)
recommender = if_san(items, width=WIDTH, layers=1, dropout=0.0).recommender

# The adapted weights (by name), their learning rates, the number of steps, and whether training differentiates through
# the steps (order 2) or treats their gradients as constants (order 1).
adaptation = gm.Adaptation(gm.Scope("head.project"), step=gm.LearnedRates(0.05), steps=2, order=2)
system = gm.System(recommender, items, adaptation=adaptation)
print("adapted parameters:", ", ".join(adaptation.names))

# The same loop as for plain training. A task is a session: its clicks so far are the support, the next the query.
for report in gm.train(system, split.train, epochs=EPOCHS, optimizer=gm.Adam(lr=5e-3), valid=split.valid, seed=0):
    print(f"epoch {report.epoch + 1}: query loss {report.loss:.3f}, validation MRR@20 {report.valid['mrr@20']:.4f}")

# With and without adaptation, on the same sessions with the same shared weights.
queries = gm.last_clicks(split.test)
for name, steps in (("adapted", adaptation.steps), ("not adapted", 0)):
    found = gm.evaluate(system, queries, ks=(20,), steps=steps).metrics
    print(f"  {name:12} Hit@20 {found['hit@20']:.4f}   MRR@20 {found['mrr@20']:.4f}")
