"""Pages of the site that are made when it is built: home, catalogue, results, reference, examples, changelog.

MkDocs calls the functions named ``on_…``. Nothing is written into the repository.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import catalogue  # noqa: E402
import reference  # noqa: E402

from benchmarks import pages  # noqa: E402

# Files of the repository that are pages of the site, by their path.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    ".github/CONTRIBUTING.md": "contributing.md",
    "data/README.md": "data.md",
    "data/complete_journey/README.md": "complete_journey.md",
    "RESULTS.md": "results/index.md",
}
LINK = re.compile(r"(\[(?:[^\]\[]|\[[^\]]*\])*\])\(([^)\s#]+)(#[^)\s]*)?\)")
# Guides beside docs/guides, in the order of the navigation.
GUIDES = ("auditing", "serving", "scaling", "distributed", "fidelity")


def on_config(config: MkDocsConfig) -> None:
    """Add the generated pages to the navigation."""
    nav: list[dict[str, Any]] = config["nav"]
    parts = {title: part for entry in nav for title, part in entry.items()}
    found = sorted(
        {path.stem for path in (ROOT / "docs").glob("*.md")}
        - {"quickstart", "onepage", "faq", "api", "layers", "benchmarks"}
    )
    order = {name: number for number, name in enumerate(GUIDES)}
    parts["Guides"] += [f"{name}.md" for name in sorted(found, key=lambda name: (order.get(name, len(order)), name))]
    parts["Project"] += ["examples.md", "data.md", "complete_journey.md", "changelog.md", "contributing.md"]
    nav.insert(-1, {"Catalogue": catalogue.navigation()})
    nav.insert(
        -1,
        {
            "Results": [
                "results/index.md",
                "results/findings.md",
                *({title: f"results/{name}.md"} for name, title in pages.titles().items()),
            ]
        },
    )
    nav.insert(-1, {"Reference": ["api.md", *reference.navigation(), "layers.md"]})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the generated pages and pictures."""
    texts = {page: (ROOT / source).read_text() for source, page in PAGES.items()}
    texts |= catalogue.pages() | reference.pages() | {"examples.md": examples()}
    texts |= {f"results/{name}.md": text for name, text in pages.pages().items()}
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    for picture in (ROOT / "benchmarks" / "results").rglob("*.png"):
        name = f"results/pictures/{picture.relative_to(ROOT / 'benchmarks' / 'results').as_posix()}"
        files.append(File.generated(config, name, abs_src_path=str(picture)))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to files of the repository into links to pages; a file without a page is named, not linked."""
    uri = page.file.src_uri
    source = next((file for file, name in PAGES.items() if name == uri), f"docs/{uri}")
    return relinked(markdown, source, uri)


def relinked(markdown: str, source: str, uri: str) -> str:
    """The text of a file of the repository as the page ``uri``."""
    folder = posixpath.dirname(source)

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        if re.match(r"[a-z]+:", target):
            return found[0]
        path = target if target.startswith("benchmarks/") else posixpath.normpath(posixpath.join(folder, target))
        page = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if path.startswith("examples/") and path.endswith(".py"):
            page, anchor = "examples.md", f"#{Path(path).stem}"
        if path.startswith("benchmarks/results/") and path.endswith(".png"):
            page = path.replace("benchmarks/results/", "results/pictures/", 1)
        if path in PAGES.values() or path.startswith(("results/", "catalogue/")):
            page = path
        if page is None:
            return f"{text[1:-1]} (`{path}`)" if text[1:-1].strip("`") != path else f"`{path}`"
        return f"{text}({posixpath.relpath(page, posixpath.dirname(uri) or '.')}{anchor})"

    return LINK.sub(link, markdown)


def examples() -> str:
    """All scripts of ``examples``, with their code."""
    lines = ["# Examples", "", "Scripts of `examples/`; the tests run each of them.", ""]
    for path in sorted((ROOT / "examples").glob("*.*")):
        if path.suffix in (".py", ".sh"):
            kind = "python" if path.suffix == ".py" else "bash"
            lines += [f"## {path.stem} {{#{path.stem}}}", "", f"```{kind}", path.read_text().rstrip(), "```", ""]
    return "\n".join(lines)
