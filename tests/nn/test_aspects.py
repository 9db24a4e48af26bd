"""Texts to aspects to ratings, each part against the formula written word by word."""

import math

import pytest
import torch
from torch import Tensor

from graphmeta.nn.cross_domain.aspects import AspectExtractor, CoAttention, Fusion, Matching, WindowAspects
from graphmeta.nn.cross_domain.text import StateConvolution, WordConvolution, WordVectors, attention, uniform

WORD = torch.tensor([[3, 1, 4, 0, 0], [2, 0, 3, 3, 1], [0, 0, 0, 0, 0]])


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def convolved(vectors: list[Tensor], weight: Tensor, bias: Tensor) -> list[Tensor]:
    """ReLU(Σ_o W_o x_{j+o} + b) at each place, for a window of three."""
    out = []
    for j in range(len(vectors)):
        total = bias.clone()
        for o in (-1, 0, 1):
            if 0 <= j + o < len(vectors):
                total = total + vectors[j + o] @ weight[o + 1]
        out.append(total.clamp(min=0))
    return out


def softmax(values: list[Tensor]) -> list[float]:
    powers = [math.exp(float(v.detach())) for v in values]
    return [p / sum(powers) for p in powers]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("auxiliary", [False, True])
def test_the_extractor_is_convolution_gate_and_attention(auxiliary: bool) -> None:
    torch.manual_seed(0)
    words = WordVectors(4, 6)
    part = AspectExtractor(6, filters=5, aspects=2, size=3, deep=True).eval()
    ask = torch.randn(2, 3)
    found = part(WORD, words, ask, auxiliary=auxiliary)
    weights = found.weights.detach()
    for n, document in enumerate(WORD.tolist()):
        there = [j for j, w in enumerate(document) if w]
        states = convolved([words.weight[w] for w in document], part.convolution.weight, part.convolution.bias)
        states = [s if w else torch.zeros(5) for s, w in zip(states, document, strict=True)]
        if auxiliary:
            layer = part.deeper.layer
            states = convolved(states, layer.weight.permute(2, 1, 0), layer.bias)
        both = [s @ part.gate.layer.weight.T + part.gate.layer.bias for s in states]
        for m in range(2):
            said = [(b[:6] * sigmoid(b[6:]))[3 * m : 3 * m + 3] for b in both]
            share = softmax([said[j] @ ask[m] for j in there]) if there else []
            expected = sum((s * said[j] for s, j in zip(share, there, strict=True)), torch.zeros(3))
            torch.testing.assert_close(found.aspects[n, m], expected)
            assert weights[n, :, m].sum() == pytest.approx(1.0 if there else 0.0)
            assert not weights[n, [j for j in range(5) if j not in there], m].any()


@pytest.mark.usefixtures("float64")
def test_padding_takes_no_part() -> None:
    torch.manual_seed(0)
    words, part = WordVectors(4, 6), AspectExtractor(6, filters=5, aspects=2, size=3, deep=True).eval()
    ask, longer = torch.randn(2, 3), torch.cat([WORD, torch.zeros_like(WORD)], 1)
    for auxiliary in (False, True):
        one, two = (part(word, words, ask, auxiliary=auxiliary).aspects for word in (WORD, longer))
        torch.testing.assert_close(one, two)
    assert words.weight[0].abs().sum() == 0
    part(WORD, words, ask).aspects.sum().backward()
    assert words.weight.grad[0].abs().sum() == 0 and words.weight.grad[1].abs().sum() > 0
    assert uniform(WORD, 2)[:, :, 0].tolist() == [[1 / 3, 1 / 3, 1 / 3, 0, 0], [0.25, 0, 0.25, 0.25, 0.25], [0] * 5]


def test_empty_documents_stay_finite_with_their_gradients() -> None:
    words = WordVectors(4, 6)
    part, fusion = AspectExtractor(6, filters=5, aspects=2, size=3, deep=True), Fusion(3)
    own = part(WORD, words, torch.randn(2, 3)).aspects
    others = part(torch.zeros_like(WORD), words, torch.randn(2, 3), auxiliary=True).aspects
    joined = fusion(own, others)
    assert joined.isfinite().all() and not others.any()
    joined.square().sum().backward()
    weights = [p.grad for module in (words, part, fusion) for p in module.parameters() if p.grad is not None]
    assert all(grad.isfinite().all() for grad in weights)
    assert not attention(torch.full((1, 5, 2), 1e30), WORD[2:]).any()


