"""The command line reads the files that users have, stores how, and reads later files likewise."""

import json
from pathlib import Path

import pandas as pd
import pytest

from graphmeta.cli.commands import main
from graphmeta.cli.session_ids import session_of
from graphmeta.data.read_options import ActionWeights, ReadOptions
from graphmeta.data.stored_columns import Columns
from graphmeta.errors import InputError
from graphmeta.published.load import load
from graphmeta.testing import fake_log

FIT = ["--system", "sr_gnn", "--width", "4", "--epochs", "1"]
PLAIN = ["--session", "s", "--item", "i"]


def events(day: int = 0) -> pd.DataFrame:
    """120 sessions on a ring of 40 items with ids such as ``it, 7``; every third event is a view of another item."""
    log = fake_log(sessions=120, length=5)
    rows = pd.DataFrame({"s": log.session, "i": [f"it, {one[1:]}" for one in log.items.ids[log.item]], "t": log.time})
    views = rows.iloc[::3].assign(i="it, view", event="view")
    rows = pd.concat([rows.assign(event="buy"), views]).sort_index(kind="stable")
    rows["t"] = pd.to_datetime(rows["t"] + 86400 * day, unit="s").dt.strftime("%d.%m.%Y %H:%M")
    rows["u"] = [f"u{n % 9}" if n % 2 else "" for n in rows["s"]]
    return rows


def write(frame: pd.DataFrame, path: Path) -> str:
    """GroupLens' format."""
    path.write_text("".join("::".join(map(str, row)) + "\n" for row in frame.itertuples(index=False)))
    return str(path)


def refused(command: list[str], line: str, capsys: pytest.CaptureFixture) -> None:
    assert main(command) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and line in told.err, told.err


