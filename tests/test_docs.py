"""The site: every block of code runs, links and pictures exist, and pages are made for all systems and data sets."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import graphmeta as gm
from graphmeta.cli.commands import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
# Run by tests of their own; docs/api.md by test_front_door.py. Layers and serving have no Python.
RUN = [page for page in PAGES if page.startswith(("guides/", "concepts/")) or page in ("quickstart.md", "onepage.md")]
BLOCK = re.compile(r"^```([a-z]*)[^\n]*\n(.*?)^```", re.M | re.S)
# Not run: they install, build, download, serve until they are stopped, or take long.
LONG = ("pip ", "git ", "make ", "python -m ", "graphmeta serve", "MAX_JOBS", "curl", "docker", "export ", "source ")


def blocks(page: str) -> list[tuple[str, str]]:
    """The language and text of each block of code of a page."""
    return BLOCK.findall((DOCS / page).read_text())


@pytest.mark.parametrize("page", RUN)
def test_blocks_have_a_language_and_what_is_not_run_cannot_be(page: str) -> None:
    for kind, text in blocks(page):
        assert kind in {"python", "bash", "console", "text"}, text
        if kind == "python":
            compile(text, page, "exec")
        if kind == "console":
            lines = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
            assert all(re.sub(r"^\w+=\S+ ", "", line).startswith(LONG) or line.startswith(LONG) for line in lines), text


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_every_block_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order and in one folder, with small files of the names that the pages use."""
    monkeypatch.chdir(tmp_path)
    write_files()
    small(monkeypatch)
    for name, text in re.findall(r'^```python title="(\S+)"\n(.*?)^```', (DOCS / page).read_text(), re.M | re.S):
        Path(name).write_text(text)
    names: dict[str, object] = {"__name__": "__main__"}
    for kind, text in blocks(page):
        if kind == "python":
            exec(compile(text, page, "exec"), names)
        elif kind == "bash":
            shell(text)


def shell(text: str) -> None:
    """Run the commands of a block."""
    for line in text.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line, comments=True) or [""]
        assert program in ("", "graphmeta"), f"{line}: only graphmeta is run; mark the block as console"
        assert not program or main(arguments) == 0, line


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the bundled dataset is enough to run every line."""
    weeks = gm.datasets.complete_journey()
    weeks = weeks.before(float(weeks.starts[2500]))
    part = weeks.of_sessions(weeks.session_user % 3 == 0)
    monkeypatch.setattr(gm.datasets, "complete_journey", lambda: part)


def write_files() -> None:
    """Visits that walk a ring of 30 items; five more items have no event."""
    visit, step = np.repeat(np.arange(240), 5), np.tile(np.arange(5), 240)
    start = np.random.default_rng(0).integers(0, 30, 240)[visit]
    frame = pd.DataFrame(
        {
            "visit": [f"v{n}" for n in visit],
            "sku": [f"sku{n}" for n in (start + step) % 30],
            "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(3600 * visit + 60 * step, unit="s"),
            "who": np.array(["anna", *(f"user{n}" for n in range(1, 20))])[visit % 20],
        }
    )
    frame[visit < 200].to_csv("clicks.csv", index=False)
    frame[visit >= 200].to_csv("tomorrow.csv", index=False)
    items = {"sku": [f"sku{n}" for n in range(35)], "category": [f"c{n % 5}" for n in range(35)]}
    pd.DataFrame({**items, "brand": [f"b{n % 4}" for n in range(35)]}).to_csv("products.csv", index=False)
    Path("in_stock.txt").write_text("\n".join(f"sku{n}" for n in range(20)))


@pytest.mark.parametrize("page", [*PAGES, "../README.md", "../RESULTS.md", "../.github/CONTRIBUTING.md"])
def test_links_to_files_and_pictures_exist(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (DOCS / page).read_text(), flags=re.M | re.S)
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    made = ("catalogue/", "results/", "reference/", "../catalogue/", "../results/", "../reference/", "data.md")
    for target in targets:
        if not re.match(r"[a-z]+:", target) and not target.startswith(made):
            assert (DOCS / page).parent.joinpath(target).exists(), f"{page}: {target}"
    for alternative, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text):
        assert len(alternative) >= 20, f"{page}: {target} has no text for readers who do not see it"


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 100
    loaded = re.compile(
        r"<(?:script|img|iframe)[^>]+src=\"?(https?:[^\"> ]+)"
        r"|<link[^>]+rel=\"?(?:stylesheet|preconnect|icon)[^>]+href=\"?(https?:[^\"> ]+)"
    )
    assert [(page.name, found) for page in pages for found in loaded.findall(page.read_text())] == []


def test_docstrings_are_indented_as_one_block() -> None:
    """A second line that is indented more than the first makes a block of code of the rest."""
    broken = []
    for path in sorted((ROOT / "graphmeta").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                lines = (ast.get_docstring(node) or "").splitlines()
                if len(lines) > 1 and lines[1].startswith(" "):
                    broken.append(f"{path.relative_to(ROOT)}: {lines[0]}")
    assert broken == []


def test_every_system_and_data_set_has_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """With equations of all systems that name some, options of all in the catalogue, and their rows."""
    monkeypatch.syspath_prepend(str(DOCS / "make"))
    roles = type(sys)("roles")
    roles.markdown = lambda text: text.replace("``", "`")  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "roles", roles)
    catalogue = importlib.import_module("catalogue")
    made = catalogue.pages()
    assert {f"catalogue/{row.name}.md" for row in gm.systems()} < made.keys()
    for row in gm.systems():
        page = made[f"catalogue/{row.name}.md"]
        assert "## Results" in page and row.paper in page
        assert row.kind not in ("next item", "rating") or "## Options" in page
    assert "| [Diginetica](../results/diginetica.md) | sr-gnn |" in made["catalogue/sr_gnn.md"]
    seeds = re.findall(r"\| (?:diginetica|yoochoose1_64)[^\n]*± (\d+\.\d+)[^\n]*\n", made["catalogue/item_knn.md"])
    assert all(float(one) < 2 for one in seeds)  # one protocol's rows only
    assert "score(i) = " in made["catalogue/item_knn.md"]
    results = importlib.import_module("benchmarks.pages").pages()
    assert {"diginetica", "complete_journey", "tafeng"} < results.keys()
    assert all("## " in text for text in results.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["overview", "tasks", "adaptation", "periods"])
def test_the_diagrams_are_drawn_without_texts_over_each_other(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    monkeypatch.syspath_prepend(str(DOCS / "make"))
    figures = importlib.import_module("figures")
    drawn, save = [], figures.save
    monkeypatch.setattr(figures, "save", lambda picture, path: (drawn.append(picture), save(picture, path)))
    getattr(figures, name)(tmp_path)
    assert (DOCS / "pictures" / f"{name}.png").exists() and len(list(tmp_path.glob("*.png"))) == 1
    FigureCanvasAgg(drawn[0]).draw()
    boxes = [text.get_window_extent() for text in drawn[0].axes[0].texts if text.get_text()]
    whole = drawn[0].bbox
    assert all(box.x0 >= 0 and box.x1 <= whole.x1 and box.y0 >= 0 and box.y1 <= whole.y1 for box in boxes)
    assert not [(a, b) for at, a in enumerate(boxes) for b in boxes[at + 1 :] if a.overlaps(b)]