@pytest.mark.usefixtures("float64")
def test_fusion_is_its_formula() -> None:
    torch.manual_seed(0)
    part, own, others = Fusion(3), torch.randn(1, 2, 3), torch.randn(1, 2, 3)
    torch.testing.assert_close(part(own, others), own.tanh())  # as it begins
    for weight in part.join.parameters():
        torch.nn.init.normal_(weight)
    for m in range(2):
        a, b = own[0, m], others[0, m]
        gate = sigmoid(part.gate.weight @ torch.cat([a - b, a * b]) + part.gate.bias)
        expected = torch.tanh(part.join.weight @ torch.cat([a, gate * b]) + part.join.bias)
        torch.testing.assert_close(part(own, others)[0, m], expected)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("backwards", [False, True])
def test_matching_is_its_formula_both_ways(backwards: bool) -> None:
    torch.manual_seed(0)
    part, (source, target) = Matching(3), torch.randn(2, 2, 3)
    user, item = torch.randn(1, 2, 3), torch.randn(1, 2, 3)
    correlation = part.correlation(source, target).detach()
    for p in range(2):
        for q in range(2):
            s = float((source[p] @ part.weight @ target[q]).detach())
            assert float(correlation[p, q]) == pytest.approx(s if s > 0 else 0.01 * s)
    found = part(user, item, correlation, backwards=backwards)
    for p in range(2):
        for q in range(2):
            if backwards:  # the user is of the target, the item of the source
                expected = correlation[q, p] * (item[0, q] @ part.weight @ user[0, p])
            else:
                expected = correlation[p, q] * (user[0, p] @ part.weight @ item[0, q])
            torch.testing.assert_close(found[0, p, q], expected)
    assert (Matching(3, related=False).correlation(source, target) == 1).all()


@pytest.mark.usefixtures("float64")
def test_a_further_convolution_equals_a_loop() -> None:
    part, states = StateConvolution(4), torch.randn(3, 5, 4) * (WORD > 0).unsqueeze(2)
    found = part(states, WORD)
    for n in range(3):
        loop = convolved(list(states[n]), part.layer.weight.permute(2, 1, 0), part.layer.bias)
        torch.testing.assert_close(found[n], torch.stack(loop) * (WORD[n] > 0).unsqueeze(1))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("window", [1, 3, 5])
def test_the_looked_up_convolution_is_pytorchs(window: int) -> None:
    words, part = WordVectors(4, 6), WordConvolution(6, 5, window=window)
    dense = torch.conv1d(words(WORD).transpose(1, 2), part.weight.permute(2, 1, 0), part.bias, padding=window // 2)
    torch.testing.assert_close(part(WORD, words), dense.transpose(1, 2).relu() * (WORD > 0).unsqueeze(2))


@pytest.mark.usefixtures("float64")
def test_anrs_aspects_are_their_formula() -> None:
    torch.manual_seed(0)
    words, part = WordVectors(4, 6), WindowAspects(6, aspects=2, size=3)
    torch.nn.init.normal_(part.project)
    torch.nn.init.normal_(part.query)
    found = part(WORD, words).aspects
    for n, document in enumerate(WORD.tolist()):
        there = [j for j, w in enumerate(document) if w]
        for m in range(2):
            said = [words.weight[w] @ part.project[:, 3 * m : 3 * m + 3] for w in document]
            scores = []
            for j in there:
                around = [said[k] if 0 <= k < 5 else torch.zeros(3) for k in (j - 1, j, j + 1)]
                scores.append(torch.cat(around) @ part.query[:, m].flatten())
            share = softmax(scores) if there else []
            expected = sum((s * said[j] for s, j in zip(share, there, strict=True)), torch.zeros(3))
            torch.testing.assert_close(found[n, m], expected)


@pytest.mark.usefixtures("float64")
def test_anrs_importance_is_its_formula() -> None:
    torch.manual_seed(0)
    part, user, item = CoAttention(3, 4), torch.randn(2, 3), torch.randn(2, 3)
    for weight in part.parameters():
        torch.nn.init.normal_(weight)
    affinity = [
        [max(0.0, float((part.affinity.weight @ user[p] @ item[q]).detach())) for q in range(2)] for p in range(2)
    ]
    x, y = [part.of_user.weight @ a for a in user], [part.of_item.weight @ a for a in item]
    of_user = [(x[p] + sum(affinity[p][q] * y[q] for q in range(2))).clamp(min=0) for p in range(2)]
    of_item = [(y[q] + sum(affinity[p][q] * x[p] for p in range(2))).clamp(min=0) for q in range(2)]
    p_user = softmax([part.user.weight[0] @ h for h in of_user])
    p_item = softmax([part.item.weight[0] @ h for h in of_item])
    expected = sum(p_user[m] * p_item[m] * float(user[m] @ item[m]) for m in range(2))
    assert float(part(user[None], item[None]).detach()) == pytest.approx(expected)
