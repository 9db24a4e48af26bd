"""The reference of the site: the public names of ``graphmeta``, grouped, each from its docstring."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import graphmeta

GROUPS = {
    "data": ("Data", ["EventLog", "EntityTable", "ReadOptions", "Inactivity", "ActionWeights", "build_graph"]
             + ["split_by_time", "split_by_user", "split_by_item"]),
    "sampling": ("Samples, tasks, sub-graphs", ["prefixes", "last_clicks", "session_batch", "SubgraphSampler", "Tasks"]
                 + ["UserHistories", "UserTasks"]),
    "systems": ("Systems and adaptations", ["Recommender", "System", "Adaptation", "Scope", "Gradient", "LearnedRates"]
                + ["build", "systems", "load", "rollback", "check_encoder", "InputError"]),
    "training": ("Training", ["fit", "train", "TrainOptions", "TrainingRecipe", "Adam", "Callback"]),
    "evaluation": ("Evaluation", ["evaluate", "evaluate_next_basket"]),
    "inference": ("Recommendations for files", ["recommend_file", "recommend_log", "SessionFile"]),
}  # fmt: skip
PACKAGES = {"nn": "gm.nn", "datasets": "gm.datasets", "plots": "gm.plots", "metrics": "gm.metrics"}
VALUES = {"NEXT", "OF", "FULL_SOFTMAX", "__version__"}


def groups() -> dict[str, tuple[str, list[str]]]:
    """``GROUPS``, and a group of the names that are in none of them, if there are any."""
    known = {name for _, names in GROUPS.values() for name in names} | PACKAGES.keys() | VALUES
    left = sorted(set(graphmeta.__all__) - known)
    return GROUPS | ({"more": ("More", left)} if left else {})


def navigation() -> list[Any]:
    """The pages and their titles."""
    titles = {name: title for name, (title, _) in groups().items()} | PACKAGES
    return ["reference/commands.md", *({title: f"reference/{name}.md"} for name, title in titles.items())]


def pages() -> dict[str, str]:
    """The Markdown of each page, by its path."""
    homes: dict[str, str] = vars(graphmeta)["_HOME"]
    found = {"reference/commands.md": commands()}
    for page, (title, names) in groups().items():
        found[f"reference/{page}.md"] = written(title, [defined(homes[name], name) for name in names])
    for page, title in PACKAGES.items():
        package: Any = getattr(graphmeta, page)
        names = getattr(package, "__all__", None) or functions(package)
        objects = [(name, getattr(package, name)) for name in names]
        found[f"reference/{page}.md"] = written(
            title, [defined(value.__module__, name) for name, value in objects if hasattr(value, "__module__")]
        )
    return found


def functions(module: Any) -> list[str]:
    """The public functions that a module defines."""
    own = [(name, value) for name, value in vars(module).items() if inspect.isroutine(value)]
    return [name for name, value in own if value.__module__ == module.__name__ and not name.startswith("_")]


def defined(module: str, name: str) -> str:
    """Where a name is defined, beyond re-exports."""
    value = getattr(importlib.import_module(module), name)
    return f"{getattr(value, '__module__', module)}.{getattr(value, '__qualname__', name)}"


def commands() -> str:
    """The help of every command."""
    import typer

    from graphmeta.cli.commands import app

    group: Any = typer.main.get_command(app)
    lines = [
        "# Commands",
        "",
        "Results go to the standard output, progress, notes and errors to the standard error.",
        "",
    ]
    for name in sorted(group.commands):
        command = group.commands[name]
        context = command.make_context(f"graphmeta {name}", [], resilient_parsing=True, terminal_width=100)
        lines += [f"## {name}", "", "```text", command.get_help(context).rstrip(), "```", ""]
    return "\n".join(lines)


def written(title: str, names: list[str]) -> str:
    """A page of directives of mkdocstrings."""
    return "\n\n".join([f"# {title}", *(f"::: {name}" for name in dict.fromkeys(names))]) + "\n"
