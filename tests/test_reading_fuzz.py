"""Random files are a log or a table, or the library's own error in one line; refused commands leave nothing behind."""

import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

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


NAMES = {"s": "1", "i": "2", "t": "3", "u": "4", "v": "5", "n": "6"}
GOOD = {"s": st.sampled_from("xyz"), "i": st.sampled_from("abcd"), "u": st.sampled_from(["p", "q", ""])}
ODDITIES = ["no header", "sep", "encoding", "where", "format", "line", "columns", "inactivity", "other roles", "quotes"]


class Case(NamedTuple):
    """A file, and how it is read."""

    content: str
    suffix: str
    options: ReadOptions
    roles: dict


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A file that can be read, but for a few odd cells and at most two oddities."""
    odd = set(draw(st.lists(st.sampled_from([None, *ODDITIES]), max_size=2)))
    strange = draw(st.lists(st.sampled_from(list(CELLS)), max_size=2))
    time = draw(st.sampled_from([st.integers(1_600_000_000, 1_600_000_009).map(str), st.just("20200101")]))
    good = {**GOOD, "t": time, "v": st.integers(0, 9).map(str), "n": CELLS["n"]}
    mark = draw(st.sampled_from([",", ",", "\t", ";", "::"]))
    names = draw(st.permutations(list(CELLS)))[:4] if "columns" in odd else list(CELLS)
    cells = {name: CELLS[name] if name in strange else good[name] for name in names}
    rows = [[draw(cells[name]) for name in names] for _ in range(draw(st.integers(1, 6)))]
    if draw(st.booleans()) or "quotes" in odd:
        rows = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' if mark in cell else cell for cell in row] for row in rows]
    header = [] if "no header" in odd else [names]
    lines = [mark.join(row) for row in header + rows]
    if "line" in odd:
        lines.insert(draw(st.integers(0, len(lines))), draw(st.text(max_size=8)))
    content = draw(st.sampled_from(["\n", "\r\n"])).join(lines) + draw(st.sampled_from(["\n", ""]))
    options = ReadOptions(
        sep=draw(st.sampled_from([",", ";", "::", "|"])) if "sep" in odd else None,
        header="no header" not in odd or draw(st.booleans()),
        encoding=draw(st.sampled_from(["latin-1", "utf-16", "nothing"])) if "encoding" in odd else "utf-8-sig",
        where=draw(st.sampled_from([{"u": ["p", "1"]}, {"v": "1"}, {"4": "p"}])) if "where" in odd else {},
        time_format=draw(st.sampled_from(["s", "D", "ms", "%Y%m%d", "%d.%m.%Y", "%y%j"])) if "format" in odd else None,
        drop_bad_rows=draw(st.booleans()),
    )
    called = dict if options.header else (lambda **roles: {k: NAMES.get(v, v) for k, v in roles.items()})
    user = draw(st.sampled_from([None, None, "u"])) if "inactivity" not in odd else "u"
    roles = called(item="i", session="s", time=draw(st.sampled_from(["t", "t", None])), user=user)
    if "inactivity" in odd:
        roles["session"] = Inactivity(5)
    if "other roles" in odd:
        weights = ActionWeights("v", {"1": 1, "2": 2, "3": 3})
        roles |= {"value": draw(st.sampled_from(["v", "n", weights])), "item": draw(st.sampled_from(["i", "2", "n"]))}
    suffix = draw(st.sampled_from([".csv", ".csv", ".tsv", ".dat", ".parquet"] if mark == "," else [".csv", ".dat"]))
    return Case(content, suffix, options, roles)


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


def reads_a_log_or_refuses(folder: Path, case: Case) -> None:
    path = stored(folder, case.content, case.suffix)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", UserWarning)
        try:
            log = gm.EventLog.read(case.options.of(path), **case.roles)
        except gm.InputError as error:
            return one_line(error)
        assert log.num_events > 0 and (log.lengths > 0).all() and (log.support > 0).all()
        assert log.session_user is None or (log.session_user >= -1).all() and log.session_user.max() < len(log.users)
        again = gm.EventLog.read(log.to_frame(), **{name: name for name in log.to_frame().columns})
        assert again.num_sessions == log.num_sessions and len(again.items) == log.num_items
        gm.build_graph(log).validate()


def reads_a_table_or_refuses(folder: Path, case: Case, kinds: dict) -> None:
    path, options = stored(folder, case.content, case.suffix), case.options
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


@settings(max_examples=50, deadline=None)
@given(cases())
def test_a_random_file_is_a_log_or_an_input_error(tmp_path_factory, case) -> None:
    reads_a_log_or_refuses(tmp_path_factory.getbasetemp(), case)


@settings(max_examples=50, deadline=None)
@given(cases(), KINDS)
def test_a_random_file_is_an_item_table_or_an_input_error(tmp_path_factory, case, kinds) -> None:
    reads_a_table_or_refuses(tmp_path_factory.getbasetemp(), case, kinds)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_2000_random_files_are_logs_or_input_errors(tmp_path_factory, case) -> None:
    reads_a_log_or_refuses(tmp_path_factory.getbasetemp(), case)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases(), KINDS)
def test_2000_random_files_are_item_tables_or_input_errors(tmp_path_factory, case, kinds) -> None:
    reads_a_table_or_refuses(tmp_path_factory.getbasetemp(), case, kinds)


def graph_of(folder: Path, case: Case) -> list[str]:
    """The command ``graph`` with the same options."""
    options, roles = case.options, case.roles
    command = [
        "graph",
        str(stored(folder, case.content, case.suffix)),
        "--item",
        roles["item"],
        "--out",
        str(folder / "out"),
    ]
    given = {"time": roles["time"], "user": roles["user"], "sep": options.sep, "time-format": options.time_format}
    given |= {"encoding": options.encoding, "session": roles["session"] if isinstance(roles["session"], str) else None}
    command += [f"--{name}={value}" for name, value in given.items() if value is not None]
    command += [f"--where={name}={one}" for name, values in options.where.items() for one in values]
    flags = {"--no-header": not options.header, "--drop-bad-rows": options.drop_bad_rows}
    return command + [name for name, on in flags.items() if on]


def writes_all_or_nothing(folder: Path, capsys: pytest.CaptureFixture, case: Case) -> None:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    code = main(graph_of(folder, case))
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


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases())
def test_the_command_line_writes_all_or_nothing(tmp_path_factory, no_picture, capsys, case):
    writes_all_or_nothing(tmp_path_factory.getbasetemp(), capsys, case)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_the_command_line_writes_all_or_nothing_2000(tmp_path_factory, no_picture, capsys, case) -> None:
    writes_all_or_nothing(tmp_path_factory.getbasetemp(), capsys, case)
