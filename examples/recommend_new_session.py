"""Recommend to somebody nobody has seen: train, save, load, and ask for a session of your own item ids.

    python examples/recommend_new_session.py

Takes a slice of the bundled dataset to be done in seconds.
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

# What is saved is data only (safetensors and JSON with checksums): loading it runs no code.
with tempfile.TemporaryDirectory() as folder:
    system.save(Path(folder) / "model")
    system = gm.load(Path(folder) / "model")

# A new basket, in the ids of the log. It adapts the weights first, then all items are ranked; nothing is stored.
basket = [log.items.ids[row] for row in (10, 20, 30)]
print("in the basket:", ", ".join(log.items.describe(row) for row in (10, 20, 30)))
for place, offer in enumerate(system.recommend(basket, k=5, exclude_seen=True), start=1):
    print(f"  {place}. {offer.name}   score {offer.score:.3f}")

# An id that the model does not know is an error, unless you say what to do about it.
print("with an unknown id:", [offer.item for offer in system.recommend([*basket, 999], k=3, unknown="ignore")])

# Many at once give the same answers.
both = system.recommend_many([basket, basket[:1]], k=3)
print("after one item only:", [offer.name for offer in both[1]])
