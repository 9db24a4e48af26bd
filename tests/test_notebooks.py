"""The notebooks: each is its text form, and runs from top to bottom."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.md"))


def code(text: str) -> list[str]:
    """The blocks of code of a text form."""
    return [block.strip() for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_its_text_form(name: str) -> None:
    """Otherwise run ``jupytext --to ipynb --execute examples/notebooks/NAME.md``."""
    import json

    cells = json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]
    shown = ["".join(cell["source"]).strip() for cell in cells if cell["cell_type"] == "code"]
    assert shown == code((FOLDER / f"{name}.md").read_text())
    assert all(cell["execution_count"] for cell in cells if cell["cell_type"] == "code"), "not executed"
    assert not [out for cell in cells for out in cell.get("outputs", []) if out["output_type"] == "error"]


def test_every_notebook_has_a_text_form() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES) and len(NAMES) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    jupytext = pytest.importorskip("jupytext")
    from nbclient import NotebookClient

    notebook = jupytext.read(FOLDER / f"{name}.md")
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all(cell["execution_count"] for cell in notebook.cells if cell["cell_type"] == "code")
