"""Reviews, their words and documents; each expected value is written by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graphmeta.data.reviews import Documents, ReviewLog, Vocabulary, Words, latent_vectors, read_vectors
from graphmeta.errors import InputError

FRAME = pd.DataFrame(
    {
        "who": ["a", "b", "a", "c"],
        "what": ["x", "x", "y", "y"],
        "stars": [5, 3, 1, 4],
        "said": ["Loud drum", None, "weak Drum stick", "loud, LOUD!"],
        "when": [30, 10, 20, 10],
    }
)


def log() -> ReviewLog:
    return ReviewLog.read(FRAME, user="who", item="what", rating="stars", text="said", time="when")


def test_reviews_come_in_the_order_of_time_and_an_absent_text_is_empty() -> None:
    found = log()
    assert found.users[found.user].tolist() == ["b", "c", "a", "a"]
    assert found.items[found.item].tolist() == ["x", "y", "y", "x"]
    assert found.rating.tolist() == [3, 4, 1, 5]
    assert found.text.tolist() == ["", "loud, LOUD!", "weak Drum stick", "Loud drum"]


def test_the_reviews_of_some_items_and_a_table_of_more_users() -> None:
    found = log()
    some = found.of_items(found.items == "y")
    assert (some.users[some.user].tolist(), some.items.tolist()) == (["c", "a"], ["y"])
    more = some.with_users(np.array(["a", "b", "c"], dtype=object))
    assert more.user.tolist() == [2, 0]


def test_the_filter_drops_empty_texts_then_rare_items_then_rare_users() -> None:
    kept = log().filter(min_item_reviews=2, min_user_reviews=1)
    assert kept.text.tolist() == ["loud, LOUD!", "weak Drum stick"] and kept.items.tolist() == ["y"]
    with pytest.raises(InputError, match="lower min_item_reviews"):
        log().filter()


def test_the_vocabulary_has_the_words_of_greatest_weight_in_lower_case_without_function_words() -> None:
    texts = ["The Loud drum", "a loud DRUM, drum", "quiet stick", "quiet"]
    found = Vocabulary.fit(texts, max_share=1.0)
    assert found.words.tolist() == ["drum", "loud", "quiet", "stick"]
    assert found.weights == pytest.approx([np.log(5 / 3) + 1] * 3 + [np.log(5 / 2) + 1])
    assert found.encode("LOUD, the unknown drum!") == [2, 1]
    # Rows of the table have length 1: drum has .71 + .89, loud .71 + .45, quiet 1 + .62, stick .79.
    assert Vocabulary.fit(texts, max_share=1.0, size=2).words.tolist() == ["drum", "quiet"]
    assert "quiet" not in Vocabulary.fit([*texts, "quiet"], max_share=0.5).words
    with pytest.raises(InputError, match="no word is left"):
        Vocabulary.fit(["the", "a"])


def test_documents_are_reviews_one_after_another_cut_at_a_length() -> None:
    words = Words(np.array([1, 2, 3, 4, 5, 6]), np.array([0, 2, 2, 5, 6]))  # reviews of 2, 0, 3 and 1 words
    edges = np.array([[2, 0, 2, 0], [0, 1, 2, 3]])
    found = Documents.of(edges, words, count=3, length=4)
    assert found.word.tolist() == [[6, 0, 0, 0], [0, 0, 0, 0], [1, 2, 3, 4]]
    assert found.review.tolist() == [[3, -1, -1, -1], [-1] * 4, [0, 0, 2, 2]]
    assert Documents.of(edges[:, :0], words, count=2, length=3).word.tolist() == [[0] * 3] * 2


@pytest.mark.parametrize("seed", range(3))
def test_documents_equal_a_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    size = random.integers(0, 5, 20)
    words = Words(random.integers(1, 9, size.sum()), np.concatenate([[0], np.cumsum(size)]))
    edges = np.stack([random.integers(0, 6, 30), random.integers(0, 20, 30)])
    found = Documents.of(edges, words, count=6, length=8)
    for owner in range(6):
        own = [review for who, review in edges.T if who == owner]
        said = [int(w) for review in own for w in words.word[words.ptr[review] : words.ptr[review + 1]]][:8]
        assert found.word[owner].tolist() == said + [0] * (8 - len(said))


def test_latent_vectors_are_near_for_words_of_the_same_reviews_and_equal_a_dense_decomposition() -> None:
    texts = ["drum loud", "loud drum drum", "string pick", "pick string", "capo string"]
    vocabulary = Vocabulary.fit(texts, max_share=1.0)
    words = Words.of(np.array(texts), vocabulary)
    found = latent_vectors(words, vocabulary, 2)
    table = np.zeros((len(vocabulary), len(texts)))
    for review, text in enumerate(texts):
        for word in text.split():
            number = vocabulary.words.tolist().index(word)
            table[number, review] += vocabulary.weights[number]
    left, values, _ = np.linalg.svd(table)
    dense = left[:, :2] * values[:2]
    unit = dense / np.linalg.norm(dense, axis=1, keepdims=True)
    assert found[1:] @ found[1:].T == pytest.approx(2 * unit @ unit.T, abs=1e-5)  # alike up to a rotation
    assert not found[0].any()
    drum, loud, pick = (found[vocabulary.encode(word)[0]] for word in ("drum", "loud", "pick"))
    assert drum @ loud > 1.9 and abs(drum @ pick) < 0.1
    with pytest.raises(InputError, match="no 9 latent dimensions"):
        latent_vectors(words, vocabulary, 9)


def test_vectors_are_read_from_word2vecs_and_gloves_text(tmp_path: Path) -> None:
    vocabulary = Vocabulary(np.array(["drum", "loud"]), np.ones(2), str.split)
    path = tmp_path / "vectors.txt"
    for head in ("", "2 3\n"):
        path.write_text(f"{head}loud 1 2 3\nother 0 0 0\n")
        found = read_vectors(path, vocabulary)
        assert found[0].tolist() == [0, 0, 0] and found[2].tolist() == [1, 2, 3]
        assert found[1].any()  # not in the file
    path.write_text("loud 1 2 3\ndrum 1 2\n")
    with pytest.raises(InputError, match="line 2: 2 numbers instead of 3"):
        read_vectors(path, vocabulary)
    path.write_text("nothing 1 2 3\n")
    with pytest.raises(InputError, match="none of the 2 words"):
        read_vectors(path, vocabulary)