def test_a_model_reads_later_files_as_its_own(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first, broken = events(), events().iloc[:1].assign(t="soon")
    file = write(pd.concat([first, broken]), tmp_path / "events.dat")
    columns = ["--session", "1", "--item", "2", "--time", "3", "--user", "5", "--no-header", "--drop-bad-rows"]
    command = ["fit", file, *columns, "--where", "4=buy", "--time-format", "%d.%m.%Y %H:%M", *FIT]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().err
    assert "note: dropped rows: 1 of 601: the time cannot be read in 1 (the first: row 801)" in told
    assert (
        "600 events" in told and "training part: filters (items of at least 5 events, sessions of at least 2; " in told
    )
    model = load(tmp_path / "out" / "model")
    assert "it, view" not in model.items.ids and model.notes["columns"]["options"]["where"] == {"4": ["buy"]}

    later = write(events(day=90), tmp_path / "later.dat")
    assert main(["evaluate", str(tmp_path / "out"), later, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["all_sessions"] == 120

    for given in ("it, 1", '"it, 1","it, 2"'):
        assert main(["recommend", str(tmp_path / "out"), "--session", given, "-k", "1"]) == 0
        assert "it, " in capsys.readouterr().out
    refused(["recommend", str(tmp_path / "out"), "--session", '"it, 1'], "quote that is not closed", capsys)


def test_files_that_count_their_sessions_anew_are_evaluated_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    frame = events()[lambda f: f["event"] == "buy"][["s", "i"]]
    frame.to_csv(tmp_path / "day1.csv", index=False)
    frame.assign(i=frame["i"].to_numpy()[::-1]).to_csv(tmp_path / "day2.csv", index=False)
    assert main(["fit", str(tmp_path / "day1.csv"), *PLAIN, *FIT, "--out", str(tmp_path / "out"), "--no-refit"]) == 0
    capsys.readouterr()
    for day, sessions in ((1, 12), (2, 120)):
        assert main(["evaluate", str(tmp_path / "out"), str(tmp_path / f"day{day}.csv")]) == 0
        assert f"): {sessions} of 120, " in capsys.readouterr().err


def test_what_is_left_out_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    frame = pd.DataFrame({"s": [1, 1, 2, 2, 3], "i": list("abaca")})
    frame.to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame({"i": ["a", "b"], "genre": ["x|y", "y"], "size": [1, 2]}).to_csv(tmp_path / "items.csv", index=False)
    items = ["--items", str(tmp_path / "items.csv"), "--several", "genre=|", "--types", "size=numeric"]
    command = ["graph", str(tmp_path / "a.csv"), *PLAIN, *items, "--out", str(tmp_path / "out")]
    assert main([*command, "--min-item-support", "1", "--min-session-length", "2"]) == 0
    told = capsys.readouterr()
    assert "note: item table: no row for 1 of 3 items with events (such as 'c')" in told.err
    assert "leave out 1 of 3 sessions, 1 of 5 events, 0 of 3 items" in told.err
    assert " genre " in told.out and "item has genre" in told.out


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--where", "event"], "--where 'event' must be column=value"),
        (["--where", "event=fly"], "no row has event=fly; the column has 'buy' (600), 'view' (200)"),
        (["--time", "t", "--time-format", "DD"], "the time format 'DD' is neither"),
        (["--time", "t"], "cannot be read; use seconds since 1970 or ISO 8601"),
        (["--sep", ""], "the separator (--sep) is empty"),
        (["--encoding", "utf-9"], "unknown encoding"),
        (["--action", "event"], "--action names the column of actions, --action-weight"),
        (["--action", "event", "--action-weight", "buy=much"], "'much' is not a number"),
        (["--action", "event", "--action-weight", "buy=2"], "row 1: the action 'view' has no weight"),
        (["--several", "genre=|"], "--several and --label are columns of an item file"),
        (["--items", "items.csv", "--several", "genre"], "--several 'genre' must be column=separator"),
        (["--items", "items.csv", "--several", "genre=|", "--types", "genre=text"], "'genre' is given two types"),
    ],
)
def test_options_of_reading_are_refused_in_one_line(
    options: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = events()
    frame.iloc[[0, 1]] = frame.iloc[[1, 0]].to_numpy()
    frame.to_csv("events.csv", index=False)
    pd.DataFrame({"i": frame["i"].unique(), "genre": "x"}).to_csv("items.csv", index=False)
    refused(["graph", "events.csv", *PLAIN, *options, "--out", "out"], line, capsys)
    assert not Path("out").exists()


def test_columns_survive_json_also_of_earlier_models() -> None:
    options = ReadOptions("::", False, where={"4": ["buy"]}, time_format="s", drop_bad_rows=True)
    columns = Columns("2", "1", options=options, actions=ActionWeights("4", {"buy": 2.0}))
    assert Columns.from_json(json.loads(json.dumps(columns.to_json()))) == columns
    earlier = {"item": "i", "session": "s", "time": None, "user": None, "inactivity_seconds": 60.0}
    assert Columns.from_json(earlier) == Columns("i", "s", inactivity_seconds=60.0)


def test_ids_with_commas_and_blanks_are_items_of_a_session() -> None:
    assert session_of("a, b", {"a, b", "a", "b"}) == ["a, b"] and session_of("a b", {"a b"}) == ["a b"]
    assert session_of('"a b" c', {}) == ["a b", "c"] and session_of('"a, b" , c', {}) == ["a, b", "c"]
    assert session_of('3" pipe', {'3" pipe'}) == ['3" pipe']
    with pytest.raises(InputError, match="not closed"):
        session_of('"a', {})


@pytest.mark.parametrize("command", ["fit", "graph", "stream"])
def test_the_help_lists_how_files_are_read(command: str, capsys: pytest.CaptureFixture) -> None:
    assert main([command, "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    options = "--where --action-weight --time-format --sep --no-header --several --drop-bad-rows --encoding --items-sep"
    assert all(option in told for option in options.split())
    assert "YYYYMMDD" in told and "unknown user" in told and "unknown attributes" in told and "categories" in told
