"""Rating logs: small files of the same form, invented here; on the real ones, where present, the counts."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from graphmeta.datasets.ratings import melu_movielens, metahin
from graphmeta.errors import InputError
from graphmeta.evaluation.cold_start import ColdStart

real = pytest.mark.skipif(
    not os.environ.get("GRAPHMETA_DATA"), reason="GRAPHMETA_DATA names no folder with public logs"
)

MOVIES = [
    "1::Ape::1995::G::1 Jan 1995::Drama, War::A B::W::X Y, Z::plot::http",
    "2::Bee::1999::R::1 Jan 1999::N/A::C::W::Z::plot::http",
    "3::Cat::1996::N/A::1 Jan 1996::War::A B, C::W::N/A::plot::http",
]
PEOPLE = ["7::F::1::10::48067", "8::M::25::0::70072", "9::M::25::0::70072"]
STATES = {
    "warm_state": {"7": ["1", "3"], "8": ["3"]},
    "user_cold_state": {"9": ["1"]},
    "item_cold_state": {"8": ["2"]},
    "user_and_item_cold_state": {"9": ["2"]},
}


def write(folder: Path, below: str, states: dict[str, dict[str, list[str]]]) -> Path:
    (folder / "ml-1m").mkdir()
    (folder / "ml-1m/movies_extrainfos.dat").write_text("".join(f"{row}\r\n" for row in MOVIES))
    (folder / "ml-1m/users.dat").write_text("".join(f"{row}\n" for row in PEOPLE))
    (folder / below).mkdir(parents=True)
    for name, rated in states.items():
        (folder / below / f"{name}.json").write_text(json.dumps(rated))
        stars = {user: [int(user) - 5] * len(items) for user, items in rated.items()}
        (folder / below / f"{name}_y.json").write_text(json.dumps(stars))
    return folder


def rated(cut: ColdStart, events: np.ndarray) -> set[tuple[int, int, float]]:
    log = cut.log
    rows = np.flatnonzero(events)
    return {(int(log.sessions[log.session[n]]), int(log.items.ids[log.item[n]]), float(log.value[n])) for n in rows}


def test_melus_states_become_one_log_and_two_rules(tmp_path: Path) -> None:
    cut = melu_movielens(write(tmp_path, "melu_ml1m", STATES))
    log = cut.log
    assert rated(cut, np.ones(log.num_events, bool)) == {
        (7, 1, 2.0), (7, 3, 2.0), (8, 3, 3.0), (9, 1, 4.0), (8, 2, 3.0), (9, 2, 4.0)
    }  # fmt: skip
    assert rated(cut, cut.seen) == {(7, 1, 2.0), (7, 3, 2.0), (8, 3, 3.0)}
    assert log.sessions[cut.users.rows].tolist() == [9] and log.items.ids[cut.items.rows].tolist() == [2]
    assert log.users.ids.tolist() == log.sessions.tolist()
    directors = log.items.several["director"]
    row = log.items.ids.tolist().index(3)
    own = directors.codes[directors.ptr[row] : directors.ptr[row + 1]]
    assert directors.values[own].tolist() == ["A B", "C"]
    assert set(log.items.several["genre"].values) == {"", "Drama", "War"} and list(log.items.attributes) == ["rate"]


def test_the_reconstructed_warm_state_is_used(tmp_path: Path) -> None:
    folder = write(tmp_path, "melu_ml1m", STATES)
    (folder / "melu_ml1m/warm_state.json").rename(folder / "melu_ml1m/warm_state.reconstructed.json")
    assert melu_movielens(folder).training.num_events == 3
    (folder / "melu_ml1m/warm_state.reconstructed.json").unlink()
    with pytest.raises(InputError, match="no such file; get it from"):
        melu_movielens(folder)


def test_items_and_ratings_must_be_as_many(tmp_path: Path) -> None:
    folder = write(tmp_path, "melu_ml1m", STATES)
    (folder / "melu_ml1m/warm_state_y.json").write_text(json.dumps({"7": [1], "8": [1]}))
    with pytest.raises(InputError, match="user 7 has a different number of ratings"):
        melu_movielens(folder)


def test_metahins_warm_up_is_held_out(tmp_path: Path) -> None:
    states = {
        "meta_training": {"7": ["1", "3", "1"], "8": ["3"]},
        "warm_up": {"8": ["1"]},
        "user_cold_testing": {"9": ["1"]},
        "item_cold_testing": {"8": ["2"]},
        "user_and_item_cold_testing": {"9": ["2"]},
    }
    cut = metahin("movielens", write(tmp_path, "metahin/movielens", states))
    assert rated(cut, cut.held_out) == {(8, 1, 3.0)}
    assert rated(cut, cut.seen) == {(7, 1, 2.0), (7, 3, 2.0), (8, 3, 3.0)}  # a rating written twice is one


@real
@pytest.mark.slow
def test_counts_are_the_published_ones() -> None:
    sizes = {one.name: len(one.tasks) for one in melu_movielens(share=0).scenarios()}
    assert sizes == {"user cold": 668, "item cold": 2863, "both cold": 723, "warm, as trained": 2653}
    assert melu_movielens(share=0).training.num_events == 640_448
    sizes = {one.name: len(one.tasks) for one in metahin("movielens").scenarios()}
    assert (sizes["user cold"], sizes["item cold"], sizes["both cold"]) == (687, 2855, 731)
    sizes = {one.name: len(one.tasks) for one in metahin("dbook").scenarios()}
    assert (sizes["user cold"], sizes["item cold"], sizes["both cold"]) == (1105, 2363, 572)
