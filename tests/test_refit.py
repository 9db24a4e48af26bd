"""The model that is written is trained again on the whole log; metrics are those of the model that was tested."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import graphmeta as gm
from graphmeta.cli.commands import main
from graphmeta.data.splits import split_by_time
from graphmeta.errors import InputError
from graphmeta.published import training_plan
from graphmeta.published.catalogue import build
from graphmeta.published.load import load
from graphmeta.storage import state_hash
from graphmeta.storage.versions import current
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam
from graphmeta.training.recipes import TrainingRecipe

LOG = fake_log(sessions=100, items=20)
RECIPE = TrainingRecipe(epochs=4, batch_size=20, optimizer=Adam(lr=5e-2))


def best_of(system: gm.System, training: str) -> int:
    reports = system.notes["history"][training]
    return max(report["epoch"] for report in reports if report["best"]) + 1


def trained(log: gm.EventLog, epochs: int) -> gm.System:
    torch.manual_seed(0)
    system = build("sr_gnn", log.items, width=8)
    list(train(system, log, epochs=epochs, optimizer=RECIPE.optimizer, batch_size=20))
    return system


def test_a_system_fitted_to_a_log_is_that_of_training_on_all_of_it() -> None:
    """For as many epochs as were best on its last tenth."""
    system = gm.fit(LOG, "sr_gnn", width=8, recipe=RECIPE)
    assert state_hash(system) == state_hash(trained(LOG, best_of(system, "sr_gnn")))
    reports = system.notes["history"]["sr_gnn, all sessions"]
    assert len(reports) == best_of(system, "sr_gnn") and all(report["valid"] == {} for report in reports)


def test_a_split_is_trained_again_on_request_without_its_test() -> None:
    split = split_by_time(LOG)
    kept = gm.fit(split, "sr_gnn", width=8, recipe=RECIPE)
    assert list(kept.notes["history"]) == ["sr_gnn"]
    again = gm.fit(split, "sr_gnn", width=8, recipe=TrainingRecipe(refit=True).filled_from(RECIPE))
    known = LOG.before(split.test_from).aligned_to(split.train.items, split.train.users)
    assert state_hash(again) == state_hash(trained(known, best_of(again, "sr_gnn")))


@pytest.mark.parametrize("name", ["maml", "reranker"])
def test_every_stage_is_trained_again_for_its_own_best_epochs(name: str, monkeypatch) -> None:
    seen = []
    stage = training_plan._train_stage

    def noted(plan, split, checkpoint, **named):
        seen.append((plan.system, split.train.num_sessions, plan.recipe))
        return stage(plan, split, checkpoint, **named)

    monkeypatch.setattr(training_plan, "_train_stage", noted)
    system = gm.fit(LOG, name, width=8, recipe=RECIPE)
    history = system.notes["history"]
    base = next(key.removesuffix(" (base)") for key in history if key.endswith("(base)"))
    best = {base: best_of(system, f"{base} (base)"), name: best_of(system, name)}
    half = len(seen) // 2
    first = {plan: recipe for plan, _, recipe in seen[:half][:2]}
    for plan, sessions, recipe in seen[half:]:
        assert recipe.epochs == best[plan] and recipe.patience is None
        assert (recipe.batch_size, recipe.optimizer) == (first[plan].batch_size, first[plan].optimizer)
        assert sessions <= LOG.num_sessions
    assert sum(sessions for _, sessions, _ in seen[half:]) > sum(sessions for _, sessions, _ in seen[:half])


def clicks() -> pd.DataFrame:
    """Sessions an hour apart; the last ones click an item that is in no other session."""
    log = fake_log(sessions=120, length=5)
    frame = pd.DataFrame({"sid": log.session, "iid": log.items.ids[log.item], "at": log.time.astype(int)})
    frame.loc[frame.sid >= 116, "iid"] = np.where(np.arange((frame.sid >= 116).sum()) % 2, "new", "i3")
    return frame


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("log") / "clicks.csv"
    clicks().to_csv(path, index=False)
    return path


def fitted(file: Path, out: Path, *options: str) -> int:
    columns = ["--session", "sid", "--item", "iid", "--time", "at", "--width", "4", "--epochs", "2"]
    return main(["fit", str(file), *columns, "--out", str(out), "--system", "sr_gnn", *options])


def test_the_written_model_has_seen_the_newest_sessions(file: Path, tmp_path: Path, capsys) -> None:
    assert fitted(file, tmp_path / "kept", "--no-refit") == 0
    assert fitted(file, tmp_path / "again") == 0
    kept, again = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("kept", "again"))
    times = {"history"}
    assert {k: v for k, v in kept.items() if k not in times} == {k: v for k, v in again.items() if k not in times}
    old, new = (load(tmp_path / name / "model") for name in ("kept", "again"))
    assert "new" not in old.items.ids and "new" in new.items.ids
    assert new.notes["training"]["sessions"] == 120 and new.notes["measured"]["training"]["sessions"] == 96
    card = (current(tmp_path / "again" / "model") / "README.md").read_text()
    assert "then trained again from the start on all sessions" in card and "120 sessions" in card
    assert "trained again" not in (current(tmp_path / "kept" / "model") / "README.md").read_text()
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "again"), str(file)]) == 2
    assert "when the log of the model ends; pass later ones, or fit with --no-refit" in capsys.readouterr().err
    later = clicks()
    later["sid"], later["at"] = later["sid"] + 1000, later["at"] + 10**7
    later.to_csv(tmp_path / "later.csv", index=False)
    assert main(["evaluate", str(tmp_path / "again"), str(tmp_path / "later.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sessions"] == 120


def test_epochs_are_written_as_csv_and_json(file: Path, tmp_path: Path) -> None:
    assert fitted(file, tmp_path) == 0
    with (tmp_path / "epochs.csv").open() as rows:
        found = list(csv.DictReader(rows))
    history = json.loads((tmp_path / "metrics.json").read_text())["history"]
    assert [(row["training"], int(row["epoch"])) for row in found] == [
        (name, report["epoch"] + 1) for name, reports in history.items() for report in reports
    ]
    assert float(found[0]["mrr@20"]) == history["sr_gnn"][0]["valid"]["mrr@20"] and found[-1]["mrr@20"] == ""


def test_without_a_test_part_the_model_is_written_and_nothing_is_measured(file: Path, tmp_path: Path, capsys) -> None:
    assert fitted(file, tmp_path, "--test", "0") == 0
    assert "nothing is measured" in capsys.readouterr().err
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document["samples"] == 0 and "hit@20" not in document and document["history"]["sr_gnn"]
    assert "Not measured: there was no test part." in (current(tmp_path / "model") / "README.md").read_text()
    assert load(tmp_path / "model").notes["training"]["sessions"] == 120


def test_an_interrupted_second_training_is_resumed(file: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    assert fitted(file, tmp_path / "whole") == 0
    real, calls = training_plan.train, []

    def interrupted(*given, **named):
        calls.append(1)
        for number, report in enumerate(real(*given, **named)):
            yield report
            if len(calls) == 2 and number == 0:
                raise KeyboardInterrupt

    monkeypatch.setattr(training_plan, "train", interrupted)
    assert fitted(file, tmp_path / "parts") == 130
    assert "--resume" in capsys.readouterr().err
    assert fitted(file, tmp_path / "parts", "--resume") == 0
    whole, parts = (load(tmp_path / name / "model") for name in ("whole", "parts"))
    assert state_hash(whole) == state_hash(parts)
    assert not (tmp_path / "parts" / "checkpoint").exists()
    assert fitted(file, tmp_path / "parts", "--resume") == 0
    assert "already has the result" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["popularity", "item_knn"])
def test_a_baseline_is_fitted_by_the_command(file: Path, tmp_path: Path, name: str, capsys) -> None:
    columns = ["--session", "sid", "--item", "iid", "--time", "at"]
    assert main(["fit", str(file), *columns, "--out", str(tmp_path), "--system", name]) == 0
    assert "counted" in capsys.readouterr().err
    assert main(["recommend", str(tmp_path), "--session", "new", "-k", "3"]) == 0
    assert "i3" in capsys.readouterr().out
    assert "Counted once" in (current(tmp_path / "model") / "README.md").read_text()


class Noted:
    def __init__(self) -> None:
        self.found: list[tuple[str, int]] = []

    def on_epoch(self, training: str, report) -> None:
        self.found.append((training, report.epoch))


def test_callbacks_get_every_epoch_of_every_training(capsys) -> None:
    first, second = Noted(), Noted()
    system = gm.fit(LOG, "maml", width=4, epochs=2, progress=[first, second])
    history = system.notes["history"]
    assert first.found == second.found == [(n, r["epoch"]) for n, reports in history.items() for r in reports]
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match=r"callbacks with on_epoch\(training, report\), not a str"):
        gm.fit(LOG, "sr_gnn", epochs=1, width=4, progress=["x"])  # pyright: ignore


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", ""])
def test_an_unknown_device_is_one_line(device: str) -> None:
    with pytest.raises(InputError, match="must be auto, cpu or cuda|is not available"):
        gm.fit(LOG, "sr_gnn", epochs=1, width=4, device=device)


@pytest.mark.parametrize("items", [6, 12, 19])
@pytest.mark.parametrize("name", ["tifu_knn", "personal_reranker"])
@pytest.mark.filterwarnings("ignore:only .* items can be ranked", "ignore:personal_reranker ignores")
def test_a_small_catalogue_with_users_is_fitted_and_no_user_id_is_written(
    items: int, name: str, tmp_path: Path
) -> None:
    """Sessions by inactivity, whose ids have the user's."""
    log = fake_log(sessions=150, items=items, length=4)
    users = [f"secret{n % 8}" for n in log.session]
    frame = pd.DataFrame({"sku": log.items.ids[log.item], "at": log.time.astype(int), "who": users})
    frame.to_csv(tmp_path / "log.csv", index=False)
    columns = ["--item", "sku", "--time", "at", "--user", "who", "--width", "4", "--epochs", "1"]
    out = tmp_path / "out"
    given = ["--system", name, "--min-item-support", "1", "--inactivity-seconds", "600"]
    assert main(["fit", str(tmp_path / "log.csv"), *columns, "--out", str(out), *given]) == 0
    written = [file for file in out.rglob("*") if file.is_file()]
    assert written and not any(b"secret" in file.read_bytes() for file in written)
