"""Train a session graph network on a log, choose the epoch on validation sessions, compare with baselines.

    python examples/train_session_model.py

Takes a slice of the bundled dataset to be done in seconds; SESSIONS = 23_862 is all of it.
"""

import torch

from graphmeta.baselines import Popularity, SessionKNN
from graphmeta.data.splits import split_by_time
from graphmeta.datasets.session_logs import complete_journey
from graphmeta.evaluation.ranking import evaluate
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import last_clicks
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam

SESSIONS, EPOCHS, WIDTH = 2_500, 3, 32

log = complete_journey()
log = log.before(log.starts[SESSIONS]) if log.num_sessions > SESSIONS else log
split = split_by_time(log, test=0.1, valid=0.1)

torch.manual_seed(0)
system = build("sr_gnn", split.train.items, width=WIDTH)

# Training is a generator: print, plot or stop as you like. At its end the best epoch's weights are in the system.
for report in train(system, split.train, epochs=EPOCHS, optimizer=Adam(lr=5e-3), valid=split.valid, seed=0):
    print(f"epoch {report.epoch + 1}: loss {report.loss:.3f}, validation MRR@20 {report.valid['mrr@20']:.4f}")

# The last item of each test session, ranked among all items. Ties share their mean rank.
asked = last_clicks(split.test)
rivals = {"popularity": Popularity(split.train), "session kNN": SessionKNN(split.train), "SR-GNN": system}
print(f"{len(asked)} test sessions, {system.num_items:,} items to choose from")
for name, model in rivals.items():
    found = evaluate(model, asked, ks=(5, 20), support=split.train.support)
    print(f"  {name:12} Hit@20 {found.metrics['hit@20']:.4f}   MRR@20 {found.metrics['mrr@20']:.4f}")

# Where it is good and where not: by the number of known clicks, by training events of the true item.
for clicks, part in evaluate(system, asked, ks=(20,)).slices["known clicks"].items():
    print(f"  {clicks:>4} known clicks: {part['samples']:>4} sessions, Hit@20 {part.get('hit@20', float('nan')):.4f}")
