"""Messages: counts with the right noun, options of the command line alone in its messages, one line each."""

import ast
import re
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graphmeta.cli import console
from graphmeta.cli.commands import main
from graphmeta.cli.wording import for_command_line
from graphmeta.data.events import EventLog
from graphmeta.data.graph import build_graph
from graphmeta.data.read_options import ReadOptions
from graphmeta.data.splits import split_by_time
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.evaluation import protocol
from graphmeta.evaluation.metrics import Ranks
from graphmeta.evaluation.protocol import Rules, cut
from graphmeta.evaluation.result import LeftOut, Result

LIBRARY = sorted((Path(__file__).parents[1] / "graphmeta").rglob("*.py"))
# A call, an argument, a class, or an option by both names.
PYTHON = re.compile(r"\w\(|\b[a-z_]+=(?:['{\[(,);]|True|False|None|$)|\b[A-Z][a-z]+[A-Z]\w*|\bgm\.|\w, --")
ONE = re.compile(r"\b1 (?:test |earlier |candidate |known )?(?!is\b|has\b|was\b)[a-z]+s\b")


def written(node: ast.AST) -> str:
    """A text as it is written, the values of an f-string as ``{,}`` (a count) or ``{}``."""
    if isinstance(node, ast.FormattedValue):
        return "{,}" if node.format_spec is not None and written(node.format_spec).endswith(",") else "{}"
    return "".join(map(written, node.values)) if isinstance(node, ast.JoinedStr) else str(node.value)


@cache
def texts(path: Path) -> list[str]:
    """The texts of a file."""
    found, left = [], [ast.parse(path.read_text())]
    while left:
        node = left.pop()
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            found.append(written(node))
        else:
            left.extend(ast.iter_child_nodes(node))
    return found


def test_counts_have_their_noun_in_singular_and_plural() -> None:
    """A count directly before a plural is "1 clicks" for one; ``counted`` has both forms."""
    plural = re.compile(r"\{,\} (?:[a-z]+ ){0,2}?(?!has\b|is\b|begins\b)[a-z]+s\b")
    found = {path.name: one for path in LIBRARY for text in texts(path) for one in plural.findall(text)}
    assert found == {}


def test_options_of_the_command_line_replace_those_of_python() -> None:
    messages = [
        text for path in LIBRARY if "cli" not in path.parts for text in texts(path) if re.search(r" --\w", text)
    ]
    named = [text for text in messages if "\n" not in text]
    assert len(named) > 15
    for message in named:
        shown = for_command_line(message.replace("{}", "x"))
        assert "--" in shown and not PYTHON.search(shown.split("; ", 1)[-1]), shown


WRONG = {
    "the time": ["--time", "t"],
    "a format": ["--time", "day", "--time-format", "%Y"],
    "no column": ["--time", "when"],
    "a separator": ["--sep", "|"],
    "a condition": ["--where", "day=never"],
    "no header": ["--no-header"],
    "an encoding": ["--encoding", "utf-16"],
    "a system": ["--system", "SR-GNN"],
    "another system": ["--system", "bpr_mf"],
    "shares": ["--test", "2"],
    "a negative share": ["--test", "-0.1"],
}


