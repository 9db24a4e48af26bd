"""Who is cold, what training knows, graph and documents: nothing of a cold user's target reaches any of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from graphmeta.data.cross_domain import (
    ALONE,
    DROPPED,
    LINKING,
    SOURCE,
    TARGET,
    TEST,
    VALID,
    CrossDomain,
    auxiliary_reviews,
    damped_means,
    read_texts,
    review_graph,
)
from graphmeta.datasets.reviews import synthetic_reviews
from graphmeta.errors import InputError


def small(**options: float) -> CrossDomain:
    synthetic = synthetic_reviews(common=40, alone=15, items=12, each=4)
    return CrossDomain.split(synthetic.source, synthetic.target, **options)


def rewritten(cut: CrossDomain) -> CrossDomain:
    """The same, but for what cold users wrote and gave in the target domain."""
    target = cut.logs[TARGET]
    hidden = cut.is_cold[target.user]
    text = np.where(hidden, "entirely other words about humour", target.text).astype(object)
    return replace(
        cut, logs=(cut.logs[SOURCE], replace(target, text=text, rating=np.where(hidden, 1.0, target.rating)))
    )


def removed(cut: CrossDomain) -> CrossDomain:
    """The same without what cold users did in the target domain."""
    target = cut.logs[TARGET]
    return replace(cut, logs=(cut.logs[SOURCE], target.select(~cut.is_cold[target.user])))


def test_roles_are_shares_of_the_users_in_common() -> None:
    cut = small(linking=0.5)
    assert np.bincount(cut.role, minlength=5).tolist() == [30, 10, 10, 8, 12]
    wrote = [np.bincount(log.user, minlength=len(cut.users)) > 0 for log in cut.logs]
    assert ((wrote[0] & wrote[1]) == (cut.role != ALONE)).all()
    assert not np.array_equal(cut.role, small(linking=0.5, seed=1).role)
    with pytest.raises(InputError, match="too few"):
        small(linking=0.0)


def test_training_reads_neither_the_cold_target_nor_the_left_out_users() -> None:
    cut = small(linking=0.5)
    source, target = cut.known
    assert set(cut.role[source.user]) == {ALONE, LINKING, VALID, TEST}
    assert set(cut.role[target.user]) == {ALONE, LINKING}
    assert len(source) == 4 * (15 + 10 + 20) and len(target) == 4 * (15 + 10)
    queries = cut.queries()
    assert (
        (cut.role[queries.user.numpy()] == TEST).all() and (queries.domain == TARGET).all() and len(queries) == 4 * 12
    )
    flows = cut.flows()
    assert (cut.role[flows.user.numpy()] == LINKING).all() and len(flows) == 4 * 10 * 2
    assert DROPPED not in cut.role[cut.ratings().user.numpy()]


def test_an_unseen_items_mean_is_its_domains() -> None:
    cut = small()
    target = cut.known[TARGET]
    unseen = replace(cut, logs=(cut.logs[SOURCE], cut.logs[TARGET].select(cut.logs[TARGET].item != 3)))
    means = cut.means()[TARGET]
    assert float(means[3]) == pytest.approx(target.rating[target.item == 3].mean())
    assert float(unseen.means()[TARGET][3]) == pytest.approx(unseen.mean[TARGET])


def test_few_ratings_count_less_than_many() -> None:
    """Ratings sampled with a spread of 2 between items and 1 within: what is estimated is near the best there is,
    ``μ + n 4 / (n 4 + 1) (m − μ)``; and means that differ by chance alone are all the same."""
    random = np.random.default_rng(0)
    size = random.integers(1, 5, 3000)
    group = np.repeat(np.arange(3000), size)
    value = 3 + random.normal(0, 2, 3000)[group] + random.normal(0, 1, len(group))
    mean = np.bincount(group, value) / size
    best = value.mean() + size * 4 / (size * 4 + 1) * (mean - value.mean())
    found = damped_means(group, value, 3001)
    assert found[:3000] == pytest.approx(best, abs=0.05) and found[3000] == pytest.approx(value.mean())
    chance = damped_means(group, random.normal(0, 1, len(group)), 3000)
    assert chance.std() < 0.1 * np.sqrt(1 / 2)
    # By hand: μ = 3, s = 4 · 1² / 2 = 2, a / s = ((2 · 2² + 2 · 2²) / 2 − 1) / (4 − 8/4) = 3.5, 7/8 of the way.
    assert damped_means(np.array([0, 0, 1, 1]), np.array([0.0, 2, 4, 6]), 2) == pytest.approx([1.25, 4.75])
    assert damped_means(np.array([0, 1]), np.array([1.0, 5.0]), 2).tolist() == [3, 3]  # nobody knows s
    assert damped_means(np.array([0, 0]), np.array([1.0, 5.0]), 1).tolist() == [3]


def test_user_bias_is_the_mean_deviation_from_item_means_in_a_domain() -> None:
    cut = small()
    source, target = (replace(log, rating=log.rating.copy()) for log in cut.logs)
    who = int(np.flatnonzero(cut.role == LINKING)[0])
    source.rating[source.user == who] += 40
    found = replace(cut, logs=(source, target)).user_bias()
    assert found[SOURCE].argmax() == who and found[SOURCE, who] > 10
    assert torch.equal(found[TARGET], cut.user_bias()[TARGET])


@pytest.mark.parametrize("change", [rewritten, removed])
def test_no_target_review_or_rating_of_a_cold_user_reaches_anything(change) -> None:
    cut = small()
    other = change(cut)
    assert len(other.queries()) != len(cut.queries()) or not torch.equal(other.queries().rating, cut.queries().rating)
    one, two = review_graph(cut), review_graph(other)
    for edge in one.edge_types:
        assert torch.equal(one[edge].edge_index, two[edge].edge_index)
    assert torch.equal(one["review"].rating, two["review"].rating)
    texts, others = read_texts(cut, length=30), read_texts(other, length=30)
    assert texts.vocabulary.words.tolist() == others.vocabulary.words.tolist()
    assert (texts.vocabulary.weights == others.vocabulary.weights).all()
    for kind in ("users", "items", "auxiliary"):
        for one_domain, other_domain in zip(getattr(texts, kind), getattr(others, kind), strict=True):
            assert (one_domain.word == other_domain.word).all() and (one_domain.review == other_domain.review).all()
    assert all(torch.equal(a, b) for a, b in zip(cut.means(), other.means(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(cut.damped(), other.damped(), strict=True))
    assert torch.equal(cut.user_bias(), other.user_bias())
    assert torch.equal(cut.ratings().rating, other.ratings().rating)


def test_a_leak_would_be_seen() -> None:
    """The guard above can fail: were cold users known in the target, documents and vocabulary would differ."""
    cut = small()
    everybody = np.where(cut.is_cold, LINKING, cut.role)
    texts, others = (read_texts(replace(c, role=everybody), length=30) for c in (cut, rewritten(cut)))
    assert (texts.items[TARGET].word != others.items[TARGET].word).any()
    assert len(texts.vocabulary) != len(others.vocabulary)


def test_the_graph_has_the_writer_and_item_of_each_review() -> None:
    cut = small()
    graph = review_graph(cut, aspects=3, correlation=torch.arange(9.0).view(3, 3))
    assert set(graph.node_types) == {
        "user", "item_source", "item_target", "review", "aspect_source", "aspect_target",
    }  # fmt: skip
    first = len(cut.known[SOURCE])
    user, review = graph["user", "writes", "review"].edge_index
    assert review.tolist() == list(range(first + len(cut.known[TARGET])))
    assert user[first:].tolist() == cut.known[TARGET].user.tolist()
    about = graph["review", "about", "item_target"].edge_index
    assert about[0].min() == first and about[1].tolist() == cut.known[TARGET].item.tolist()
    pairs = graph["aspect_source", "goes_with", "aspect_target"]
    assert pairs.weight[(pairs.edge_index[0] == 1) & (pairs.edge_index[1] == 2)].tolist() == [5.0]


def test_documents_are_the_reviews_in_time_with_the_origin_of_each_word() -> None:
    cut = small()
    texts = read_texts(cut, length=40)
    said = np.concatenate([log.text for log in cut.known])
    number = {word: n for n, word in enumerate(texts.vocabulary.words, 1)}
    for domain in (SOURCE, TARGET):
        log = cut.known[domain]
        for owners, column in ((texts.users, log.user), (texts.items, log.item)):
            owner = int(column[-1])
            words = [number[w] for text in log.text[column == owner] for w in text.split() if w in number][:40]
            assert owners[domain].word[owner, : len(words)].tolist() == words
            review = owners[domain].review[owner]
            assert all(texts.vocabulary.words[w - 1] in said[r] for w, r in zip(words, review, strict=False))


def test_an_auxiliary_user_rates_the_same_item_equally_and_is_of_one_domain() -> None:
    cut = small()
    for domain in (SOURCE, TARGET):
        log = cut.known[domain]
        found = auxiliary_reviews(cut, domain)
        assert found.shape[1] > 20
        mine = np.flatnonzero(cut.role[log.user] != ALONE)
        alone = cut.role[log.user] == ALONE
        offers = set(zip(log.item[alone].tolist(), log.rating[alone].tolist(), strict=True))
        at = 0
        for row in mine:
            item, rating = int(log.item[row]), float(log.rating[row])
            wanted = next((r for r in (rating, rating + 1, rating - 1) if (item, r) in offers), None)
            if wanted is None:
                continue
            user, other = found[:, at]
            at += 1
            assert user == log.user[row] and cut.role[log.user[other]] == ALONE
            assert (log.item[other], log.rating[other]) == (item, wanted)
        assert at == found.shape[1]


def test_an_auxiliary_document_has_the_reviews_of_auxiliary_users_in_its_own_domain() -> None:
    cut = small()
    texts, first = read_texts(cut, length=400), len(cut.known[SOURCE])
    number = {word: n for n, word in enumerate(texts.vocabulary.words, 1)}
    for domain, log in enumerate(cut.known):
        instead, documents = auxiliary_reviews(cut, domain), texts.auxiliary[domain]
        for user in range(len(cut.users)):
            chosen = instead[1, instead[0] == user]
            told = [(number[word], row) for row in chosen for word in log.text[row].split() if word in number]
            word, review = documents.word[user], documents.review[user]
            assert [(w, r - domain * first) for w, r in zip(word[word > 0], review[word > 0], strict=True)] == told
        written = documents.review[documents.review >= 0]
        assert len(written) > 100 and ((written >= first) == (domain == TARGET)).all()
        assert (cut.role[texts.writer[written]] == ALONE).all()  # by nobody of both domains, least of all a cold user
