"""CATN from raw reviews to ratings, against a loop over users, words and aspects written from the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphmeta.data.cross_domain import SOURCE, TARGET, CrossDomain, Texts, auxiliary_reviews, read_texts
from graphmeta.datasets.reviews import synthetic_reviews
from graphmeta.published.models.cross_domain import AspectSizes, Catn, catn, predict

LENGTH, ASPECTS, SIZE = 24, 3, 4
Weights = dict[str, np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def convolved(states: list[np.ndarray], weight: np.ndarray, bias: np.ndarray, words: list[int]) -> list[np.ndarray]:
    out = []
    for j, word in enumerate(words):
        total = bias + sum(states[j + o] @ weight[o + 1] for o in (-1, 0, 1) if 0 <= j + o < len(words))
        out.append(np.maximum(total, 0) if word else np.zeros_like(bias))
    return out


class Reading:
    """The aspects of documents with the weights of a model."""

    def __init__(self, model: Catn, cut: CrossDomain, texts: Texts) -> None:
        self.w: Weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
        self.cut, self.number = cut, {word: n for n, word in enumerate(texts.vocabulary.words, 1)}

    def words(self, domain: int, rows: np.ndarray, without: int = -1) -> list[int]:
        """The first words of these reviews of a domain, 0 in those by one user."""
        log, found = self.cut.known[domain], []
        for row in rows:
            own = log.user[row] == without
            found += [0 if own else self.number[word] for word in log.text[row].split() if word in self.number]
        return found[:LENGTH]

    def aspects(self, words: list[int], domain: int, *, auxiliary: bool = False) -> np.ndarray:
        at, w = f"extractors.{domain}.", self.w
        states = convolved(
            [w["words.weight"][n] for n in words], w[at + "convolution.weight"], w[at + "convolution.bias"], words
        )
        if auxiliary:
            weight = w[at + "deeper.layer.weight"].transpose(2, 1, 0)
            states = convolved(states, weight, w[at + "deeper.layer.bias"], words)
        out = np.zeros((ASPECTS, SIZE))
        for m in range(ASPECTS):
            values, logits = [], []
            for state, word in zip(states, words, strict=True):
                both = w[at + "gate.layer.weight"] @ state + w[at + "gate.layer.bias"]
                value, gate = (part[SIZE * m : SIZE * (m + 1)] for part in np.split(both, 2))
                if word:
                    values.append(value * sigmoid(gate))
                    logits.append(values[-1] @ w["query"][domain, m])
            share = np.exp(logits) / np.exp(logits).sum()
            out[m] = sum((s * v for s, v in zip(share, values, strict=True)), np.zeros(SIZE))
        return out

    def user(self, user: int, domain: int) -> np.ndarray:
        """From the user's reviews in a domain and those of like-minded users there."""
        log, w = self.cut.known[domain], self.w
        own = self.aspects(self.words(domain, np.flatnonzero(log.user == user)), domain)
        whom, instead = auxiliary_reviews(self.cut, domain)
        others = self.aspects(self.words(domain, instead[whom == user]), domain, auxiliary=True)
        out = []
        for a, b in zip(own, others, strict=True):
            gate = sigmoid(w["fusion.gate.weight"] @ np.concatenate([a - b, a * b]) + w["fusion.gate.bias"])
            out.append(np.tanh(w["fusion.join.weight"] @ np.concatenate([a, gate * b]) + w["fusion.join.bias"]))
        return np.stack(out)

    def rating(self, user: int, item: int, domain: int) -> float:
        log, w, other = self.cut.known[domain], self.w, 1 - domain
        of_user = self.user(user, other)
        of_item = self.aspects(self.words(domain, np.flatnonzero(log.item == item), without=user), domain)
        source, target = (of_user, of_item) if domain == TARGET else (of_item, of_user)
        total = 0.0
        for p in range(ASPECTS):
            for q in range(ASPECTS):
                related = w["query"][SOURCE, p] @ w["matching.weight"] @ w["query"][TARGET, q]
                related = related if related > 0 else 0.01 * related
                total += related * (source[p] @ w["matching.weight"] @ target[q]) / ASPECTS**2
        place = item + (self.cut.num_items[SOURCE] if domain == TARGET else 0)
        return total + w["of_user"][other, user] + w["bias"][place]


@pytest.mark.usefixtures("float64")
def test_ratings_are_those_of_the_paper_from_raw_reviews() -> None:
    planted = synthetic_reviews(common=30, alone=10, items=10, each=4)
    cut = CrossDomain.split(planted.source, planted.target)
    texts = read_texts(cut, length=LENGTH)
    model = catn(cut, texts, sizes=AspectSizes(width=6, filters=5, aspects=ASPECTS, size=SIZE)).eval()
    for weight in model.parameters():
        weight.data += 0.2 * torch.randn_like(weight)
    model.words.weight.data[0] = 0
    reading = Reading(model, cut, texts)
    cold, both = cut.queries(), cut.flows()
    for rows in (cold.take(slice(0, 3)), both.take(slice(0, 3)), both.take(slice(-3, None))):
        wanted = [
            reading.rating(int(u), int(i), int(d)) for u, i, d in zip(rows.user, rows.item, rows.domain, strict=True)
        ]
        np.testing.assert_allclose(predict(model, rows).numpy(), wanted, atol=1e-12)
    assert set(both.domain.tolist()) == {SOURCE, TARGET}
