"""Systems across domains: no leak, both directions alike, what is synthetic is found."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from graphmeta.data.cross_domain import LINKING, SOURCE, TARGET, VALID, CrossDomain, Rows, Texts, read_texts
from graphmeta.data.reviews import latent_vectors
from graphmeta.datasets.reviews import synthetic_reviews
from graphmeta.errors import InputError
from graphmeta.nn.cross_domain.factors import user_similarity
from graphmeta.plots.aspects import UserAspect, draw_aspects, user_aspects
from graphmeta.published.models.anr import anr
from graphmeta.published.models.cross_domain import (
    DOUBLE_S,
    FULL,
    SHARE,
    SIMPLE,
    VARIANTS,
    AspectSizes,
    CatnVariant,
    Means,
    catn,
    cold_errors,
    fit,
    predict,
)
from graphmeta.published.models.factors import cdlfm, cmf, dfm, emcdr, r_dfm
from graphmeta.training.optimizers import Adam

TINY = {"sizes": AspectSizes(width=6, filters=5, aspects=3, size=4)}
SYSTEMS: dict[str, Callable[[CrossDomain, Texts], nn.Module]] = {
    **{
        f"catn {name}": lambda cut, texts, name=name: catn(cut, texts, variant=VARIANTS[name], **TINY)
        for name in VARIANTS
    },
    "catn by flow": lambda cut, texts: catn(cut, texts, by_flow=True, **TINY),
    "anr": lambda cut, texts: anr(cut, texts, width=6),
    "cmf": lambda cut, texts: cmf(cut, width=4),
    "emcdr": lambda cut, texts: emcdr(cut, width=4),
    "emcdr mlp": lambda cut, texts: emcdr(cut, width=4, mlp=True),
    "cdlfm": lambda cut, texts: cdlfm(cut, width=4, neighbours=5),
    "dfm": lambda cut, texts: dfm(cut, width=4),
    "r_dfm": lambda cut, texts: r_dfm(cut, texts, width=4, word_width=5),
}


@cache
def small() -> CrossDomain:
    synthetic = synthetic_reviews(common=30, alone=10, items=10, each=4)
    return CrossDomain.split(synthetic.source, synthetic.target)


@cache
def told(change: str = "") -> tuple[CrossDomain, Texts]:
    """A cut, after what cold users who are asked in the end did in the target is rewritten, or taken away; and its
    documents.

    Those who choose the epoch are asked while training; what they gave may choose it, and nothing else.
    """
    cut = with_target(small(), change) if change else small()
    return cut, read_texts(cut, length=24)


def with_target(cut: CrossDomain, change: str) -> CrossDomain:
    target = cut.logs[TARGET]
    hidden = cut.is_cold[target.user] & (cut.role[target.user] != VALID)
    if change == "removed":
        return replace(cut, logs=(cut.logs[SOURCE], target.select(~hidden)))
    text = np.where(hidden, "funny funny war", target.text).astype(object)
    return replace(
        cut, logs=(cut.logs[SOURCE], replace(target, text=text, rating=np.where(hidden, 1.0, target.rating)))
    )


def trained(make: Callable[[CrossDomain, Texts], nn.Module], cut: CrossDomain, texts: Texts) -> nn.Module:
    torch.manual_seed(0)
    model = make(cut, texts)
    list(fit(model, cut, epochs=2, batch_size=64, optimizer=Adam(lr=0.01, weight_decay=0.0)))
    return model


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_cold_users_do_in_the_target_changes_neither_weights_nor_predictions(name: str) -> None:
    (cut, texts), make = told(), SYSTEMS[name]
    rows = cut.queries()
    model = trained(make, cut, texts)
    found = predict(model, rows)
    assert found.isfinite().all() and found.std() > 0
    before = torch.cat([w.flatten() for w in make(cut, texts).state_dict().values()])
    assert not torch.equal(before, torch.cat([w.flatten() for w in model.state_dict().values()]))
    for change in ("rewritten", "removed"):
        other = trained(make, *told(change))
        for key, weight in model.state_dict().items():
            assert torch.equal(weight, other.state_dict()[key]), (change, key)
        assert torch.equal(found, predict(other, rows)), change


@pytest.mark.parametrize("name", [*SYSTEMS, "means"])
def test_all_that_a_model_holds_moves_with_it(name: str) -> None:
    """A tensor that is neither weight nor buffer would stay behind on the old device."""
    cut, texts = told()
    model = Means(cut, cut.damped(), cut.user_bias()) if name == "means" else SYSTEMS[name](cut, texts)
    left = [(part, key) for part in model.modules() for key, value in vars(part).items() if torch.is_tensor(value)]
    assert not left
    held = [*model.to("meta").parameters(), *model.buffers()]
    assert {tensor.device.type for tensor in held} == {"meta"}


def swapped(cut: CrossDomain) -> CrossDomain:
    return replace(cut, logs=(cut.logs[1], cut.logs[0]))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variant", [SIMPLE, SHARE, FULL])
def test_swapping_the_domains_with_the_transposed_matching_changes_nothing(variant: CatnVariant) -> None:
    synthetic = synthetic_reviews(common=30, alone=10, items=10, each=4)
    cut = CrossDomain.split(synthetic.source, synthetic.target)
    # Everybody in both is linking, so that both domains are known alike.
    cut = replace(cut, role=np.where(cut.role == 0, 0, LINKING))
    other = swapped(cut)
    texts = read_texts(cut, length=24)
    turned = {name: getattr(texts, name)[::-1] for name in ("users", "items", "auxiliary")}
    model = catn(cut, texts, variant=variant, **TINY).eval()
    twin = catn(other, replace(texts, **turned), variant=variant, **TINY).eval()
    twin.words.load_state_dict(model.words.state_dict())
    twin.matching.weight.data = model.matching.weight.data.T.clone()
    twin.query.data = model.query.data.flip(0)
    for one, two in zip(model.extractors, reversed(twin.extractors), strict=True):
        two.load_state_dict(one.state_dict())
    if model.fusion is not None:
        twin.fusion.load_state_dict(model.fusion.state_dict())
    for rows in (cut.flows(), Rows.of(cut.known[TARGET], TARGET)):
        mirrored = Rows(rows.user, rows.item, 1 - rows.domain, rows.rating)
        torch.testing.assert_close(predict(model, rows), predict(twin, mirrored))
    torch.testing.assert_close(model.correlation, twin.correlation.T)
    plain = Rows(rows.user, rows.item % 10, 1 - rows.domain, rows.rating)
    assert not torch.allclose(predict(model, rows), predict(model, plain))


def test_an_askers_own_review_is_no_part_of_the_items_document() -> None:
    cut = small()
    texts = read_texts(cut, length=400)
    shelf = catn(cut, texts, **TINY).documents
    for domain in (SOURCE, TARGET):
        log = cut.known[domain]
        user, item = int(log.user[5]), int(log.item[5])
        number = torch.tensor([item + domain * cut.num_items[SOURCE]])
        rest = shelf.item(number, torch.tensor([user]))[0]
        others = [t for t, u, i in zip(log.text, log.user, log.item, strict=True) if i == item and u != user]
        expected = [w for text in others for w in texts.vocabulary.encode(text)]
        assert rest[rest > 0].tolist() == expected
        assert (shelf.item(number, torch.tensor([-5])) > 0).sum() == len(expected) + len(
            texts.vocabulary.encode(log.text[5])
        )


def test_users_and_items_without_a_word_get_finite_ratings_and_gradients() -> None:
    cut = small()
    texts = read_texts(cut, length=24)
    for documents in (*texts.users, *texts.items[1:], *texts.auxiliary):
        documents.word[:] = 0
        documents.review[:] = -1
    for name in ("catn full", "catn simple", "anr", "r_dfm"):
        model = SYSTEMS[name](cut, texts)
        rows = cut.flows()
        (model.factors if name == "r_dfm" else model)(rows).sum().backward()
        assert predict(model, cut.queries()).isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_without_a_match_a_rating_is_the_items_bias_and_the_users_of_the_other_domain() -> None:
    cut, texts = told()
    model, rows = catn(cut, texts, **TINY), cut.flows()
    nn.init.zeros_(model.matching.weight)
    assert torch.equal(model.of_user, cut.user_bias()) and torch.equal(model.bias, torch.cat(cut.damped()))
    nn.init.normal_(model.of_user)
    source, target = model.of_user.detach()
    of_source, of_target = model.bias.detach().split(cut.num_items)
    expected = [
        target[user] + of_source[item] if domain == SOURCE else source[user] + of_target[item]
        for user, item, domain in zip(rows.user, rows.item, rows.domain, strict=True)
    ]
    torch.testing.assert_close(predict(model, rows), torch.stack(expected))


UNTOLD = {
    "catn": lambda cut, texts, user_means: catn(cut, texts, variant=CatnVariant(user_means=user_means), **TINY),
    "anr": lambda cut, texts, user_means: anr(cut, texts, width=6, user_means=user_means),
}


@pytest.mark.parametrize("name", UNTOLD)
def test_without_user_means_cold_users_differ_by_the_match_only(name: str) -> None:
    (cut, texts), make = told(), UNTOLD[name]
    rows = cut.queries()
    item = cut.damped()[TARGET][rows.item]
    assert cut.user_bias()[SOURCE][rows.user].std() > 0.01
    for user_means in (True, False):
        model = make(cut, texts, user_means)
        user = cut.user_bias()[SOURCE][rows.user] if user_means else 0
        torch.testing.assert_close(predict(model, rows) - matches(model, rows), item + user)
    list(fit(model, cut, epochs=1, batch_size=64, optimizer=Adam(lr=0.01, weight_decay=0.0)))
    cold = torch.from_numpy(cut.is_cold)
    assert not model.of_user[SOURCE][cold].any() and model.of_user[SOURCE][cut.role == LINKING].all()


@torch.no_grad()
def matches(model: nn.Module, rows: Rows) -> torch.Tensor:
    return model.eval().match(rows.user, rows.item + model.first, TARGET)


def test_the_extractor_is_that_of_the_document_or_of_the_flow() -> None:
    cut = small()
    texts, user = read_texts(cut, length=24), torch.arange(10)
    for by_flow, changed in ((False, TARGET), (True, SOURCE)):
        torch.manual_seed(0)
        model = catn(cut, texts, by_flow=by_flow, **TINY).eval()
        before = model.user(user, SOURCE).aspects  # documents of the target, for items of the source
        for parameter in model.extractors[1 - changed].parameters():
            parameter.data += 1.0
        assert torch.equal(model.user(user, SOURCE).aspects, before)
        for parameter in model.extractors[changed].parameters():
            parameter.data += 1.0
        assert not torch.equal(model.user(user, SOURCE).aspects, before)
    with pytest.raises(InputError, match="variant='half' must be SIMPLE, SHARE"):
        catn(cut, texts, variant="half")


def test_emcdr_on_identical_domains_learns_the_identity() -> None:
    synthetic = synthetic_reviews(common=60, alone=10, items=10, each=4)
    twin = replace(synthetic.source, items=np.array([f"twin {i}" for i in synthetic.source.items], dtype=object))
    cut = CrossDomain.split(synthetic.source, twin)
    torch.manual_seed(0)
    model = emcdr(cut, width=3)
    source, target = model.factors.sides
    nn.init.normal_(source.users.weight)
    target.load_state_dict(source.state_dict())
    list(fit_mapping(model, cut))
    torch.testing.assert_close(model.mapping.layers.weight.data, torch.eye(4), atol=0.02, rtol=0)


def fit_mapping(model, cut: CrossDomain):  # noqa: ANN001, ANN201
    from graphmeta.training.stages import train_stages

    stage = replace(model.stages(cut)[1], valid=dict)
    yield from train_stages([stage], epochs=200, optimizer=Adam(lr=0.05, weight_decay=0.0), patience=200)


@pytest.mark.slow  # 10 seconds
def test_planted_aspects_are_recovered() -> None:
    """What a cold user cares for, known from their words about books alone, decides what they are predicted to give to
    films; and attention goes to words for aspects, not to those that mean nothing."""
    synthetic = synthetic_reviews(common=320, alone=30, items=30, each=6, noise=0.0)
    cut = CrossDomain.split(synthetic.source, synthetic.target, cold=0.15)
    texts = read_texts(cut, length=64)
    torch.manual_seed(0)
    vectors = torch.from_numpy(latent_vectors(texts.words, texts.vocabulary, 12))
    model = catn(cut, texts, variant=DOUBLE_S, vectors=vectors, sizes=AspectSizes(filters=12, aspects=4, size=8))
    # After five epochs the error still falls (.94, .81 and .90 of the means' with three seeds); here .69, .59 and .53.
    list(fit(model, cut, epochs=12, optimizer=Adam(lr=8e-3, final=0.3, weight_decay=0.0), batch_size=64))
    assert cold_errors(model, cut)["mse"] < 0.8 * cold_errors(Means(cut, cut.means()), cut)["mse"]

    cold, items = torch.from_numpy(np.flatnonzero(cut.is_cold)), torch.arange(30)
    every = torch.cartesian_prod(cold, items).T
    rows = Rows(*every, torch.full((len(every[0]),), TARGET), torch.zeros(len(every[0])))
    found = predict(model, rows).view(len(cold), 30).numpy()
    good = synthetic.quality[TARGET][[int(name[4:]) for name in cut.logs[TARGET].items], : synthetic.shared]
    effect = (found - found.mean(0)) @ (good - good.mean(0))  # how much each aspect of films matters to each
    cares = synthetic.preferences[[int(name[1:]) for name in cut.users[cold.numpy()]], : synthetic.shared]
    above = (effect[cares][:, None] > effect[~cares]).mean()
    assert above > 0.75  # chance: 0.5

    meant = frozenset().union(*synthetic.words)
    means = np.array([0.0, *(word in meant for word in texts.vocabulary.words)])
    word = texts.users[SOURCE].word[cold.numpy()]
    weights = model.user(cold, TARGET).weights.detach().numpy()
    attended = (weights * means[word][:, :, None]).sum(1).mean()
    assert attended > means[word].sum() / (word > 0).sum() + 0.1

    user = str(cut.users[cold[0]])
    aspects = user_aspects(model, cut, texts, user)
    assert [a.points for a in aspects] == sorted((a.points for a in aspects), reverse=True)
    own = cut.known[SOURCE].text[cut.users[cut.known[SOURCE].user] == user]
    from_review = texts.users[SOURCE].review[cold[0]]
    for aspect in aspects:
        assert {text for text, _ in aspect.reviews} <= set(own)
        assert all(any(word in text.split() for text in own) for word, _ in aspect.words)
        shares = [float(weights[0, from_review == r, aspect.number].sum()) for r in np.unique(from_review) if r >= 0]
        assert [share for _, share in aspect.reviews] == pytest.approx(sorted(shares, reverse=True)[:2], abs=1e-6)
    parts = model.parts(cold[:1].expand(30), items + cut.num_items[SOURCE], TARGET).detach()
    by_hand = parts.sum(2).std(0)
    assert aspects[0].points == pytest.approx(float(by_hand.max()))
    with pytest.raises(InputError, match="no known review"):
        user_aspects(model, cut, texts, "nobody")


def test_the_picture_shows_aspects_words_and_reviews(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        UserAspect(2, 0.4, [("loud", 0.7), ("drum", 0.2)], [("Loud for $20 or $30.", 0.9)]),
        UserAspect(0, 0.1, [("pick", 1.0)], [("word " * 99, 0.6), ("A pick.", 0.4)]),
    ]
    drawn = []
    monkeypatch.setattr("graphmeta.plots.aspects.save", lambda picture, path: drawn.append(picture))
    draw_aspects(found, Path("unused.png"), title="u0")
    axes = drawn[0].axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.4, 0.1]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["aspect 3", "aspect 1"]
    words, reviews = axes.texts[::2], axes.texts[1::2]
    assert [text.get_text() for text in words] == ["loud  drum", "pick"]
    assert reviews[0].get_text() == "90% in: Loud for $20 or $30." and not reviews[0].get_parse_math()
    long, short = reviews[1].get_text().split("\n")
    assert long.startswith("60% in: word word") and len(long) < 125 and short == "40% in: A pick."


def test_means_are_means() -> None:
    cut = small()
    rows, log = cut.queries(), cut.known[TARGET]
    expected = [log.rating[log.item == item].mean() for item in rows.item.tolist()]
    assert predict(Means(cut, cut.means()), rows).tolist() == pytest.approx(expected)
    assert predict(Means(cut), rows).tolist() == pytest.approx([log.rating.mean()] * len(rows))
    both = [
        float(cut.damped()[TARGET][item] + cut.user_bias()[SOURCE, user])
        for item, user in zip(rows.item.tolist(), rows.user.tolist(), strict=True)
    ]
    assert predict(Means(cut, cut.damped(), cut.user_bias()), rows).tolist() == pytest.approx(both)
    wrong = np.array(expected) - rows.rating.numpy()
    errors = cold_errors(Means(cut, cut.means()), cut)
    assert errors == pytest.approx(
        {"mse": (wrong**2).mean(), "rmse": (wrong**2).mean() ** 0.5, "mae": abs(wrong).mean()}
    )


@pytest.mark.parametrize("make", [cdlfm, dfm], ids=["cdlfm", "dfm"])
def test_validation_ratings_are_not_inputs_of_the_validated_model(make) -> None:
    """Of the known ratings nine tenths are in the rows that autoencoders read, and in who rates alike."""
    cut = small()
    there = [torch.zeros(len(cut.users), count) for count in cut.num_items]
    model = make(cut)
    held = model.stages(cut)[0]
    for domain, known in enumerate(there):
        known[cut.known[domain].user, cut.known[domain].item] = 1
    queries = []
    model.factors.forward = lambda rows: queries.append(rows) or rows.rating
    held.valid()
    (rows,) = queries
    assert len(rows) + held.count == len(cut.ratings()) and 0 < len(rows) < 0.25 * len(cut.ratings())
    for domain, side in enumerate(model.factors.sides):
        own = rows.take(rows.domain == domain)
        there[domain][own.user, own.item] = 0
        if make is dfm:
            assert torch.equal(side.rated, there[domain]) and not side.ratings[there[domain] == 0].any()
        else:
            ratings = torch.zeros_like(there[domain])
            every = cut.ratings().take(cut.ratings().domain == domain)
            ratings[every.user, every.item] = every.rating
            expected = user_similarity(ratings * there[domain], there[domain])
            torch.testing.assert_close(side.similarity, expected / expected.sum(1, keepdim=True).clamp(min=1e-12))


def test_maps_are_learned_on_linking_users_alone() -> None:
    cut = CrossDomain.split(*small().logs, linking=0.5)
    assert set(cut.role[emcdr(cut).mapping.learners]) == {LINKING}
    personal = cdlfm(cut, neighbours=5).mapping
    assert set(cut.role[personal.near.flatten()]) == {LINKING}
    assert personal.learners.tolist() == np.flatnonzero(cut.is_cold).tolist()


@pytest.mark.parametrize("name", ["emcdr", "emcdr mlp", "cdlfm", "dfm", "r_dfm"])
def test_a_mapping_is_learned_from_constant_factors(name: str) -> None:
    (cut, texts), make = told(), SYSTEMS[name]
    model = make(cut, texts)
    stage = model.stages(cut)[1]
    stage.losses(torch.arange(min(3, stage.count))).mean().backward()
    assert all(weight.grad is None for weight in model.factors.parameters())
    assert all(weight.grad is not None and weight.grad.any() for weight in model.mapping.parameters())


def test_a_cold_user_without_similar_users_has_a_learned_map(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = small()
    alone = int(np.flatnonzero(cut.is_cold)[2])

    def without_one(ratings: torch.Tensor, rated: torch.Tensor) -> torch.Tensor:
        found = user_similarity(ratings, rated)
        found[alone], found[:, alone] = 0, 0
        return found

    monkeypatch.setattr("graphmeta.published.models.factors.user_similarity", without_one)
    torch.manual_seed(0)
    model = cdlfm(cut, width=3, neighbours=5)
    source, target = model.factors.sides
    for side in (source, target):
        nn.init.normal_(side.users.weight)
    before = model.mapping.first.detach().clone()
    list(fit_mapping(model, cut))
    assert (model.mapping.first != before).flatten(1).any(1).all()
    place = model.mapping.place[alone]
    near, weight = model.mapping.near[place], model.mapping.weight[place]
    assert len(set(near.tolist())) == 5 and set(cut.role[near]) == {LINKING}
    torch.testing.assert_close(weight, torch.full((5,), 0.2))
    mapped = model.mapping._map(place.expand(5), source.users.weight[near].unsqueeze(1)).squeeze(1)
    assert (mapped - target.users.weight[near]).square().mean() < 0.1  # of a variance of 1


def test_maps_lead_only_to_the_target() -> None:
    cut = small()
    with pytest.raises(InputError, match="pass items of the target"):
        emcdr(cut)(cut.flows())
