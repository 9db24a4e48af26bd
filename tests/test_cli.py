"""The command line: a log becomes a folder, the folder answers; bad input is one line and leaves nothing behind."""

from __future__ import annotations

import inspect
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.main import get_command

import graphmeta as gm
from graphmeta.cli.commands import app, main
from graphmeta.cli.options import FileOptions, LogOptions
from graphmeta.cli.recommend_job import known_sessions, sessions_of, times_of
from graphmeta.data.graph_files import load_graph
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.published.load import load
from graphmeta.published.systems import systems
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.storage import load_state, state_hash
from graphmeta.storage.versions import current
from graphmeta.testing import fake_log
from graphmeta.training import loop as training

METRICS = {f"{name}@{k}" for name in ("hit", "mrr", "ndcg") for k in (5, 20)}
COLUMNS = ["--session", "sid", "--item", "iid"]
SMALL = ["--width", "4", "--epochs", "1"]
EVERY = ["--min-item-support", "1"]


def events() -> pd.DataFrame:
    """120 sessions on a ring of 40 items, an hour apart."""
    log = fake_log(sessions=120, length=5)
    return pd.DataFrame(
        {
            "sid": [f"s{number}" for number in log.session],
            "iid": log.items.ids[log.item],
            "at": log.time.astype(int),
            "uid": [f"u{number % 20}" for number in log.session],
        }
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    events().to_csv(folder / "events.csv", index=False)
    items = pd.DataFrame({"iid": [f"i{n}" for n in range(40)]})
    items["kind"], items["name"] = [f"k{n // 5}" for n in range(40)], [f"Thing {n}" for n in range(40)]
    items.to_csv(folder / "items.csv", index=False)
    items.iloc[:30].to_csv(folder / "few.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def fitted(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``fit`` writes for a system that adapts."""
    out = tmp_path_factory.mktemp("fitted") / "out"
    table = ["--items", str(files / "items.csv"), "--attributes", "kind", "--label", "name"]
    command = ["fit", str(files / "events.csv"), *COLUMNS, "--time", "at", *table, "--out", str(out), "--no-refit"]
    assert main([*command, *SMALL, "--system", "melu", "--epochs", "2"]) == 0
    return out


def plain(files: Path, out: Path, *options: str) -> list[str]:
    """A ``fit`` of the fastest system."""
    return ["fit", str(files), *COLUMNS, "--out", str(out), "--system", "sr_gnn", *SMALL, "--no-refit", *options]


def of_users(files: Path, out: Path) -> list[str]:
    """A ``fit`` of a log with users."""
    return [
        "fit",
        str(files / "events.csv"),
        *COLUMNS,
        "--time",
        "at",
        "--user",
        "uid",
        "--out",
        str(out),
        "--no-refit",
    ]


def measured(out: Path) -> dict:
    """What ``metrics.json`` holds, but for the reports of the epochs."""
    document = json.loads((out / "metrics.json").read_text())
    assert document.pop("history")
    return document


def assert_metrics(document: dict) -> None:
    assert {"system", "candidates", "samples", "seed", "slices", "baselines", *METRICS} <= document.keys()
    assert {"popularity", "session_knn"} <= document["baselines"].keys()
    for found in (document, *document["baselines"].values()):
        assert all(0 <= found[name] <= 1 for name in METRICS)
    assert "NaN" not in json.dumps(document)


def test_help_is_fast_because_torch_is_not_imported():
    code = "import sys; from graphmeta.cli.commands import main; print(main(['--help']), 'torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "0 False"
    assert all(command in told for command in ("run", "fit", "evaluate", "recommend", "graph", "systems"))


def test_a_process_ends_with_code_2_and_one_line():
    ended = subprocess.run([sys.executable, "-m", "graphmeta", "tell"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "") and ended.stderr.count("\n") == 1
    assert "'tell'" in ended.stderr


def test_without_arguments_there_is_help(capsys: pytest.CaptureFixture):
    assert main([]) == 0
    assert "Usage: graphmeta" in capsys.readouterr().out


def test_fit_writes_metrics_curves_and_a_model_with_its_card(fitted: Path):
    document = measured(fitted)
    assert_metrics(document)
    assert (document["system"], document["seed"], document["samples"]) == ("melu", 0, 12)
    assert document["without_steps"].keys() >= METRICS
    assert (fitted / "curves.png").read_bytes().startswith(b"\x89PNG")
    card = (current(fitted / "model") / "README.md").read_text()
    assert all(text in card for text in ("melu", "events.csv", "2023-", "Intended use", "history"))
    assert sorted(file.name for file in fitted.glob("[!.]*")) == ["curves.png", "epochs.csv", "metrics.json", "model"]


def test_columns_of_every_type_are_read_and_saved(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    items = pd.read_csv(files / "items.csv")
    items["price"], items["image"] = [n / 2 for n in range(40)], [f"{n} 1 0" for n in range(40)]
    items["tags"] = ["new|red", "", *["red"] * 38]
    items.to_csv(tmp_path / "items.csv", index=False)
    types = "price=numeric, image=vector,name=text,tags=several"
    table = ["--items", str(tmp_path / "items.csv"), "--types", types]
    assert main(plain(files / "events.csv", tmp_path / "out", "--time", "at", *table)) == 0
    (note,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: sr_gnn reads no")]
    assert note.startswith("note: sr_gnn reads no item columns: kind (categorical)")
    read = load(tmp_path / "out/model").items
    kinds = {name: column.kind for name, column in read.columns.items()}
    wanted = {"kind": "categorical", "price": "numeric", "image": "vector", "name": "text", "tags": "several"}
    assert kinds == wanted
    np.testing.assert_array_equal(read.columns["image"].values[:, 0], [int(item[1:]) for item in read.ids])
    assert main(["graph", str(files / "events.csv"), *COLUMNS, *table, "--out", str(tmp_path / "graph")]) == 0
    graph = load_graph(tmp_path / "graph")
    assert graph["item"].x_names == ["price", "price is known", "image[0]", "image[1]", "image[2]"]
    numbers = [int(item[1:]) for item in graph["item"].names]
    assert graph["item"].x.tolist() == [[n / 2, 1, n, 1, 0] for n in numbers]
    assert graph["item"].text_name == [f"Thing {n}" for n in numbers]
    assert main([*plain(files / "events.csv", tmp_path / "two", *table), "--system", "melu"]) == 0
    assert capsys.readouterr().err.count("note: melu ignores item columns: price (numeric), ") == 1


def test_the_memory_estimate_is_printed(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    command = ["fit", str(files / "events.csv"), *COLUMNS, "--time", "at", *SMALL, "--batch-size", "80", "--no-refit"]
    assert main([*command, "--system", "melu", "--out", str(tmp_path / "one")]) == 0
    layer = load(tmp_path / "one/model").recommender.head.project
    numbers = sum(weight.numel() for weight in layer.parameters())
    size = 4 * 20 * 2 * numbers / 2**20  # the weights and one step's gradient, for the 20 tasks of a batch
    told = (
        f"adaptation memory: about {size:.1f} MiB for 20 tasks at a time (1 step, {numbers} adapted parameters, up to "
    )
    assert capsys.readouterr().err.count(told) == 1
    assert main(plain(files / "events.csv", tmp_path / "two", "--time", "at")) == 0
    assert "adaptation memory" not in capsys.readouterr().err


def test_the_model_stores_its_training_metadata(fitted: Path):
    notes = load(fitted / "model").notes
    assert (notes["columns"]["session"], notes["rules"]["min_item_support"], notes["seed"]) == ("sid", 5, 0)
    assert notes["cuts"]["has_time"] and notes["cuts"]["last_session_before_test"] is None
    assert notes["metrics"] == measured(fitted)


def test_evaluate_without_options_repeats_the_metrics_of_fit(fitted: Path, files: Path, capsys: pytest.CaptureFixture):
    assert main(["evaluate", str(fitted), str(files / "events.csv"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["sessions"], told["all_sessions"]) == (12, 120)
    written = measured(fitted)
    # The encoder trained alone is measured by `fit` and not kept with the model.
    assert written["baselines"].pop("base_model").keys() >= METRICS
    assert {key: told[key] for key in written} == written


def test_evaluate_scores_all_sessions_of_a_later_log_and_none_of_an_earlier(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    frame = events()
    frame["at"] += 10**7
    frame.to_csv(tmp_path / "later.csv", index=False)
    assert main(["evaluate", str(fitted), str(tmp_path / "later.csv")]) == 0
    assert "): 120 of 120, " in capsys.readouterr().err
    frame["at"] -= 2 * 10**7
    frame.to_csv(tmp_path / "earlier.csv", index=False)
    assert main(["evaluate", str(fitted), str(tmp_path / "earlier.csv")]) == 2
    assert "pass later ones" in capsys.readouterr().err


def test_a_small_catalogue_has_shorter_lists(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    frame = events()
    frame.assign(iid=frame["iid"].str[:2]).to_csv(tmp_path / "few.csv", index=False)  # ten items
    assert main(plain(tmp_path / "few.csv", tmp_path / "out", "--time", "at", *EVERY)) == 0
    told = capsys.readouterr()
    assert "note: only 10 items can be ranked, so lists of 5 are measured instead of 5, 20" in told.err
    assert "Hit@5 / MRR@5 in %, by context length" in told.out and "@20" not in told.out
    written = measured(tmp_path / "out")
    assert {"hit@5", "mrr@5", "ndcg@5"} <= written.keys() and "hit@20" not in written
    assert "Hit@20" not in (current(tmp_path / "out" / "model") / "README.md").read_text()
    assert main(["evaluate", str(tmp_path / "out"), str(tmp_path / "few.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hit@5"] == written["hit@5"]


def test_the_last_line_names_what_is_ahead_of_the_model(fitted: Path, files: Path, capsys: pytest.CaptureFixture):
    """On the ring, session_knn is far ahead of two epochs."""
    written = measured(fitted)
    knn = written["baselines"]["session_knn"]
    assert written["behind"]["session_knn"] == ["hit@20", "mrr@20"]
    assert main(["evaluate", str(fitted), str(files / "events.csv")]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("melu, with inner steps is behind ") and "on the same 12 samples" in line
    assert f"session_knn (Hit@20 {100 * written['hit@20']:.2f} against {100 * knn['hit@20']:.2f} %" in line
    assert line + "." in (current(fitted / "model") / "README.md").read_text()


def test_a_baseline_as_the_system_has_one_row_under_its_name(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    log = str(files / "events.csv")
    command = ["fit", log, *COLUMNS, "--time", "at", "--out", str(tmp_path), "--system", "stan", "--no-refit"]
    assert main(command) == 0 and main(["evaluate", str(tmp_path), log]) == 0
    told = [line.split("  ")[0].strip() for line in capsys.readouterr().out.splitlines()]
    assert [told.count(name) for name in ("popularity", "session_knn", "stan")] == [4, 4, 4]  # two tables, twice


def test_unclicked_items_of_the_catalogue_are_recommended(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    items = pd.read_csv(files / "items.csv")
    more = pd.DataFrame({"iid": ["new0", "new1"], "kind": ["k0", "k3"], "name": ["New 0", "New 1"]})
    pd.concat([more, items]).to_csv(tmp_path / "items.csv", index=False)
    frame, late = events(), events()["sid"].str[1:].astype(int) >= 108
    frame.loc[late & (frame.index % 5 == 4), "iid"] = "new1"  # the targets of the test
    frame.to_csv(tmp_path / "events.csv", index=False)
    command = plain(tmp_path / "events.csv", tmp_path / "out", "--time", "at", "--items", str(tmp_path / "items.csv"))
    assert main([*command, "--attributes", "kind", "--system", "dropout_net", *EVERY]) == 0
    assert "dropout_net also ranks the 2 items of the item file without training events" in capsys.readouterr().err
    written = measured(tmp_path / "out")
    assert written["candidates"] == 42 and written["samples"] == 12 and written["mrr@20"] > 0
    model = load(tmp_path / "out" / "model")
    assert {"new0", "new1"} <= {one.item for one in model.recommend(["i3", "new1"], 41)}
    assert main(["evaluate", str(tmp_path / "out"), str(tmp_path / "events.csv"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {name: told[name] for name in written} == written


def test_a_system_that_cannot_rank_unclicked_items_is_named_once(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    frame = events()
    frame.loc[frame["iid"] == "i39", "iid"] = "i0"
    frame.to_csv(tmp_path / "events.csv", index=False)
    table = ["--items", str(files / "items.csv"), "--label", "name", "--attributes", "kind"]
    assert main(plain(tmp_path / "events.csv", tmp_path / "out", "--time", "at", *table, *EVERY)) == 0
    told = capsys.readouterr().err
    assert told.count("sr_gnn cannot rank the 1 item of the item file without training events") == 1
    assert load(tmp_path / "out" / "model").num_items == 39


def test_recommend_prints_ids_and_names(fitted: Path, capsys: pytest.CaptureFixture):
    command = ["recommend", str(fitted), "--session", "i1 i2 i3", "--session", "i20, i21", "-k", "3"]
    assert main([*command, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["session"], second["session"]) == (["i1", "i2", "i3"], ["i20", "i21"])
    assert len(first["items"]) == 3 and first["items"][0].keys() == {"item", "name", "score", "why"}
    assert main(command) == 0
    assert f"Thing {first['items'][0]['item'][1:]} [{first['items'][0]['item']}]" in capsys.readouterr().out


@pytest.mark.parametrize(("unknown", "code", "line"), [("raise", 2, "'new'"), ("warn", 0, "note: "), ("ignore", 0, "")])
def test_recommend_follows_the_unknown_option(
    fitted: Path, capsys: pytest.CaptureFixture, unknown: str, code: int, line: str
):
    assert main(["recommend", str(fitted), "--session", "i1 new", "--unknown", unknown]) == code
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == (unknown != "ignore")


@pytest.fixture(scope="module")
def about_users(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``fit`` writes for a system that looks at users alone."""
    out = tmp_path_factory.mktemp("users") / "out"
    assert main([*of_users(files, out), *SMALL, "--system", "bpr_mf"]) == 0
    return out


def test_factors_are_learned_first(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main([*of_users(files, tmp_path), *SMALL, "--system", "meta_cf_linear"]) == 0
    assert "training the base model (bpr_fold_in)" in capsys.readouterr().err
    answers, _ = offered(capsys, str(tmp_path), "--session", "i1", "-k", "5")
    assert len(answers[0]) == 5


def offered(capsys: pytest.CaptureFixture, *command: str) -> tuple[list[dict], str]:
    """The items recommended to each session, and what was said besides."""
    assert main(["recommend", *command, "--json"]) == 0
    told = capsys.readouterr()
    return [answer["items"] for answer in json.loads(told.out)], told.err


def test_recommend_passes_the_user(about_users: Path, capsys: pytest.CaptureFixture):
    model = load(about_users / "model")
    command = [str(about_users), "--session", "i1", "--session", "i2 i3", "-k", "5"]
    for user in ("u3", "u4"):
        answers, said = offered(capsys, *command, "--user", user)
        wanted = model.recommend(["i7"], 5, user=user)
        for answer in answers:
            assert [row["item"] for row in answer] == [item.item for item in wanted]
            assert [row["score"] for row in answer] == pytest.approx([item.score for item in wanted], abs=1e-5)
        assert said == ""
    nobody, _ = offered(capsys, *command)
    stranger, said = offered(capsys, *command, "--user", "new")
    assert stranger == nobody != answers and said == (
        "note: user 'new' is unknown to this model; recommending as for an unknown user\n"
    )


def test_a_model_without_users_prints_a_note(fitted: Path, capsys: pytest.CaptureFixture):
    without, _ = offered(capsys, str(fitted), "--session", "i1 i2")
    answers, said = offered(capsys, str(fitted), "--session", "i1 i2", "--user", "u3")
    assert answers == without and said == "note: this model does not use users; --user has no effect\n"


def test_times_are_seconds_one_for_each_item(fitted: Path, capsys: pytest.CaptureFixture):
    command = [str(fitted), "--session", "i1 i2"]
    assert offered(capsys, *command, "--times", "10, 25.5") == offered(capsys, *command)
    for times, line in (
        ("10", "has 1 time for 2 clicks; give one per click"),
        ("10 noon", "cannot be read; write one"),
    ):
        for kind in (["recommend"], ["explain"]):
            asked = [kind[0], *command, *(["--item", "i3"] if kind[0] == "explain" else []), "--times", times]
            assert main(asked) == 2
            error = capsys.readouterr().err
            assert line in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("form", "times"),
    [
        (None, ["0", "25.5"]),
        (None, ["1700000000000", "1700000060000"]),
        (None, ["2024-05-01T12:00:00+02:00", "2024-05-01 10:00:01"]),
        (None, ["20240501", "20240502"]),
        ("%d.%m.%Y %H:%M", ["01.05.2024 12:00", "01.05.2024 12:01"]),
        ("h", ["473000", "473001"]),
    ],
)
def test_times_are_read_as_those_of_a_log(form: str | None, times: list[str], tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("s,i,t\n" + "".join(f"1,{n},{time}\n" for n, time in enumerate(times)))
    options = gm.ReadOptions(time_format=form)
    log = gm.EventLog.read(options.of(tmp_path / "log.csv"), session="s", item="i", time="t")
    model: Any = SimpleNamespace(notes={"columns": {"options": {"time_format": form}}})
    assert times_of(model, [",".join(times)], [["a", "b"]]) == [log.time.tolist()]
    assert times_of(model, [times[0], times[1]], [["a"], ["b"]]) == [[log.time[0]], [log.time[1]]]


def test_evaluate_reads_the_users_that_a_model_needs(about_users: Path, files: Path, capsys: pytest.CaptureFixture):
    assert main(["evaluate", str(about_users), str(files / "events.csv"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    written = measured(about_users)
    assert {"personal_frequency", "tifu_knn", "up_cf"} < told["baselines"].keys()  # their sessions are in the log
    assert {key: told[key] for key in written} == written


def test_fit_and_graph_read_a_log_with_the_same_options():
    group = get_command(app)
    reading, (fit, graph) = (
        [*inspect.signature(LogOptions).parameters, *inspect.signature(FileOptions).parameters],
        (group.commands[n] for n in ("fit", "graph")),
    )
    for command in (fit, graph):
        assert [parameter.name for parameter in command.params][: len(reading)] == reading
    for one, other in zip(fit.params[: len(reading)], graph.params[: len(reading)], strict=True):
        assert (one.opts, one.default, one.required) == (other.opts, other.default, other.required)


def test_what_happens_after_the_cut_changes_nothing_in_the_model(files: Path, tmp_path: Path):
    changed = events()
    late = changed["sid"].str[1:].astype(int) >= 108
    changed.loc[late, "iid"] = [f"new{n % 3}" if n % 2 else f"i{n % 7}" for n in range(int(late.sum()))]
    changed.to_csv(tmp_path / "changed.csv", index=False)
    for name, file in (("a", files / "events.csv"), ("b", tmp_path / "changed.csv")):
        assert main(plain(file, tmp_path / name, "--time", "at")) == 0
    first, second = (load(tmp_path / name / "model") for name in "ab")
    assert state_hash(first) == state_hash(second)
    assert first.items.ids.tolist() == second.items.ids.tolist()


def test_a_log_without_times_is_cut_by_its_order(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    out, frame = tmp_path / "out", events()
    assert main(plain(files / "events.csv", out)) == 0
    written = measured(out)
    capsys.readouterr()
    assert main(["evaluate", str(out), str(files / "events.csv"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {key: told[key] for key in written} == written
    frame["sid"] = "other" + frame["sid"]
    frame.to_csv(tmp_path / "other.csv", index=False)
    assert main(["evaluate", str(out), str(tmp_path / "other.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sessions"] == 120


def test_session_numbers_that_begin_anew_are_new_sessions(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """The file of another day has the same ids for other sessions."""
    assert main(plain(files / "events.csv", tmp_path / "out")) == 0
    other = events()
    other["iid"] = other.groupby("sid")["iid"].transform(lambda own: own[::-1].to_numpy())
    other.to_csv(tmp_path / "other.csv", index=False)
    events().iloc[250:].to_csv(tmp_path / "later part.csv", index=False)
    capsys.readouterr()
    for name, sessions in (("other", 120), ("later part", 12)):
        assert main(["evaluate", str(tmp_path / "out"), str(tmp_path / f"{name}.csv"), "--json"]) == 0
        told = capsys.readouterr()
        assert json.loads(told.out)["sessions"] == sessions
        assert ("session ids begin anew" in told.err) == (name == "other")


def test_sessions_can_be_cut_by_inactivity(files: Path, tmp_path: Path):
    out = tmp_path / "out"
    command = [
        "fit",
        str(files / "events.csv"),
        "--item",
        "iid",
        "--user",
        "uid",
        "--time",
        "at",
        "--out",
        str(out),
        "--no-refit",
    ]
    assert main([*command, "--system", "sr_gnn", *SMALL, "--inactivity-seconds", "600"]) == 0
    assert load_state(current(out / "model"), "history")[1]["sessions"] == 96


def stop_after(epochs: int) -> Callable:
    """The training's epoch, which the user interrupts when so many are done."""
    done, epoch = [], training._epoch

    def interrupted(*given: object) -> float:
        if len(done) == epochs:
            raise KeyboardInterrupt
        done.append(1)
        return epoch(*given)  # type: ignore[arg-type]

    return interrupted


def test_an_interrupted_training_goes_on_to_the_same_model(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(plain(files / "events.csv", whole, "--epochs", "3")) == 0
    command = plain(files / "events.csv", parts, "--epochs", "3")
    with monkeypatch.context() as patch:
        patch.setattr(training, "_epoch", stop_after(2))
        assert main(command) == 130
    assert "--resume" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in parts.glob("[!.]*")] == ["checkpoint"]
    assert main([*command, "--resume", "--width", "5"]) == 2
    assert "different: width" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert state_hash(load(whole / "model")) == state_hash(load(parts / "model"))
    assert (whole / "metrics.json").read_bytes() == (parts / "metrics.json").read_bytes()
    assert not (parts / "checkpoint").exists()
    assert main([*command, "--resume"]) == 0
    assert "drop --resume" in capsys.readouterr().err


def test_an_interruption_before_the_first_epoch_leaves_nothing(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "_epoch", stop_after(0))
    assert main(plain(files / "events.csv", tmp_path / "out")) == 130
    assert "nothing is saved" in capsys.readouterr().err and not (tmp_path / "out").exists()


def replaced(column: str, row: int, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object})
        frame.loc[row, column] = value
        return frame

    return change


BAD_LOGS = {
    "empty": (lambda frame: frame[:0], "no rows"),
    "without a column": (lambda frame: frame.drop(columns="iid"), "'iid'"),
    "missing time": (replaced("at", 3, None), "row 4"),
    "unreadable time": (replaced("at", 3, "yesterday"), "row 4"),
    "missing item": (replaced("iid", 5, None), "row 6"),
    "one event": (lambda frame: frame[:1], "too few"),
    "one session": (lambda frame: frame.assign(sid="s"), "too few"),
    "one item": (lambda frame: frame.assign(iid="i0"), "only 1 item"),
    "no two clicks": (lambda frame: frame.assign(sid=range(len(frame))), "no event is left"),
    "rare items": (lambda frame: frame.assign(iid=[f"i{n}" for n in range(len(frame))]), "lower"),
    "only new items in the end": (lambda f: f.assign(iid=f["iid"].where(f.index < 480, "x" + f["iid"])), "--valid"),
}


@pytest.mark.parametrize("name", BAD_LOGS)
def test_a_bad_log_is_one_line_and_leaves_nothing(name: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    change, line = BAD_LOGS[name]
    change(events()).to_csv(tmp_path / "bad.csv", index=False)
    assert_refused(plain(tmp_path / "bad.csv", tmp_path / "out", "--time", "at"), line, tmp_path / "out", capsys)


BAD_OPTIONS = {
    "missing file": (["--time", "at"], "no such file"),
    "unknown system": (["--system", "srgnn"], "'sr_gnn'"),
    "item table without any item": (["--items", "items.csv", "--item-key", "kind"], "occurs twice"),
    "item table of other items": (["--items", "items.csv", "--item-key", "name"], "none of the 40 items"),
    "item table without the column": (["--items", "items.csv", "--attributes", "colour"], "colour"),
    "item table without the key": (["--items", "items.csv", "--item-key", "sku"], "items.csv: no column 'sku'"),
    "attributes of nothing": (["--attributes", "kind"], "--items"),
    "types of nothing": (["--types", "price=numeric"], "--items"),
    "a column without a type": (["--items", "items.csv", "--types", "kind"], "'kind' must be column=type"),
    "a column of two types": (
        ["--items", "items.csv", "--attributes", "kind", "--types", "kind=text"],
        "column 'kind' is given two types",
    ),
    "a type that does not exist": (["--items", "items.csv", "--types", "kind=colour"], "items.csv: no column type is"),
    "text as a number": (["--items", "items.csv", "--types", "kind=numeric"], "column 'kind', row 1: 'k0' is not a"),
    "a system about users without any": (["--system", "bpr_mf"], "bpr_mf needs users; name the log's user"),
    "one whose factors come from users": (["--system", "meta_cf_g"], "bpr_fold_in needs users; name the"),
    "users without a user column": (["--users", "items.csv"], "--user"),
    "all for the test": (["--test", "0.95"], "leave some sessions"),
    "no epochs": (["--epochs", "0"], "--epochs"),
    "unknown option": (["--colour", "red"], "--colour"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_a_bad_option_is_one_line_and_leaves_nothing(
    name: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(files)
    options, line = BAD_OPTIONS[name]
    file = Path("nowhere.csv" if name == "missing file" else "events.csv")
    assert_refused(plain(file, tmp_path / "out", *options), line, tmp_path / "out", capsys)


def assert_refused(command: list[str], line: str, out: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(command) == 2
    told = capsys.readouterr()
    assert told.out == "" and not out.exists()
    assert told.err.startswith("error: ") and told.err.count("\n") == 1 and line in told.err, told.err


def test_an_unknown_system_is_refused_before_any_data_is_read(tmp_path: Path, capsys: pytest.CaptureFixture):
    said = {
        "cmbl": "did you mean 'cbml'?",
        "SR-GNN": "did you mean 'sr_gnn'?",
        "item_mean": "item_mean is not in the catalogue",
    }
    for name, line in said.items():
        command = plain(tmp_path / "nowhere.csv", tmp_path / "out", "--system", name)
        assert_refused(command, line, tmp_path / "out", capsys)


def test_a_file_is_no_folder_to_write_to(files: Path, capsys: pytest.CaptureFixture):
    for command in (plain(files / "events.csv", files / "items.csv"), ["run", "--out", str(files / "items.csv")]):
        assert main(command) == 2
        assert "is a file" in capsys.readouterr().err


def test_pictures_without_matplotlib_are_refused_before_training(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert_refused(plain(files / "events.csv", tmp_path / "out"), "graphmeta[plots]", tmp_path / "out", capsys)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def tampered(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_short, tampered, Path.unlink])
@pytest.mark.parametrize("pattern", ["model.json", "model-*.safetensors", "history-*.safetensors"])
def test_a_damaged_model_is_refused(
    damage: Callable, pattern: str, fitted: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    shutil.copytree(fitted, tmp_path / "copy")
    (file,) = current(tmp_path / "copy" / "model").glob(pattern)
    damage(file)
    assert main(["evaluate", str(tmp_path / "copy"), str(files / "events.csv"), "--json"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and file.name in told.err


def test_more_items_than_there_are_are_all_items_and_none_is_refused(fitted: Path, capsys: pytest.CaptureFixture):
    assert main(["recommend", str(fitted), "--session", "i1", "-k", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["recommend", str(fitted), "--session", "i1", "-k", "1000", "--json"]) == 0
    items = [one["item"] for one in json.loads(capsys.readouterr().out)[0]["items"]]
    assert sorted(items) == sorted(load(fitted / "model").items.ids.tolist())


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["recommend", str(tmp_path), "--session", "i1"]) == 2
    assert "model.json" in capsys.readouterr().err


def test_warnings_are_notes_of_one_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    frame = events()
    pd.concat([frame, frame[:2]]).to_csv(tmp_path / "twice.csv", index=False)
    assert main(["graph", str(tmp_path / "twice.csv"), *COLUMNS, "--time", "at", "--out", str(tmp_path / "out")]) == 0
    assert (
        capsys.readouterr()
        .err.splitlines()[0]
        .startswith("note: dropped, because they repeat an earlier row in every column: 2 rows")
    )


def test_attributes_that_the_system_does_not_read_are_noted(files: Path, tmp_path: Path, capsys):
    table = ["--items", str(files / "items.csv"), "--attributes", "kind"]
    assert main(plain(files / "events.csv", tmp_path / "out", *table)) == 0
    assert "note: sr_gnn reads no item columns: kind (categorical) (read by " in capsys.readouterr().err


def test_graph_writes_what_can_be_read_back(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    table = ["--items", str(files / "items.csv"), "--attributes", "kind", "--label", "name"]
    command = ["graph", str(files / "events.csv"), *COLUMNS, "--time", "at", "--user", "uid", *table]
    assert main([*command, "--out", str(tmp_path / "out"), "--around", "s7"]) == 0
    assert "session contains item" in capsys.readouterr().out
    graph = load_graph(tmp_path / "out")
    assert graph.validate() and graph["session"].num_nodes == 120 and graph["session"].names[7] == "s7"
    assert graph["item", "follows", "item"].weight.sum() == 120 * 4
    assert (tmp_path / "out" / "session.png").read_bytes().startswith(b"\x89PNG")
    assert_refused([*command, "--out", str(tmp_path / "no"), "--around", "nobody"], "nobody", tmp_path / "no", capsys)


def test_systems_lists_every_system(capsys: pytest.CaptureFixture):
    assert main(["systems", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows == [asdict(row) for row in systems()] and {row["name"] for row in rows} > set(CATALOGUE)
    assert all(row.keys() >= {"name", "kind", "family", "paper", "equations", "adapts"} for row in rows)
    assert main(["systems"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ("sr_gnn", "catn", "cdlfm", "session_knn", "cross-domain", "baseline"))


def test_run_prints_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("graphmeta.datasets.session_logs.complete_journey", lambda: fake_log(sessions=120, length=5))
    assert main(["run", "--system", "melu", "--out", str(tmp_path / "out"), *SMALL]) == 0
    told = capsys.readouterr().out
    assert all(
        text in told for text in ("session contains item", "session_knn", "melu, without inner steps", "Example 3")
    )
    assert told.count("<- bought") == 3 and "if_san (base model)" in told
    document = measured(tmp_path / "out")
    assert_metrics(document)
    assert document["baselines"]["base_model"].keys() >= METRICS
    assert not math.isnan(document["mrr@20"]) and (current(tmp_path / "out" / "model") / "README.md").is_file()


def test_run_goes_on_where_the_comparison_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("graphmeta.datasets.session_logs.complete_journey", lambda: fake_log(sessions=120, length=5))
    command = ["run", "--system", "maml", *SMALL, "--out"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(training, "_epoch", stop_after(1))
        assert main([*command, str(tmp_path / "parts")]) == 130
    assert main([*command, str(tmp_path / "parts"), "--resume"]) == 0
    whole, parts = ((tmp_path / name / "metrics.json").read_bytes() for name in ("whole", "parts"))
    assert whole == parts and not (tmp_path / "parts" / "checkpoint").exists()


def test_a_history_is_kept_on_request_and_read_from_a_log(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """``fit`` with users adapts to them; ``recommend --user`` reads kept sessions, or those of ``--history``."""
    log = [str(files / "events.csv"), *COLUMNS, "--time", "at", "--user", "uid"]
    assert main(["fit", *log, "--out", str(tmp_path / "kept"), *SMALL, "--keep-histories", "--no-refit"]) == 0
    shutil.copytree(tmp_path / "kept", tmp_path / "plain")
    for file in current(tmp_path / "plain" / "model").glob("histories*"):
        file.unlink()
    model = load(tmp_path / "kept" / "model")
    assert model.notes["system"] == "personal_reranker"
    metrics = measured(tmp_path / "kept")
    users = {"personal_frequency", "tifu_knn", "up_cf"}
    assert users < metrics["baselines"].keys()
    assert set(metrics["known_sessions"]) == set(metrics["last_sessions"]) == users | {"system"}
    ranges = ["0", "1", "2", "3-5", "6-10", "11-20", "21+"]
    assert all(list(one) == ranges for one in metrics["known_sessions"].values())
    assert sum(one["samples"] for one in metrics["known_sessions"]["up_cf"].values()) == metrics["samples"]
    assert list(metrics["last_sessions"]["up_cf"]) == ["0", "1", "2", "5", "10", "20", "all"]
    assert metrics["without_history"].keys() == METRICS and (tmp_path / "kept" / "known_sessions.png").is_file()
    told = capsys.readouterr().out
    assert "up_cf" in told and "number of a user's earlier sessions" in told and "20 (11-20)" in told
    command = ["--session", "i1", "-k", "5"]
    kept, said = offered(capsys, str(tmp_path / "kept"), *command, "--user", "u3")
    known = events()[events().uid == "u3"].sid.nunique()
    assert said.startswith(f"user u3: {known} earlier sessions, ")
    plain, said = offered(capsys, str(tmp_path / "plain"), *command, "--user", "u3")
    assert "no session of user 'u3' is known" in said and plain != kept
    given, said = offered(
        capsys, str(tmp_path / "plain"), *command, "--user", "u3", "--history", str(files / "events.csv")
    )
    assert said.startswith(f"user u3: {known} earlier sessions") and given == kept
    nobody, said = offered(capsys, str(tmp_path / "plain"), *command)
    assert "no --user" in said and nobody == plain
    keeps_its_histories(tmp_path / "kept" / "model", files / "events.csv")
    assert main(["recommend", str(tmp_path / "kept"), "--session", "", "--user", "u3"]) == 0
    assert "The first item of a session" in capsys.readouterr().out
    for folder, user, remedy in (("kept", "U3", "mean 'u3'"), ("kept", "u33", "check the id"), ("plain", "u3", "FILE")):
        _, said = offered(capsys, str(tmp_path / folder), *command, "--user", user)
        assert f"no session of user {user!r} is known" in said and remedy in said
    renamed = tmp_path / "renamed.csv"
    events().rename(columns={"sid": "visit", "uid": "who"}).to_csv(renamed, index=False)
    kept_folder = str(tmp_path / "kept")
    for given in (
        ["evaluate", kept_folder, str(renamed)],
        ["evaluate", kept_folder, str(files / "events.csv"), "--history", str(renamed)],
        ["recommend", kept_folder, *command, "--user", "u3", "--history", str(renamed)],
    ):
        assert main(given) == 2
        assert re.search(r"renamed.csv: no column .*rename .*item 'iid', session 'sid'", capsys.readouterr().err)
    measured_beside(metrics, tmp_path, files, capsys)


def keeps_its_histories(folder: Path, more: Path) -> None:
    """``--history`` is joined with the sessions of the model, which stays as it is."""
    model = load(folder)
    before, own = model.histories, int(model.histories.for_users(["u3"]).sessions[0])
    joined = known_sessions(model, "u3", more, lambda line: None)
    assert model.histories is before and int(UserHistories.of(joined).for_users(["u3"]).sessions[0]) == own > 0
    assert model.recommend(["i1"], 5, user="u3", history=joined) == model.recommend(["i1"], 5, user="u3")


def measured_beside(metrics: dict, folder: Path, files: Path, capsys: pytest.CaptureFixture) -> None:
    """``evaluate`` measures baselines of users where it knows their sessions, exactly as ``fit``; else it says why not.

    The sessions are stored with the model, or those of ``--history``, or in the evaluated log itself.
    """
    frame = events()
    whole, late = files / "events.csv", folder / "late.csv"
    begin = load(folder / "kept" / "model").notes["cuts"]["test_from"]
    frame[frame.groupby("sid")["at"].transform("min") >= begin].to_csv(late, index=False)
    expected = {name: one for name, one in metrics["baselines"].items() if name != "base_model"}
    for model, log, more in (
        ("kept", late, []),
        ("plain", late, ["--history", str(whole)]),
        ("plain", whole, []),
    ):
        assert main(["evaluate", str(folder / model), str(log), "--json", *more]) == 0
        out = capsys.readouterr()
        found = json.loads(out.out)
        assert found["baselines"] == expected and found["mrr@20"] == metrics["mrr@20"]
        assert out.err == ""  # --json prints no progress
    assert main(["evaluate", str(folder / "plain"), str(late), "--json"]) == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["baselines"].keys() == {"popularity", "session_knn", "stan"}
    assert out.err.count("\n") == 1 and "left out" in out.err and "--history LOG" in out.err


def test_ids_with_blanks_are_one_id_alone_and_separated_by_commas() -> None:
    class Shop:
        items = EntityTable(np.array(["red shoe", "blue shoe, left", "hat"], dtype=object), {})

    for text, ids in {
        "red shoe": ["red shoe"],
        "red shoe,": ["red shoe"],
        "blue shoe, left": ["blue shoe, left"],
        "red shoe, hat": ["red shoe", "hat"],
        "hat hat": ["hat", "hat"],
        "hat cap": ["hat", "cap"],
        "": [],
    }.items():
        assert sessions_of(Shop(), [text]) == [ids]
    with pytest.raises(InputError, match="'green shoe' nor any of its parts 'green', 'shoe'.*commas"):
        sessions_of(Shop(), ["green shoe"])


def test_a_history_for_a_system_that_reads_none_is_refused(
    fitted: Path, files: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["recommend", str(fitted), "--session", "i1", "--history", str(files / "events.csv")]) == 2
    assert "reads no history" in capsys.readouterr().err


def test_quiet_and_json_print_results_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress is left out; without both, the last line names the next command."""
    monkeypatch.chdir(tmp_path)
    fake_log(sessions=60).to_frame().to_csv("clicks.csv", index=False)
    given = ["fit", "clicks.csv", "--session", "session", "--item", "item", "--time", "time", "--system", "item_knn"]
    assert main([*given, "--out", "a"]) == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("next: graphmeta recommend a --session ")
    assert main([*given, "--out", "b", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert "Hit@20" in shown.out and all(line.startswith("note: ") for line in shown.err.splitlines())
    assert main([*given, "--out", "c", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["system"] == "item_knn"
    assert main(["recommend", "c", "--session", "i1"]) == 0 and "score" in capsys.readouterr().out  # shown again


def test_every_long_command_can_be_quiet_and_prints_json() -> None:
    """``recommend`` writes a file, or prints JSON for a session."""
    import typer

    commands: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
    options = {name: {flag for one in each.params for flag in one.opts} for name, each in commands.items()}
    short = {"rollback", "serve", "similar", "explain", "systems"}  # they read no log
    assert {name for name, flags in options.items() if "--quiet" not in flags} == short
    assert {name for name, flags in options.items() if "--json" not in flags} == {"rollback", "serve"}


@pytest.mark.parametrize("name", ["audit", "bench", "graph"])
def test_what_reads_a_log_shows_its_stages_unless_quiet(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fake_log(sessions=60).to_frame().to_csv("clicks.csv", index=False)
    command = [name, "clicks.csv", "--session", "session", "--item", "item", "--time", "time"]
    command += ["--out", "out.json" if name == "bench" else "out"]
    assert main([*command, "--quiet"]) == 0
    quiet = capsys.readouterr()
    assert quiet.out and all(line.startswith("note: ") for line in quiet.err.splitlines())
    assert main([*command, "--json"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert document and all(line.startswith("note: ") for line in shown.err.splitlines())
    assert main(command) == 0
    stages = capsys.readouterr().err
    assert "written: " in stages
    assert {
        "audit": "checking the split",
        "bench": "fitting item_knn",
        "graph": "building the graph of ",
    }[name] in stages
    if name == "graph":
        assert document["nodes"]["session"] == 60 and document["edges"]["item follows item"] > 0
