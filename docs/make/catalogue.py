"""The catalogue of the site: a page for each system, from its docstring, its options and its rows of results."""

from __future__ import annotations

import importlib
import inspect
import re
from functools import cache
from typing import Any

from roles import markdown

from benchmarks.pages import figures_of, titles
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.published.registry import Published
from graphmeta.published.systems import Row, systems

FAMILIES = {
    "session": "Session encoders",
    "sequence": "Sequence encoders",
    "asars": "Dwell times and users",
    "graph": "Graphs larger than a session, re-rankers",
    "cold_item": "Cold-start items",
    "meta": "Meta-learners",
    "cold_user": "Cold-start users",
    "streaming": "Periodic retraining",
    "baseline": "Baselines",
    "cross-domain": "Cross-domain users",
}


def navigation() -> list[Any]:
    """The overview, and the systems by family."""
    families: dict[str, list[str]] = {}
    for row in systems():
        families.setdefault(FAMILIES.get(row.family, row.family), []).append(f"catalogue/{row.name}.md")
    return ["catalogue/index.md", *({title: names} for title, names in families.items())]


@cache
def pages() -> dict[str, str]:
    """The Markdown of each page, by its path."""
    found = {f"catalogue/{row.name}.md": page(row) for row in systems()}
    return found | {"catalogue/index.md": overview()}


def overview() -> str:
    """All systems in one table a family."""
    lines = [
        "# Catalogue",
        "",
        "Every system is a composition of features, encoder, head, adaptation and retraining. `gm.build(name, items)` "
        "builds one, `gm.fit(split, name)` and `graphmeta fit --system name` train it; `gm.systems()` is this table. "
        "Each page lists equations, options, what differs from the paper, and all measured rows.",
        "",
    ]
    for family, title in FAMILIES.items():
        rows = [row for row in systems() if row.family == family]
        lines += [f"## {title}", "", "| system | source | equations | a task adapts |", "|---|---|---|---|"]
        lines += [f"| [`{r.name}`]({r.name}.md) | {r.paper} | {r.equations} | {r.adapts} |" for r in rows]
        lines.append("")
    return "\n".join(lines)


def page(row: Row) -> str:
    """What a system is, its equations, source, differences, options and rows."""
    entry = CATALOGUE.get(row.name)
    parts = sections(docstring(row, entry))
    lines = [f"# {row.name}", "", parts["what"], ""]
    lines += [f"| paper | {row.paper} |", "|---|---|", f"| equations of the paper | {row.equations} |"]
    lines += [f"| kind | {row.kind} |", f"| a task adapts | {row.adapts} |", f"| built by | `{row.where}` |"]
    if entry is not None and entry.base:
        lines.append(f"| base by default | [`{entry.base}`]({entry.base}.md) |")
    for title, name in (("Equations", "equations"), ("Source", "Source"), ("Differs from the paper", "Differs")):
        if parts.get(name):
            lines += ["", f"## {title}", "", parts[name]]
    if entry is not None:
        lines += ["", "## Options", "", *options(entry)]
    if parts.get("Args"):
        lines += ["", *(f"* {line}" for line in parts["Args"].splitlines() if line)]
    if parts.get("Raises"):
        lines += ["", f"Errors: {parts['Raises']}"]
    return "\n".join([*lines, "", "## Results", "", *rows_of(row.name)])


def docstring(row: Row, entry: Published | None) -> str:
    """The docstring of the function or class that builds a system."""
    own = "" if entry is None else inspect.getdoc(entry.function) or ""
    if own and not (entry and entry.counts):
        return own
    where = row.where.split("(")[0]
    if entry is not None and (found := re.search(r":class:`~([\w.]+)`", own)):  # the class that counts
        where = found[1]
    module, _, name = where.rpartition(".")
    return inspect.getdoc(getattr(importlib.import_module(module), name)) or ""


def sections(text: str) -> dict[str, str]:
    """The parts of a docstring: ``what``, ``equations`` (all paragraphs before Args), Args, Source, Differs.

    >>> sections("A model.\\n\\n``y = x``\\n\\nArgs:\\n    a: one;\\n        two.\\n\\nSource: a paper.")["Args"]
    'a: one; two.'
    """
    found: dict[str, str] = {}
    blocks = re.split(r"^(Args|Source|Differs|Raises|Warns|Returns|Shapes?):", text.strip(), flags=re.M)
    what, _, rest = blocks[0].partition("\n\n")
    found["what"], found["equations"] = markdown(flowed(what)), markdown(rest.strip("\n"))
    for name, body in zip(blocks[1::2], blocks[2::2], strict=True):
        found[name] = markdown(entries(body) if name == "Args" else flowed(body))
    return found


def entries(body: str) -> str:
    """The entries of ``Args``, one on each line."""
    lines: list[str] = []
    for line in body.strip("\n").splitlines():
        if re.match(r" {4}\S", line) or not lines:
            lines.append(line.strip())
        else:
            lines[-1] = f"{lines[-1]} {line.strip()}".strip()
    return "\n".join(lines)


def flowed(text: str) -> str:
    """A text in one line a paragraph."""
    text = "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))
    return text[:1].upper() + text[1:]


def options(entry: Published) -> list[str]:
    """A table of the options and their defaults."""
    defaults = entry.defaults
    lines = ["| option | type | default |", "|---|---|---|"]
    for name, kind in entry.options.items():
        shown = getattr(kind, "__name__", None) if not hasattr(kind, "__args__") else str(kind).replace("typing.", "")
        default = f"`{defaults[name]!r}`" if name in defaults else ""
        lines.append(f"| `{name}` | `{shown or kind}` | {default} |".replace(" | None", " or None"))
    return lines


def rows_of(name: str) -> list[str]:
    """A system's rows of results, with links to their pages."""
    found = figures_of(name)
    if not found:
        return ["No row yet."]
    lines = ["| data | protocol | run | figures | seeds |", "|---|---|---|---|--:|"]
    for data, protocol, label, shown, seeds in found:
        lines.append(f"| [{titles()[data]}](../results/{data}.md) | {protocol} | {label} | {shown} | {seeds} |")
    return lines
