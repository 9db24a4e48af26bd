"""Training and counting from the shards of a log on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import graphmeta as gm
from graphmeta.baselines import ItemKNN
from graphmeta.cli.commands import main
from graphmeta.data.events import EventLog
from graphmeta.data.merging import merged
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.splits import split_by_time
from graphmeta.evaluation.protocol import Rules, cut
from graphmeta.nn.features.transitions import TransitionFeatures
from graphmeta.nn.losses.sampled import InBatch, Popularity
from graphmeta.nn.score_terms.reranker import Reranker
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.testing import fake_log
from graphmeta.training.run import Checkpoint

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

COLUMNS = {"session": "session", "item": "item", "time": "time"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A log of 60 sessions in three files."""
    folder = tmp_path_factory.mktemp("events")
    frame = fake_log(sessions=60, items=25).to_frame()[["session", "item", "time"]]
    for number, rows in enumerate(np.array_split(np.arange(len(frame)), 3)):
        frame.iloc[rows].to_parquet(folder / f"{number}.parquet", index=False)
    return str(folder / "*.parquet")


@pytest.fixture
def scanned(files: str) -> ScannedLog:
    return EventLog.scan(files, memory="256MB", **COLUMNS)


@pytest.fixture
def in_shards(scanned: ScannedLog, monkeypatch: pytest.MonkeyPatch) -> ScannedLog:
    """The same in several shards."""
    monkeypatch.setattr("graphmeta.data.scan.stored.PER_EVENT", 4 * scanned.memory / scanned.num_events)
    assert repr(scanned).endswith("on disk; 4 shards")
    return scanned


def weights(system: gm.System) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in system.state_dict().items()}


def trained(log: EventLog | ScannedLog, name: str = "sr_gnn", **options) -> gm.System:
    torch.manual_seed(0)
    system = gm.build(name, log.items, width=4)
    list(gm.train(system, log, epochs=2, batch_size=7, **options))
    return system


@pytest.mark.parametrize("name", ["sr_gnn", pytest.param("global_gnn", marks=pytest.mark.slow)])
def test_one_shard_is_trained_on_as_the_log_in_memory(scanned: ScannedLog, name: str) -> None:
    one, other = weights(trained(scanned.collect(), name)), weights(trained(scanned, name))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_each_epoch_has_every_sample_once(in_shards: ScannedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple] = []
    gradients = gm.training.loop.gradients

    def noted(system, batch, **named):
        rows = [(tuple(batch.item[b:e]), int(t)) for b, e, t in zip(batch.begin, batch.end, batch.target, strict=True)]
        seen.extend(rows)
        return gradients(system, batch, **named)

    monkeypatch.setattr("graphmeta.training.loop.gradients", noted)
    system = gm.build("sr_gnn", in_shards.items, width=4)
    list(gm.train(system, in_shards, epochs=1, batch_size=7))
    whole = gm.prefixes(in_shards.collect())
    every = [(tuple(whole.item[b:e]), int(t)) for b, e, t in zip(whole.begin, whole.end, whole.target, strict=True)]
    assert sorted(seen) == sorted(every)


@pytest.mark.slow
def test_training_in_shards_is_deterministic_and_resumes(in_shards: ScannedLog, tmp_path: Path) -> None:
    one, other = weights(trained(in_shards)), weights(trained(in_shards))
    assert all(torch.equal(one[key], other[key]) for key in one)
    torch.manual_seed(0)
    system = gm.build("sr_gnn", in_shards.items, width=4)
    first = gm.TrainOptions(checkpoint=Checkpoint(tmp_path))
    next(iter(gm.train(system, in_shards, epochs=2, batch_size=7, options=first)))
    again = gm.TrainOptions(checkpoint=Checkpoint(tmp_path, resume=True))
    third = weights(trained(in_shards, options=again))
    assert all(torch.equal(one[key], third[key]) for key in one)


def test_neighbours_counted_in_shards_are_those_of_the_log(in_shards: ScannedLog) -> None:
    own = in_shards.collect()
    one, other = ItemKNN(own, neighbours=5), ItemKNN(in_shards, neighbours=5)
    for name in ("ptr", "value"):
        np.testing.assert_array_equal(getattr(one.similar, name), getattr(other.similar, name))
    np.testing.assert_array_equal(one.similarity, other.similarity)


