"""The serving engine: answers as of serial calls, a bounded queue, new versions and an orderly stop."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphmeta.errors import InputError
from graphmeta.serving.counters import EDGES, Counters
from graphmeta.serving.engine import Engine, Limits, Refused
from graphmeta.serving.query import Query
from graphmeta.serving.reload import Reloader
from graphmeta.serving.served import Served
from graphmeta.storage.versions import current, rollback
from tests.serving.models import LOG, SESSIONS, equal, queries, served, trained


def serial(query: Query, name: str = "maml", seed: int = 0) -> list:
    steps = {} if query.adapt else {"steps": 0}
    return trained(name, seed).recommend(
        query.session, query.k, unknown=query.unknown, exclude_seen=query.exclude_seen, **steps
    )


@pytest.mark.parametrize("name", ["maml", "sr_gnn"])
def test_concurrent_answers_equal_serial_ones(name: str) -> None:
    wanted = queries(40)
    with Engine(served(name)) as engine:
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(engine.recommend, wanted))
        batches, together = engine.counters.counted("batches"), engine.counters.counted("batched_queries")
    assert all(equal(one.items, serial(query, name)) for one, query in zip(found, wanted, strict=True))
    assert together == 40 and batches < 40  # some were computed together
    assert {one.version for one in found} == {"1"}


def test_mixed_queries_get_their_own_options_and_errors() -> None:
    chance = random.Random(1)
    mixed = [
        replace(
            query, k=chance.choice([1, 4]), adapt=chance.random() < 0.5, exclude_seen=chance.random() < 0.5,
            unknown=chance.choice(["raise", "ignore"]),
        )
        for query in queries(24)
    ]  # fmt: skip
    bad = [
        Query([], unknown="raise"),
        Query(["zz"], unknown="raise"),
        Query([*SESSIONS[3], "zz"], 5, unknown="raise"),
        Query(SESSIONS[3], 0),
    ]
    bad += [
        Query(SESSIONS[4], 5, times=[1.0]),
        Query("i1", 5),
        Query(SESSIONS[5], history=[["a"]]),
    ]
    everything = [*mixed, *bad]
    chance.shuffle(everything)
    results = served().answer(everything)
    for query, result in zip(everything, results, strict=True):
        if query in bad:
            assert isinstance(result, InputError) and "\n" not in str(result)
        else:
            assert not isinstance(result, Exception) and equal(result, serial(query))


class Blocked(Served):
    """A model that answers only after ``go``."""

    @classmethod
    def made(cls) -> Any:
        found = cls(trained("sr_gnn"), "1")
        object.__setattr__(found, "go", threading.Event())
        object.__setattr__(found, "sizes", [])
        return found

    def answer(self, wanted: Any) -> Any:
        self.sizes.append(len(wanted))  # type: ignore[attr-defined]
        assert self.go.wait(20)  # type: ignore[attr-defined]
        return super().answer(wanted)


def until(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.002)


def test_a_full_queue_refuses_all_or_none_and_names_a_time() -> None:
    model = Blocked.made()
    engine = Engine(model, Limits(queue=4, batch=3))
    first = engine.submit(*queries(1))
    until(lambda: model.sizes == [1])
    waiting = engine.submit(*queries(3))
    with pytest.raises(Refused, match="the queue of 4 requests is full") as refused:
        engine.submit(*queries(2))  # only one place is left
    assert refused.value.retry_after >= 1 and engine.waiting == 3
    waiting += engine.submit(*queries(1))
    model.go.set()
    assert all(one.result(20).items for one in [*first, *waiting])
    assert model.sizes == [1, 3, 1] and engine.counters.counted("refused") == 2
    engine.stop()
    with pytest.raises(Refused, match="stopping"):
        engine.submit(*queries(1))


def test_what_waits_too_long_is_refused_and_what_was_cancelled_is_skipped() -> None:
    model = Blocked.made()
    with Engine(model, Limits(wait=0.05)) as engine:
        first = engine.submit(*queries(1))
        until(lambda: model.sizes == [1])
        late, cancelled = engine.submit(*queries(2))
        assert cancelled.cancel()
        time.sleep(0.1)
        model.go.set()
        assert first[0].result(20).items
        with pytest.raises(Refused, match="waited too long"):
            late.result(20)
        until(lambda: engine.counters.counted("expired") == 1)
    assert model.sizes == [1]


@pytest.mark.parametrize(("linger", "sizes"), [(50.0, [2, 2]), (0.0, [2, 1, 1])])
def test_after_a_call_of_several_the_next_waits_for_as_many(
    linger: float, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a request that comes alone is answered at once."""
    monkeypatch.setattr("graphmeta.serving.engine.LINGER", linger)
    model = Blocked.made()
    with Engine(model, Limits(batch=4)) as engine:
        first = engine.submit(*queries(2))
        until(lambda: model.sizes == [2])
        time.sleep(0.1)
        model.go.set()
        assert all(one.result(20).items for one in first)
        model.go.clear()
        second = engine.submit(*queries(1))
        until(lambda: linger or model.sizes == [2, 1])
        second += engine.submit(*queries(1))
        model.go.set()
        assert all(one.result(20).items for one in second)
        assert model.sizes == sizes
        if linger:
            began = time.monotonic()
            third = engine.submit(*queries(2))
            assert all(one.result(20).items for one in third) and model.sizes == [2, 2, 2]
            assert time.monotonic() - began < 5.0  # as many wait, so it does not wait longer


