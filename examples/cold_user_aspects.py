"""Aspects that CATN extracts for a user with book reviews and no film reviews, with their words and reviews.

    python examples/cold_user_aspects.py

Trains on synthetic reviews of books and films. Each user prefers a few aspects and mentions only these, so the
extracted aspects can be compared with the true ones. Writes out/aspects.png.
"""

from pathlib import Path

import numpy as np
import torch

import graphmeta as gm
from graphmeta.data.cross_domain import TEST, CrossDomain, read_texts, review_graph
from graphmeta.data.reviews import latent_vectors
from graphmeta.datasets.reviews import synthetic_reviews
from graphmeta.plots.aspects import draw_aspects, user_aspects
from graphmeta.published.models.cross_domain import DOUBLE_S, AspectSizes, Means, catn, cold_errors, fit

EPOCHS, SEED = 5, 0

# Most users review both domains; some of these are cold: their film reviews are hidden.
synthetic = synthetic_reviews(common=320, alone=30, items=30, each=6, noise=0.0, seed=SEED)
cut = CrossDomain.split(synthetic.source, synthetic.target, cold=0.15, seed=SEED)
print(review_graph(cut, aspects=4).metadata()[0])

# Vocabulary, documents and initial word vectors are computed from training reviews only.
texts = read_texts(cut, length=64)
vectors = torch.from_numpy(latent_vectors(texts.words, texts.vocabulary, 12))
torch.manual_seed(SEED)
model = catn(cut, texts, variant=DOUBLE_S, vectors=vectors, sizes=AspectSizes(filters=12, aspects=4, size=8))
optimizer = gm.Adam(lr=8e-3, final=0.3, weight_decay=0.0)
for report in fit(model, cut, epochs=EPOCHS, optimizer=optimizer, batch_size=64, seed=SEED):
    print(f"epoch {report.epoch + 1}: loss {report.loss:.3f}, cold users' MSE {report.valid['mse']:.3f}")
print(
    f"test users: MSE {cold_errors(model, cut)['mse']:.3f}, "
    f"item mean {cold_errors(Means(cut, cut.means()), cut)['mse']:.3f}"
)

# One test user, with the aspects in order of their effect on film ratings.
user = cut.users[np.flatnonzero(cut.role == TEST)[0]]
preferences = synthetic.preferences[int(user[1:])]
preferred = ", ".join(name for name, is_one in zip(synthetic.aspects, preferences, strict=True) if is_one)
print(f"\n{user} prefers {preferred}")
aspects = user_aspects(model, cut, texts, user)
for aspect in aspects:
    print(f"aspect {aspect.number + 1} changes film ratings by {aspect.points:.2f} (standard deviation); attention:")
    print("   ", ", ".join(f"{word} {share:.0%}" for word, share in aspect.words))
    for text, share in aspect.reviews:
        print(f"    {share:4.0%} on the review: {text}")
draw_aspects(aspects, Path("out/aspects.png"), title=f"{user}, who prefers {preferred}")
