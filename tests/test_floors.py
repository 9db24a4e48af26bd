"""The library is built in floors: a module imports only from below. And no file, no function grows too long."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "graphmeta"
MODULES = sorted(ROOT.rglob("*.py"))

# From the ground up. A package is one part, whose own modules may import each other; parts of one floor may not.
FLOORS = [
    ["errors", "padding"],
    ["columns"],
    ["tables"],
    ["events", "reviews"],
    ["splits", "metrics", "storage"],
    ["graph", "batch", "cross_domain", "recipe"],
    ["histories", "tasks", "asking"],
    ["nn", "scenarios"],
    ["recommender"],
    ["adapt"],
    ["system"],
    ["evaluate", "checking"],
    ["train", "neighbours", "curves"],
    ["retrain", "stages"],
    ["published"],
    ["datasets", "testing"],
    ["rating_datasets", "review_datasets"],
    ["report"],
    ["card", "plots", "plan"],
    ["job", "stream_plots", "aspects"],
    ["stream_job"],
    ["console", "options", "serve"],
    ["cli"],
    ["__main__", "__init__"],
]
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}

UNSAFE = ["pickle.load", "import pickle", "weights_only=False", "fs.torch_load", "InMemoryDataset"]
UNSAFE_CALLS = {"eval", "exec", "compile", "os.system", "os.popen"}
LONGEST_FILE, LONGEST_FUNCTION = 350, 60


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def part_of(path: Path) -> str:
    """``adapt`` for graphmeta/adapt/weight.py, ``batch`` for graphmeta/batch.py."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs, at import or later; not what stands under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(tree):
        if is_for_types_only(child):
            yield from statements(ast.Module(child.orelse, []))
        else:
            yield child
            yield from statements(child)


def imported_parts(source: str) -> set[str]:
    found = set()
    for node in statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the floor"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= set(names) if node.module == "graphmeta" else {str(node.module)}
    return {name.split(".")[1] for name in found if name.startswith("graphmeta.")}


def too_long(source: str) -> list[str]:
    """Functions of more lines than allowed, the docstring not counted."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            if lines > LONGEST_FUNCTION:
                found.append(f"{node.name}: {lines} lines")
    return found


def upward(part: str, source: str) -> set[str]:
    """What a module of this part imports and should not."""
    return {other for other in imported_parts(source) if other != part and FLOOR[other] >= FLOOR[part]}


def test_every_part_has_its_floor() -> None:
    assert {part_of(path) for path in MODULES} <= set(FLOOR)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_downwards(path: Path) -> None:
    assert upward(part_of(path), path.read_text()) == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_that_can_run_foreign_code(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not [word for word in UNSAFE if word in ast.unparse(tree)]
    assert not UNSAFE_CALLS & {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_file_and_no_function_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE
    assert too_long(path.read_text()) == []


@pytest.mark.parametrize(
    ("part", "source", "found"),
    [
        ("events", "from graphmeta.batch import NEXT", {"batch"}),
        ("events", "import graphmeta.batch", {"batch"}),
        ("events", "from graphmeta import batch, tables", {"batch"}),
        ("events", "def f():\n    from graphmeta.nn.graph import X", {"nn"}),
        ("graph", "from graphmeta.batch import NEXT", {"batch"}),
        ("batch", "from graphmeta.events import EventLog", set()),
        ("adapt", "from graphmeta.adapt.stacked.task_weight import TaskWeight", set()),
        ("nn", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from graphmeta.system import System", set()),
        ("nn", "if TYPE_CHECKING:\n    pass\nelse:\n    from graphmeta.system import System", {"system"}),
    ],
)
def test_the_check_itself(part: str, source: str, found: set[str]) -> None:
    assert upward(part, source) == found


def test_the_check_of_lengths_itself() -> None:
    body = '    """One\n    two\n    """\n' + "    x = 1\n" * 59
    assert too_long("def f():\n" + body) == []
    assert too_long("def f():\n" + body + "    x = 2\n") == ["f: 61 lines"]