@pytest.mark.parametrize("options", WRONG.values(), ids=WRONG)
def test_errors_of_commands_do_not_name_python(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [(s, f"i{n}", "soon", "01.02.2020") for s in range(6) for n in range(3)]
    pd.DataFrame(rows, columns=["s", "i", "t", "day"]).to_csv(tmp_path / "log.csv", index=False)
    command = ["fit", str(tmp_path / "log.csv"), "--session", "s", "--item", "i", "--out", str(tmp_path / "out")]
    assert main([*command, *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1].replace(str(tmp_path), "")
    assert error.startswith("error: ") and not PYTHON.search(error), error


def test_the_output_of_counts_of_one(capsys: pytest.CaptureFixture) -> None:
    frame = pd.DataFrame({"s": [1], "i": ["a"], "t": [1.6e9], "u": ["p"]})
    one = EventLog.read(frame, session="s", item="i", time="t", user="u")
    result = Result(
        {"hit@5": 1.0, "mrr@5": 1.0}, {"context length": {}}, 1, 1, 0.0, Ranks.empty(1), left_out=LeftOut(1, 1)
    )
    print(repr(one), result, console.left_out(one, one, Rules(min_item_support=1)))
    console.results({"system": result}, "sr_gnn")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        twice = pd.DataFrame({"s": [1, 1], "i": ["a", "a"], "t": [1.6e9, 1.6e9]})
        EventLog.read(twice, session="s", item="i", time="t")
        EventLog.read(twice.assign(n=[0, 1]), session="s", item="i", time="t")
        EventLog.read(
            ReadOptions(drop_bad_rows=True).of(twice.assign(t=[1.6e9, np.nan])), session="s", item="i", time="t"
        )
    said = capsys.readouterr().out + "\n".join(str(one.message) for one in told)
    assert len(told) == 3 and "1 event" in said and not ONE.findall(said)


@pytest.mark.parametrize("strange", ["a\x85", "a\x0bb", "a\u2028b", "\x1b[31ma", "a\x00b"])
def test_ids_with_control_characters_are_printed_on_one_line(
    strange: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    frame = pd.DataFrame({"s": [strange, strange], "i": ["x", "y"]})
    frame.to_parquet(tmp_path / "log.parquet")
    command = ["graph", str(tmp_path / "log.parquet"), "--session", "s", "--item", "i", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("written: ") and all(line.isprintable() for line in told)
    console.table("", ["", ""], [(strange, strange)])
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_statistics_count_the_values_of_attributes_without_the_unknown_one(capsys: pytest.CaptureFixture) -> None:
    columns = {"kind": ["A", "B", ""], "tags": ["x|y", "y", ""]}
    items = EntityTable.read(pd.DataFrame({"i": ["a", "b", "c"], **columns}), key="i", several={"tags": "|"})
    log = EventLog.read(pd.DataFrame({"s": [1, 1, 1], "i": ["a", "b", "c"]}), session="s", item="i", items=items)
    console.statistics(build_graph(log), "")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["kind", "nodes", "2"] in rows and ["tags", "nodes", "2"] in rows
    assert ["item", "nodes", "3"] in rows and ["item", "has", "tags", "edges", "3"] in rows


def test_sizes_have_the_number_of_test_sessions_that_are_scored() -> None:
    """Sessions whose items are in training but for one cannot be scored."""
    rows = [(s, i, 100 * s + n) for s in range(20) for n, i in enumerate("abc")]
    rows += [(s, i, 100 * s + n) for s in range(20, 24) for n, i in enumerate("a" if s < 22 else "abc")]
    rows += [(s, i, 100 * s + 9) for s, i in ((20, "new"), (21, "new"))]
    log = EventLog.read(pd.DataFrame(rows, columns=["s", "i", "t"]), session="s", item="i", time="t")
    rules = Rules(test=4 / 24, valid=2 / 24, min_item_support=1)
    split = cut(log, rules)
    assert split.test.num_sessions == 4 and len(protocol.test_queries(split.test, rules)) == 2
    told = console.sizes(log, split, rules)
    assert "4 to test (2 of them with 2 or more clicks on items known from training, which are scored)" in told
    assert "later clicks on items without training events, which are ignored: 2" in told
    whole = split_by_time(log.of_sessions(np.arange(log.num_sessions) < 20), test=0.1, valid=0.1)
    assert "2 to test; 3 candidate items" in console.sizes(log, whole, rules)


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("s;i;t\n1;a,b;3\n", "|", "';'"),
        ("s;i;t\n1;a,b,c,d;3\n", ",", "';'"),
        ("s,i\n1,a;b\n", ";", "','"),
        ("s::i::t\n1::a::3\n1::b:c::4\n", ":", "'::'"),
        ("s::i::t\n1::a::3\n", ",", "'::'"),
        ("s~i\n1~a\n", None, "'~'"),
        ("s i\n1 a\n", None, "' '"),
        ("s\ti\n1\ta\n", ";", r"'\\t'"),
    ],
)
def test_a_wrong_separator_is_named_with_the_likely_one(
    text: str, given: str | None, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(InputError, match=f"its separator may be {expected}: ReadOptions.sep={expected}. .--sep"):
        EventLog.read(ReadOptions(sep=given).of(tmp_path / "log.csv"), session="s", item="i")
    mark = ast.literal_eval(expected.replace("\\\\", "\\"))
    assert EventLog.read(ReadOptions(sep=mark).of(tmp_path / "log.csv"), session="s", item="i").num_events > 0
