"""Recommend for a new session: train, save, load, and pass the item ids of the session.

    python examples/recommend_new_session.py

Uses a part of the bundled dataset, to finish in seconds.
"""

import tempfile
from pathlib import Path

import torch

import graphmeta as gm

SESSIONS, EPOCHS, WIDTH = 2_500, 2, 16

log = gm.datasets.complete_journey()
log = log.before(log.starts[SESSIONS])

torch.manual_seed(0)
system = gm.build("melu", log.items, width=WIDTH, options={"layers": 1}, lr=0.05)
for report in gm.train(system, log, epochs=EPOCHS, optimizer=gm.Adam(lr=5e-3), seed=0):
    print(f"epoch {report.epoch + 1}: loss {report.loss:.3f}")

# A saved model is data only (safetensors and JSON with checksums): loading it runs no code.
with tempfile.TemporaryDirectory() as folder:
    system.save(Path(folder) / "model")
    system = gm.load(Path(folder) / "model")

# A new basket, in the ids of the log. The weights adapt to it, then all items are ranked; the system is not modified.
basket = [log.items.ids[row] for row in (10, 20, 30)]
print("in the basket:", ", ".join(log.items.describe(row) for row in (10, 20, 30)))
for place, offer in enumerate(system.recommend(basket, k=5, exclude_seen=True), start=1):
    print(f"  {place}. {offer.name}   score {offer.score:.3f}")

# An unknown id is an error, unless `unknown` is "warn" or "ignore".
print("with an unknown id:", [offer.item for offer in system.recommend([*basket, 999], k=3, unknown="ignore")])

# Several sessions at once, with the same results.
both = system.recommend_many([basket, basket[:1]], k=3)
print("after one item only:", [offer.name for offer in both[1]])
