"""Amazon's review files: small ones of their form, invented here; and the reviews whose aspects are known."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from graphmeta.data.reviews import ReviewLog
from graphmeta.datasets.reviews import amazon_reviews, musical_instruments, split_items_by_text, synthetic_reviews
from graphmeta.errors import InputError

LINES = [
    {"reviewerID": "A2", "asin": "0007", "overall": 4.0, "reviewText": "Fine \"capo\".", "unixReviewTime": 1400000000},
    {"reviewerID": "A1", "asin": "B01", "overall": 5.0, "reviewText": "", "unixReviewTime": 1300000000, "helpful": [0]},
]  # fmt: skip


def test_amazons_form_is_read_plain_and_packed(tmp_path: Path) -> None:
    text = "".join(json.dumps(line) + "\n" for line in LINES) + "\n"  # an empty line says nothing
    (tmp_path / "plain.json").write_text(text)
    (tmp_path / "packed.json.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("plain.json", "packed.json.gz"):
        log = amazon_reviews(tmp_path / name)
        assert log.users.tolist() == ["A1", "A2"] and log.items.tolist() == ["B01", "0007"]  # in the order of time
        assert log.rating.tolist() == [5, 4] and log.time.tolist() == [1.3e9, 1.4e9]
        assert log.text.tolist() == ["", 'Fine "capo".']


def test_another_file_is_an_error_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "reviews.json"
    with pytest.raises(InputError, match="no such file; get it from"):
        amazon_reviews(path)
    for wrong in ("user,item", "{'asin': 'B'}", "[1, 2]", "5", json.dumps(LINES[0])[:-9]):
        path.write_text(f"{json.dumps(LINES[0])}\n{wrong}\n")
        with pytest.raises(InputError, match="json, line 2: not a JSON object; repair or remove the line"):
            amazon_reviews(path)
    packed = tmp_path / "reviews.json.gz"
    for bad in (b"no gzip", gzip.compress(b"{}\n" * 99)[:-9]):
        packed.write_bytes(bad)
        with pytest.raises(InputError, match="cannot be read .* get it from"):
            amazon_reviews(packed)


@pytest.mark.parametrize(("name", "said"), [("overall", "rating"), ("asin", "item"), ("unixReviewTime", "time")])
def test_a_review_without_what_it_needs_is_named_by_its_row(tmp_path: Path, name: str, said: str) -> None:
    path = tmp_path / "reviews.json"
    lines = [*LINES, {key: value for key, value in LINES[0].items() if key != name}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=f"column '{name}', row 3: the {said} is missing; fill it in or drop the row"):
        amazon_reviews(path)
    path.write_text(json.dumps({"asin": "B"}) + "\n")
    with pytest.raises(InputError, match="no column .reviewerID."):
        amazon_reviews(path)


def test_items_fall_into_halves_by_their_words() -> None:
    random = np.random.default_rng(0)
    words = (["string", "pick", "capo", "strap"], ["cable", "amp", "pedal", "volt"])
    group = np.arange(30) % 5 < 2
    text = np.array([" ".join(random.choice(words[int(g)], 4)) for g in group], dtype=object)
    rows = np.arange(30)
    log = ReviewLog(rows, rows, np.ones(30), rows.astype(float), text, rows, rows)
    assert split_items_by_text(log).tolist() == group.tolist()


def test_synthetic_ratings_and_words_follow_the_formula() -> None:
    synthetic = synthetic_reviews(common=30, alone=10, items=20, each=5, noise=0.0)
    for domain, log in enumerate((synthetic.source, synthetic.target)):
        assert len(log) == 40 * 5
        other = range(synthetic.shared + 2 * (1 - domain), synthetic.shared + 2 * (1 - domain) + 2)
        for row in range(len(log)):
            user, item = int(log.users[log.user[row]][1:]), int(log.items[log.item[row]][4:])
            cared = [a for a in np.flatnonzero(synthetic.preferences[user]) if a not in other]
            good = synthetic.quality[domain][item, cared]
            assert log.rating[row] == np.rint(3 + 2 * good.mean()) and len(cared) == 3
            said = set(log.text[row].split())
            assert [a for a, words in enumerate(synthetic.words) if words & said] == cared


@pytest.mark.skipif(not os.environ.get("GRAPHMETA_DATA"), reason="GRAPHMETA_DATA names no folder with public logs")
def test_musical_instruments_are_two_domains_of_many_users_in_common() -> None:
    source, target = musical_instruments()
    assert len(source) + len(target) == 10_261 and len(source.items) + len(target.items) == 900
    assert not set(source.items) & set(target.items)
    assert len(set(source.users) & set(target.users)) > 700
    assert np.mean(["string" in text for text in source.text]) > np.mean(["string" in text for text in target.text])
