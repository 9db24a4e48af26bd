"""``graphmeta stream``: a log becomes a folder that says how retraining went; taken up again; bad input is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from graphmeta.cli import console, stream_job
from graphmeta.cli.commands import main
from graphmeta.plots import stream as stream_plots
from graphmeta.published.load import load
from graphmeta.retrain.stream import PeriodReport
from graphmeta.testing import fake_log

QUICK = ["--period", "12h", "--first", "2", "--epochs", "1", "--width", "4", "--negatives", "20"]
COLUMNS = ["--session", "sid", "--item", "iid", "--user", "uid", "--time", "at"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """48 sessions on a ring of 40 items, an hour apart: two days, four periods."""
    found = fake_log(sessions=48)
    frame = pd.DataFrame({"sid": found.session, "iid": found.items.ids[found.item], "at": found.time.astype(int)})
    frame["uid"] = [f"u{number % 20}" for number in found.session]
    frame.to_csv(path := tmp_path / "log.csv", index=False)
    return path


def run(log: Path, out: Path, *options: str) -> int:
    return main(["stream", str(log), *COLUMNS, *QUICK, "--out", str(out), *options])


def without_times(path: Path) -> dict:
    document = json.loads(path.read_text())
    for system in document["systems"].values():
        for report in system["periods"]:
            for name in ("test_seconds", "train_seconds", "train_cpu_seconds"):
                del report[name]
    return document


def test_all_strategies_on_one_stream(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert run(log, tmp_path / "out") == 0
    told = capsys.readouterr()
    assert "144 clicks of 2 periods, ranked among sampled candidates" in " ".join(told.out.split())
    assert told.err.count("period 4/4") == 4
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(document["systems"]) == ["full_retrain", "fine_tune", "spmf", "sml"]
    first = [system["periods"][0]["sampled"] for system in document["systems"].values()]
    assert all(one == first[0] for one in first)  # all begin with the same pretrained weights
    assert (tmp_path / "out" / "periods.png").read_bytes().startswith(b"\x89PNG")
    system = load(tmp_path / "out" / "sml" / "model")
    assert len(system.recommend(["i3"], 5, user="u1")) == 5


def test_a_stream_of_few_items_samples_what_there_is(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    frame = pd.read_csv(log)
    few = tmp_path / "few.csv"
    frame.assign(iid=[f"i{int(name[1:]) % 25}" for name in frame["iid"]]).to_csv(few, index=False)
    assert run(few, tmp_path / "out", "--system", "fine_tune") == 0
    told = capsys.readouterr()
    assert "note: in period 4 a user or session has only" in told.err and "and lists are of 5;" in told.err
    assert "Recall@5" in told.out and "Recall@20" not in told.out


def test_an_interrupted_stream_goes_on_to_the_same_end(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    one = ("--system", "fine_tune")
    assert run(log, tmp_path / "whole", *one) == 0
    said = []

    def interrupted(line: str) -> None:
        said.append(line)
        if len(said) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(console, "say", interrupted)
        assert run(log, tmp_path / "parts", *one) == 130
    assert "has the finished periods: repeat the command with --resume" in said[-1]
    assert not (tmp_path / "parts" / "metrics.json").exists()
    assert run(log, tmp_path / "parts", *one, "--resume") == 0
    assert without_times(tmp_path / "parts" / "metrics.json") == without_times(tmp_path / "whole" / "metrics.json")
    assert run(log, tmp_path / "parts", *one, "--resume", "--first", "1") == 2
    assert "a checkpoint of another stream (different: first)" in capsys.readouterr().err


def test_sessions_without_user_and_a_session_encoder(log: Path, tmp_path: Path):
    plain = ["--session", "sid", "--item", "iid", "--period", "60events", "--out", str(tmp_path / "out")]
    options = [*QUICK[2:], "--system", "fine_tune", "--system", "sr_gnn", "--base", "sr_gnn"]
    assert main(["stream", str(log), *plain, *options]) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["systems"]
    assert [report["rows"] for report in found["sr_gnn"]["periods"]] == [50, 50, 40]  # no first clicks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--system", "smm"], "no system is called 'smm'"),
        (["--base", "mg"], "no system is called 'mg'"),
        (["--system", "melu_rating"], "melu_rating predicts ratings"),
        (["--period", "7"], "--period '7' must be a length like 7d"),
        (["--period", "0d"], "--period '0d' must be a length like 7d"),
        (["--period", "9w"], "of 1 period, the first 2 are for pretraining"),
        (["--negatives", "4"], "lists of 20 need at least 20 negatives, not 4"),
        (["--item", "sku"], "'sku'"),
        (["--out", "log.csv/out"], "log.csv"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    log: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert run(log, tmp_path / "out", *options) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv"]


def test_matrix_factors_need_users_and_lengths_need_times(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    plain = ["stream", str(log), "--session", "sid", "--item", "iid", *QUICK, "--out", str(tmp_path / "out")]
    assert main(plain) == 2
    assert "mf needs users" in capsys.readouterr().err
    assert main([*plain, "--base", "sr_gnn"]) == 2
    assert "--period 12h needs times" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pictures_draw_every_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn, save = [], stream_plots.save
    monkeypatch.setattr(stream_plots, "save", lambda picture, path: (drawn.append(picture), save(picture, path)))
    reports = [PeriodReport(n, 0.0, 9 * (n != 3), {"hit@20": n / 10}, {"hit@20": n / 20}, 0, 0, 0) for n in (2, 3, 4)]
    stream_plots.periods({"sml": reports, "spmf": reports[:1]}, tmp_path / "a.png")
    left, right = drawn[0].axes
    assert left.lines[0].get_xydata().tolist() == [[3, 20], [5, 40]] and len(left.lines) == len(right.lines) == 2
    stream_plots.costs({str(n): {10: 1.0, 20: 1.5} for n in range(12)}, tmp_path / "b.png")
    lines = drawn[1].axes[0].lines
    assert lines[0].get_xydata().tolist() == [[10, 1.0], [20, 1.5]]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 12  # no two look alike
    assert drawn[1].axes[0].get_title(loc="left").endswith(" takes longest to retrain on one period")


def test_pictures_of_streams_have_the_deviation_over_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn, save = [], stream_plots.save
    monkeypatch.setattr(stream_plots, "save", lambda picture, path: (drawn.append(picture), save(picture, path)))

    def reports(value: float) -> list[PeriodReport]:
        return [PeriodReport(n, 0.0, 9, {"hit@20": value}, {"hit@20": value}, 0, 0, 0) for n in (2, 3)]

    seeds = {"sml": [reports(0.2), reports(0.4)], "spmf": [reports(0.1)]}
    stream_plots.periods({"sml": reports(0.3), "spmf": reports(0.1)}, tmp_path / "a.png", seeds=seeds)
    axes = drawn[0].axes[0]
    assert axes.get_title(loc="left") == "sml has the highest Hit@20 among sampled candidates"
    (band,) = axes.collections  # one seed has none
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(30 - 14.142, abs=0.01) and heights.max() == pytest.approx(44.142, abs=0.01)
    stream_plots.costs({"a": {10: 1.0}}, tmp_path / "b.png", deviations={"a": {10: 0.5}})
    assert drawn[1].axes[0].get_ylim()[1] > 1.5


def test_lengths_of_periods():
    found = fake_log(sessions=60)
    assert len(stream_job.edges_of(found, "1d")) == len(stream_job.edges_of(found, "24 h")) == 4
    assert len(stream_job.edges_of(found, "90events")) == 5
