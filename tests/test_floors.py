"""The library is built in floors: a module imports only from below, in no circle; files and functions stay short."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1] / "graphmeta"
MODULES = sorted(ROOT.rglob("*.py"))

# From the ground up. Modules of one package may import each other, but in no circle; parts of one floor may not.
FLOORS = [
    ["errors", "build_spec", "processors"],
    ["protocols", "storage"],
    ["distributed"],
    ["data"],
    ["sampling"],
    ["baselines"],
    ["nn"],
    ["recommender"],
    ["adapt"],
    ["inference"],
    ["system"],
    ["evaluation"],
    ["training"],
    ["retrain"],
    ["published"],
    ["datasets", "testing"],
    ["plots"],
    ["serving"],
    ["cli"],
    ["__main__", "__init__"],
]
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}

UNSAFE = ["pickle.load", "import pickle", "weights_only=False", "fs.torch_load", "InMemoryDataset"]
UNSAFE_CALLS = {"eval", "exec", "compile", "os.system", "os.popen"}
ROOMS = 27  # entries of graphmeta/, packages and modules
SHORT_FILE, LONGEST_FUNCTION = 250, 60  # nine files in ten are short


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    """``graphmeta.adapt.step`` for graphmeta/adapt/step.py, ``graphmeta.adapt`` for graphmeta/adapt/__init__.py."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def part_of(module: str) -> str:
    """``adapt`` for ``graphmeta.adapt.step``."""
    return [*module.split("."), "__init__"][1]


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


NAMES = {module_of(path): path for path in MODULES}


def tables(tree: ast.Module) -> dict[str, set[str]]:
    """The values of each literal dictionary of text at the top of a module, such as where a lazy name lives."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            values = [value.value if isinstance(value, ast.Constant) else None for value in node.value.values]
            if all(isinstance(value, str) for value in values):
                found[ast.unparse(node.targets[0])] = set(values)
    return found


def named(call: ast.Call, known: dict[str, set[str]]) -> set[str]:
    """The modules that ``import_module`` may mean: a literal name, any entry of a literal table, or a package."""
    name = call.args[0]
    if isinstance(name, ast.Subscript) and ast.unparse(name.value) in known:
        return known[ast.unparse(name.value)]
    if isinstance(name, ast.JoinedStr) and isinstance(name.values[0], ast.Constant):  # modules of one package
        package = str(name.values[0].value)
        assert package.endswith("."), "an import by a computed name hides the floor"
        return {package.rstrip(".")}
    assert isinstance(name, ast.Constant), "an import by a computed name hides the floor"
    return {str(name.value)}


def imported(source: str) -> set[str]:
    """The modules of the library that a source imports, at once or later, by statement or by ``import_module``."""
    found, tree = set(), ast.parse(source)
    for node in statements(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the floor"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in NAMES or node.module == "graphmeta" else str(node.module))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            found |= named(node, tables(tree))
    return {name for name in found if name.startswith("graphmeta.")}


def upward(part: str, source: str) -> set[str]:
    """The parts that a module of this part imports and should not."""
    return {other for other in map(part_of, imported(source)) if other != part and FLOOR[other] >= FLOOR[part]}


def circles(graph: dict[str, set[str]]) -> set[str]:
    """The modules that import each other in a circle: what is left when all that import nothing left are taken away."""
    left = dict(graph)
    while True:
        free = [name for name, others in left.items() if not others & left.keys()]
        if not free:
            return set(left)
        for name in free:
            del left[name]


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


def test_every_part_has_its_floor() -> None:
    assert set(map(part_of, NAMES)) <= set(FLOOR)


def test_the_rooms_can_be_counted() -> None:
    assert len(set(map(part_of, NAMES))) <= ROOMS


def faults(check: Callable[[Path], object]) -> dict[str, object]:
    """What a check finds in each module, those without a finding left out."""
    return {name_of(path): found for path in MODULES if (found := check(path))}


def test_imports_go_downwards() -> None:
    assert faults(lambda path: upward(part_of(module_of(path)), path.read_text())) == {}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles({name: imported(path.read_text()) - {name} for name, path in NAMES.items()}) == set()


def unsafe(source: str) -> set[str]:
    """What can run foreign code: words of the source without its comments, and functions that it calls."""
    tree = ast.parse(source)
    text, calls = ast.unparse(tree), [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {word for word in UNSAFE if word in text} | UNSAFE_CALLS & {ast.unparse(node.func) for node in calls}


def test_nothing_that_can_run_foreign_code() -> None:
    assert faults(lambda path: unsafe(path.read_text())) == {}


def test_no_function_is_too_long() -> None:
    assert faults(lambda path: too_long(path.read_text())) == {}


def test_nine_files_in_ten_are_short() -> None:
    lengths = [len(path.read_text().splitlines()) for path in MODULES if path.read_text()]
    assert np.percentile(lengths, 90) <= SHORT_FILE


@pytest.mark.parametrize(
    ("part", "source", "found"),
    [
        ("data", "from graphmeta.sampling.batch_rows import NEXT", {"sampling"}),
        ("data", "import graphmeta.sampling.batch_rows", {"sampling"}),
        ("data", "from graphmeta import sampling, errors", {"sampling"}),
        ("data", "def f():\n    from graphmeta.nn.encoders.gated_graph import X", {"nn"}),
        ("data", "def f():\n    import_module('graphmeta.nn.encoders.gated_graph')", {"nn"}),
        ("storage", "from graphmeta.protocols import Scorer", {"protocols"}),
        ("sampling", "from graphmeta.data.events import EventLog", set()),
        ("adapt", "from graphmeta.adapt.stacked.task_weight import TaskWeight", set()),
        ("nn", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from graphmeta.system import System", set()),
        ("nn", "if TYPE_CHECKING:\n    pass\nelse:\n    from graphmeta.system import System", {"system"}),
    ],
)
def test_the_check_itself(part: str, source: str, found: set[str]) -> None:
    assert upward(part, source) == found


def test_the_check_reads_tables_of_lazy_names_and_refuses_computed_ones() -> None:
    table = "A = {'x': 'graphmeta.nn.readout', 'y': 'graphmeta.data'}\n"
    assert imported(table + "def f(x):\n    import_module(A[x])") == {"graphmeta.nn.readout", "graphmeta.data"}
    assert len(imported((ROOT / "__init__.py").read_text())) > 20
    for hidden in ("import_module(x)", "import_module(B[x])", "import_module('graphmeta.' + x)"):
        with pytest.raises(AssertionError, match="computed name"):
            imported(table + hidden)


def test_the_check_of_foreign_code_itself() -> None:
    assert unsafe("import pickle\nos.system('x')  # eval(x)") == {"import pickle", "os.system"}
    assert unsafe("x.compile(y)") == set()


def test_the_check_of_circles_itself() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == set()
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == {"a", "b", "c"}


def test_the_check_of_lengths_itself() -> None:
    body = '    """One\n    two\n    """\n' + "    x = 1\n" * 59
    assert too_long("def f():\n" + body) == []
    assert too_long("def f():\n" + body + "    x = 2\n") == ["f: 61 lines"]
