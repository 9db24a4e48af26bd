"""Type checkers know the options of a published system's function, through its decorator (a ``ParamSpec``)."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SNIPPET = """
import graphmeta as gm
from graphmeta.adapt.inner import InnerLoop
from graphmeta.data.tables import EntityTable
from graphmeta.published.models.cbml import cbml
from graphmeta.published.models.session import sr_gnn


def build(items: EntityTable) -> gm.System:
    sr_gnn()  # missing
    sr_gnn(items, widht=8)  # unknown
    sr_gnn(items, width="8")  # type
    sr_gnn("items")  # type
    cbml(items)  # type
    cbml(sr_gnn(items), clusters="8")  # type
    gm.fit(items)  # type
    sr_gnn(items, width=8).recommend(["sku1"], k=5)
    return cbml(sr_gnn(items), clusters=8, inner=InnerLoop(steps=2))
"""
RULES = {"missing": "reportCallIssue", "unknown": "reportCallIssue", "type": "reportArgumentType"}


@pytest.mark.skipif(shutil.which("node") is None, reason="pyright needs Node.js")
def test_wrong_arguments_of_a_published_function_are_found_by_pyright(tmp_path: Path) -> None:
    pytest.importorskip("pyright", reason="extra dev")
    (tmp_path / "snippet.py").write_text(SNIPPET)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    ended = subprocess.run([*command, "-p", str(tmp_path)], capture_output=True, text=True)
    found = json.loads(ended.stdout)["generalDiagnostics"]
    rules = {one["range"]["start"]["line"]: one["rule"] for one in found}
    lines = [line.rpartition("# ")[2] for line in SNIPPET.splitlines()]
    assert rules == {number: RULES[mark] for number, mark in enumerate(lines) if mark in RULES}, found