def test_stopping_answers_what_waits() -> None:
    model = Blocked.made()
    engine = Engine(model, Limits(batch=2))
    futures = engine.submit(*queries(7))
    threading.Timer(0.05, model.go.set).start()
    assert engine.stop() and all(one.done() and one.result().items for one in futures)


def test_stopping_with_a_limit_refuses_what_is_left() -> None:
    model = Blocked.made()
    engine = Engine(model, Limits(batch=1))
    futures = engine.submit(*queries(3))
    until(lambda: model.sizes == [1])
    assert not engine.stop(wait=0.05)
    with pytest.raises(Refused, match="stopped"):
        futures[-1].result(1)
    model.go.set()


def test_calls_do_not_wait_for_queries_and_their_errors_are_their_own() -> None:
    model = Blocked.made()
    with Engine(model) as engine:
        blocked = engine.submit(*queries(1))
        assert engine.call(lambda found: found.version).result(20) == "1"
        with pytest.raises(ZeroDivisionError):
            engine.call(lambda _: 1 // 0).result(20)
        assert engine.call(lambda found: found.version).result(20) == "1"
        model.go.set()
        assert blocked[0].result(20).items


@pytest.mark.parametrize("wrong", [{"queue": 0}, {"batch": 1.5}, {"threads": 0}, {"wait": -1}])
def test_limits_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Limits(**wrong)


# New versions


def test_a_new_version_is_taken_over_without_a_lost_request(tmp_path: Path) -> None:
    systems = {str(number): trained("sr_gnn", number) for number in (1, 2, 3)}
    systems["1"].save(tmp_path)
    found, stop = [], threading.Event()

    def keep_asking(number: int) -> None:
        at = number
        while not stop.is_set():
            query = Query(SESSIONS[at % 20], 5)
            found.append((query, engine.recommend(query)))
            at += 4

    with Engine(Served.load(tmp_path)) as engine:
        reloader = Reloader(engine, tmp_path, every=0.02)
        threads = [threading.Thread(target=keep_asking, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for version in ("2", "3"):
            systems[version].save(tmp_path)
            until(lambda version=version: any(answer.version == version for _, answer in found[-20:]))
        rollback(tmp_path)
        until(lambda: found[-1][1].version == "2")
        stop.set()
        for thread in threads:
            thread.join()
        reloader.stop()
    assert engine.counters.counted("reloads") == 3
    wrong = [a for q, a in found if not equal(a.items, systems[a.version].recommend(q.session, 5))]
    assert wrong == [] and {answer.version for _, answer in found} == {"1", "2", "3"}


def test_a_version_that_cannot_be_loaded_leaves_the_old_one(tmp_path: Path) -> None:
    trained("sr_gnn", 1).save(tmp_path)
    with Engine(Served.load(tmp_path)) as engine:
        reloader = Reloader(engine, tmp_path, every=60)
        trained("sr_gnn", 2).save(tmp_path)
        (current(tmp_path) / "model.json").write_text("{")
        assert not reloader.check() and "cut short" in (reloader.failed or "")
        assert not reloader.check() and engine.counters.counted("reload_failures") == 1  # not tried at every look
        assert engine.recommend(Query(SESSIONS[0], 3)).version == "1"
        trained("sr_gnn", 3).save(tmp_path)
        assert reloader.check() and reloader.failed is None and engine.model.version == "3"
        reloader.stop()


def test_a_folder_without_versions_is_watched_too(tmp_path: Path) -> None:
    trained("sr_gnn", 1).write_files(tmp_path)
    with Engine(Served.load(tmp_path)) as engine:
        reloader = Reloader(engine, tmp_path, every=60)
        assert not reloader.check()
        trained("sr_gnn", 2).write_files(tmp_path)
        assert reloader.check() and not reloader.check()
        reloader.stop()
        assert equal(engine.recommend(Query(SESSIONS[0], 5)).items, trained("sr_gnn", 2).recommend(SESSIONS[0], 5))


# Items and counters


def test_items_are_found_by_words_and_ids() -> None:
    model = served("sr_gnn")
    assert model.search("I1", 3)[0] == ("i1", "i1")
    assert {item for item, _ in model.search("i1", 100)} == {i for i in LOG.items.ids.tolist() if "i1" in i}
    assert model.search("  ", 3) == model.search("nothing has this", 3) == []


def test_counters_of_processes_are_summed(tmp_path: Path) -> None:
    one, other = Counters(tmp_path), Counters()
    one.request("recommend", 200, 0.02)
    one.count("batches", 3)
    (tmp_path / "1.counters").write_bytes((next(tmp_path.iterdir())).read_bytes())  # another process
    (tmp_path / "2.counters").write_bytes(b"cut short")
    text = one.text({"queue_length": ("Waiting.", 2.0)})
    assert 'graphmeta_requests_total{endpoint="recommend",code="200"} 2' in text
    assert "graphmeta_batches_total 6" in text and "graphmeta_queue_length 2" in text
    other.request("recommend", 418, 60.0)
    assert 'code="400"} 1' in other.text({}) and 'le="10.0"} 0' in other.text({}) and 'le="+Inf"} 1' in other.text({})


def test_the_histogram_is_cumulative() -> None:
    counters, chance = Counters(), random.Random(0)
    seconds = [chance.expovariate(5) for _ in range(300)]
    for one in seconds:
        counters.request("recommend", 200, one)
    lines = dict(line.rsplit(" ", 1) for line in counters.text({}).splitlines() if "_bucket" in line)
    for edge in EDGES:
        assert int(lines[f'graphmeta_recommend_seconds_bucket{{le="{edge}"}}']) == sum(one <= edge for one in seconds)
