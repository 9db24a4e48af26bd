"""Train a session graph network on a log, choose the epoch on validation sessions, compare with baselines.

    python examples/train_session_model.py

Takes a slice of the bundled dataset to be done in seconds; SESSIONS = 23_862 is all of it.
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

# Training is a generator: print, plot or stop as you like. At its end the best epoch's weights are in the system.
for report in gm.train(system, split.train, epochs=EPOCHS, optimizer=gm.Adam(lr=5e-3), valid=split.valid, seed=0):
    print(f"epoch {report.epoch + 1}: loss {report.loss:.3f}, validation MRR@20 {report.valid['mrr@20']:.4f}")

# The last item of each test session, ranked among all items. Ties share their mean rank.
asked = gm.last_clicks(split.test)
rivals = {"popularity": Popularity(split.train), "session kNN": SessionKNN(split.train), "SR-GNN": system}
print(f"{len(asked)} test sessions, {system.num_items:,} items to choose from")
for name, model in rivals.items():
    found = gm.evaluate(model, asked, ks=(5, 20), support=split.train.support)
    print(f"  {name:12} Hit@20 {found.metrics['hit@20']:.4f}   MRR@20 {found.metrics['mrr@20']:.4f}")

# Where it is good and where not: by the number of known clicks, by training events of the true item.
for clicks, part in gm.evaluate(system, asked, ks=(20,)).slices["context length"].items():
    print(f"  {clicks:>4} known clicks: {part['samples']:>4} sessions, Hit@20 {part.get('hit@20', float('nan')):.4f}")