@pytest.mark.parametrize("at_once", [10, pytest.param(4_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "make",
    [
        lambda items: Reranker(items, neighbours=6),
        lambda items: TransitionFeatures(items, 4, neighbours=3, discount=0),
        lambda items: Popularity(8, alpha=0.5),
        lambda items: InBatch(),
    ],
)
def test_statistics_of_shards_are_those_of_the_log(
    in_shards: ScannedLog, make, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphmeta.data.scan.pairs._AT_ONCE", at_once)
    torch.manual_seed(0)
    one = make(in_shards.num_items)
    torch.manual_seed(0)
    other = make(in_shards.num_items)
    one.fit_statistics(in_shards.collect())
    other.fit_statistics(in_shards)
    assert weights(one).keys() == weights(other).keys()
    for key, value in weights(one).items():
        assert torch.equal(value, weights(other)[key]), key
    if isinstance(one, Popularity | InBatch):
        assert torch.equal(one.share, other.share)


def test_the_split_and_the_merged_parts_are_those_of_a_log_in_memory(in_shards: ScannedLog) -> None:
    own = in_shards.collect()
    rules = Rules(min_item_support=2)
    one, other = cut(own, rules), cut(in_shards, rules)
    assert (one.valid_from, one.test_from, one.unknown) == (other.valid_from, other.test_from, other.unknown)
    for part, scanned in zip(one.parts, other.parts, strict=True):
        assert part.fingerprint() == scanned.fingerprint()
    both = merged(other.train, other.valid)
    assert merged(one.train, one.valid).fingerprint() == both.fingerprint() == both.collect().fingerprint()


WITHOUT_USERS = [name for name, entry in CATALOGUE.items() if not (entry.predicts_ratings or entry.needs_users)]


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT_USERS)
def test_a_system_counts_shards_or_refuses_them_with_the_remedy(in_shards: ScannedLog, name: str) -> None:
    torch.manual_seed(0)
    try:
        system = gm.build(name, in_shards.items)
    except gm.InputError as error:
        pytest.skip(str(error))
    own = in_shards.collect()
    try:
        system.fit_statistics(in_shards)
    except gm.InputError as error:
        assert "needs all events of the log in memory" in str(error)
        return
    found = weights(system)
    system.fit_statistics(own)
    assert all(torch.equal(value, found[key]) for key, value in weights(system).items())
    np.testing.assert_array_equal(system.events, own.support)


def test_functions_of_logs_in_memory_name_the_remedy(in_shards: ScannedLog) -> None:
    with pytest.raises(gm.InputError, match=r"prefixes\(log.collect\(\)\), or one of its shards"):
        gm.prefixes(in_shards)


@pytest.mark.slow
def test_fit_reads_a_log_that_fits_and_trains_in_shards_on_one_that_does_not(
    files: str, scanned: ScannedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = gm.fit(scanned.collect(), "sr_gnn", epochs=1, width=4)
    other = gm.fit(scanned, "sr_gnn", epochs=1, width=4)
    assert all(torch.equal(value, weights(other)[key]) for key, value in weights(one).items())
    monkeypatch.setattr("graphmeta.data.scan.stored.PER_EVENT", 4 * scanned.memory / scanned.num_events)
    system = gm.fit(EventLog.scan(files, memory="256MB", **COLUMNS), "reranker", epochs=1, width=4)
    assert len(system.recommend([scanned.items.ids[0]], k=3)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("system", ["sr_gnn", "reranker"])
def test_the_command_for_a_pattern_of_files(
    files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], system: str
) -> None:
    monkeypatch.setattr("graphmeta.data.scan.stored.PER_EVENT", 2**24)
    options = ["--session", "session", "--item", "item", "--time", "time", "--min-item-support", "1", "--epochs", "1"]
    arguments = ["fit", files, *options, "--width", "4", "--system", system, "--memory", "256MB"]
    assert main([*arguments, "--out", str(tmp_path / "model")]) == 0
    loaded = gm.load(tmp_path / "model" / "model")
    assert len(loaded.recommend([loaded.items.ids[0]], k=3)) == 3
    more = ["base_model"] if system == "reranker" else []
    assert set(loaded.notes["metrics"]["baselines"]) == {"popularity", *more}
    assert "stay on disk: training reads" in capsys.readouterr().err
    later = EventLog.scan(files, **COLUMNS).collect().to_frame()[["session", "item", "time"]]
    later = later.assign(session=later["session"] + 1000, time=later["time"] + 10**7)
    later.to_parquet(tmp_path / "later.parquet", index=False)
    assert main(["evaluate", str(tmp_path / "model"), str(tmp_path / "later.parquet"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] > 50


def test_split_by_time_keeps_the_type(in_shards: ScannedLog) -> None:
    assert isinstance(split_by_time(in_shards).train, ScannedLog)
