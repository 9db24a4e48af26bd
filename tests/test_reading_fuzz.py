"""Random files are a log or a table, or the library's own error in one line; refused commands leave nothing behind."""

import shutil
import warnings
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphmeta as gm
from graphmeta.cli.commands import main
from graphmeta.data.read_options import ActionWeights, Inactivity, ReadOptions
from graphmeta.plots import session_graph

WORDS = [
    "NA",
    "None",
    "null",
    "nan",
    "",
    " ",
    "a",
    "a ",
    " a",
    "a,b",
    "a|b",
    '"',
    "'",
    "::",
    "\x1f",
    "ä",
    "日",
    "0",
    "-1",
]
IDS = (
    st.integers(0, 4).map(str) | st.sampled_from([*WORDS, "1.0", "007", "1e3", "9" * 20, "560.0"]) | st.text(max_size=3)
)
TIMES = (
    st.integers(1_600_000_000, 1_600_000_009).map(str)
    | st.sampled_from(
        ["20200101", "20201301", "20200101235959", "2020-01-01", "2020-10-25T02:30:00", "2020-10-25T02:10:00"]
    )
    | st.sampled_from(
        ["01.02.2020", "soon", "", "inf", "1e400", "2020-01-01T00:00:00+02:00", "-5", "18262", "1600000000.5"]
    )
)
CELLS = {"s": IDS, "i": IDS, "t": TIMES, "u": IDS, "v": IDS | TIMES, "n": st.integers(0, 9).map(str)}


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A text file: columns that are well-formed, of one kind or mixed; a few odd lines."""
    size, mark = draw(st.integers(0, 6)), draw(st.sampled_from([",", ",", "\t", ";", "::", "|"]))
    names = (
        draw(st.permutations(list(CELLS)))[: draw(st.integers(2, 6))] if draw(st.integers(0, 4)) == 0 else list(CELLS)
    )
    good = {"s": st.sampled_from("xyz"), "i": st.sampled_from("abcd"), "t": st.just("1600000000"), "u": st.just("p")}
    cells = {name: draw(st.sampled_from([CELLS[name], good.get(name, st.just("1"))])) for name in names}
    rows = [[draw(cells[name]) for name in names] for _ in range(size)]
    if draw(st.booleans()):
        rows = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' if mark in cell else cell for cell in row] for row in rows]
    lines = [mark.join(row) for row in ([names] if draw(st.integers(0, 5)) else []) + rows]
    if draw(st.integers(0, 5)) == 0:
        lines.insert(draw(st.integers(0, len(lines))), draw(st.text(max_size=8)))
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines) + draw(st.sampled_from(["\n", ""]))


OPTIONS = st.builds(
    ReadOptions,
    sep=st.sampled_from([None, None, None, ",", ";", "::", "|"]),
    header=st.sampled_from([True, True, True, False]),
    encoding=st.sampled_from(["utf-8-sig", "utf-8-sig", "latin-1", "utf-16", "nothing"]),
    where=st.sampled_from([{}, {}, {"u": ["p", "1"]}, {"v": "1"}, {"4": "p"}]),
    time_format=st.sampled_from([None, None, None, "s", "D", "ms", "%Y%m%d", "%d.%m.%Y", "%"]),
    drop_bad_rows=st.booleans(),
)
ROLES = st.fixed_dictionaries(
    {
        "item": st.sampled_from(["i", "i", "i", "2"]),
        "session": st.sampled_from(["s", "s", "1", Inactivity(5)]),
        "time": st.sampled_from([None, "t", "t", "3"]),
        "user": st.sampled_from([None, "u", "u", "4"]),
        "value": st.sampled_from([None, "v", "n", ActionWeights("v", {"1": 1, "a": 2, "0": 0})]),
    }
)


def stored(folder: Path, content: str, suffix: str) -> Path:
    """The text in a file, as Parquet if its columns can be written so."""
    path = folder / f"table{suffix}"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    if suffix == ".parquet":
        with suppress(Exception):  # not a table: the text is a broken Parquet file
            pd.read_csv(path, dtype=str).to_parquet(path)
    return path


def one_line(error: gm.InputError) -> None:
    assert type(error) is gm.InputError and "\n" not in str(error) and len(str(error)) < 700, str(error)


def reads_a_log_or_refuses(folder: Path, content: str, suffix: str, options: ReadOptions, roles: dict) -> None:
    path = stored(folder, content, suffix)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", UserWarning)
        try:
            log = gm.EventLog.read(options.of(path), **roles)
        except gm.InputError as error:
            return one_line(error)
        assert log.num_events > 0 and (log.lengths > 0).all() and (log.support > 0).all()
        assert log.session_user is None or (log.session_user >= -1).all() and log.session_user.max() < len(log.users)
        again = gm.EventLog.read(log.to_frame(), **{name: name for name in log.to_frame().columns})
        assert again.num_sessions == log.num_sessions and len(again.items) == log.num_items
        gm.build_graph(log).validate()


def reads_a_table_or_refuses(folder: Path, content: str, suffix: str, options: ReadOptions, kinds: dict) -> None:
    path = stored(folder, content, suffix)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", UserWarning)
        try:
            table = gm.EntityTable.read(options.of(path), key="i" if options.header else "2", **kinds)
            log = gm.EventLog.read(pd.DataFrame({"s": [1, 1], "i": ["a", "1"]}), session="s", item="i", items=table)
        except gm.InputError as error:
            return one_line(error)
        assert all(one.is_consistent(len(table)) for one in table.columns.values()) and len(log.items) == 2
        assert gm.EntityTable.from_json(table.to_json()).fingerprint() == table.fingerprint()


KINDS = st.fixed_dictionaries(
    {
        "types": st.dictionaries(
            st.sampled_from(["v", "n", "u"]), st.sampled_from(["numeric", "vector", "text"]), max_size=2
        ),
        "several": st.sampled_from([{}, {"s": "|"}, {"s": ","}, {"s": ""}]),
        "label": st.sampled_from([None, "t"]),
        "attributes": st.sampled_from([None, [], ["s"], ["x"]]),
    }
)
SUFFIXES = st.sampled_from([".csv", ".csv", ".tsv", ".dat", ".parquet"])


@settings(max_examples=50, deadline=None)
@given(texts(), SUFFIXES, OPTIONS, ROLES)
def test_a_random_file_is_a_log_or_an_input_error(tmp_path_factory, content, suffix, options, roles) -> None:
    reads_a_log_or_refuses(tmp_path_factory.getbasetemp(), content, suffix, options, roles)


@settings(max_examples=50, deadline=None)
@given(texts(), SUFFIXES, OPTIONS, KINDS)
def test_a_random_file_is_an_item_table_or_an_input_error(tmp_path_factory, content, suffix, options, kinds) -> None:
    reads_a_table_or_refuses(tmp_path_factory.getbasetemp(), content, suffix, options, kinds)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts(), SUFFIXES, OPTIONS, ROLES)
def test_2000_random_files_are_logs_or_input_errors(tmp_path_factory, content, suffix, options, roles) -> None:
    reads_a_log_or_refuses(tmp_path_factory.getbasetemp(), content, suffix, options, roles)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts(), SUFFIXES, OPTIONS, KINDS)
def test_2000_random_files_are_item_tables_or_input_errors(tmp_path_factory, content, suffix, options, kinds) -> None:
    reads_a_table_or_refuses(tmp_path_factory.getbasetemp(), content, suffix, options, kinds)


def graph_of(folder: Path, content: str, suffix: str, options: ReadOptions, roles: dict) -> list[str]:
    """The command ``graph`` with the same options."""
    command = ["graph", str(stored(folder, content, suffix)), "--item", roles["item"], "--out", str(folder / "out")]
    given = {"time": roles["time"], "user": roles["user"], "sep": options.sep, "time-format": options.time_format}
    given |= {"encoding": options.encoding, "session": roles["session"] if isinstance(roles["session"], str) else None}
    command += [f"--{name}={value}" for name, value in given.items() if value is not None]
    command += [f"--where={name}={one}" for name, values in options.where.items() for one in values]
    flags = {"--no-header": not options.header, "--drop-bad-rows": options.drop_bad_rows}
    return command + [name for name, on in flags.items() if on]


def writes_all_or_nothing(folder: Path, capsys: pytest.CaptureFixture, *drawn) -> None:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    code = main(graph_of(folder, *drawn))
    told = capsys.readouterr()
    lines = told.err.splitlines()
    assert code in (0, 2)
    if code == 2:
        assert told.out == "" and not out.exists() and lines[-1].startswith("error: ")
        assert all(line.startswith(("note: ", "filters")) for line in lines[:-1])
    else:
        assert (out / "graph.json").is_file() and lines[-1].startswith("written: ")


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time of the command."""
    monkeypatch.setattr(session_graph, "neighbourhood", lambda graph, centre, path, **_: None)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts(), SUFFIXES, OPTIONS, ROLES)
def test_the_command_line_writes_all_or_nothing(tmp_path_factory, no_picture, capsys, content, suffix, options, roles):
    writes_all_or_nothing(tmp_path_factory.getbasetemp(), capsys, content, suffix, options, roles)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts(), SUFFIXES, OPTIONS, ROLES)
def test_the_command_line_writes_all_or_nothing_2000(
    tmp_path_factory, no_picture, capsys, content, suffix, options, roles
) -> None:
    writes_all_or_nothing(tmp_path_factory.getbasetemp(), capsys, content, suffix, options, roles)
