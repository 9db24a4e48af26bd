"""RelBench databases by name: ``relbench:rel-hm/user-item-purchase``."""

from __future__ import annotations

import os
from pathlib import Path

from graphmeta.data.relbench import RecommendationTask, relbench_task
from graphmeta.errors import InputError

PREFIX = "relbench:"


def find(spec: str) -> tuple[Path, str | None]:
    """The folder of a database, and the name of its task, None if it is not named.

    Args:
        spec: ``relbench:DATABASE`` or ``relbench:DATABASE/TASK``. DATABASE is a folder, or the name of one below
            ``GRAPHMETA_DATA/relbench``.

    Raises:
        InputError: another form, or no such database; names how to get it.
    """
    name = spec.removeprefix(PREFIX)
    if name == spec or not name:
        raise InputError(f"{spec!r} names no RelBench database; write relbench:DATABASE/TASK")
    whole, parent = Path(name), Path(name).parent
    root = os.environ.get("GRAPHMETA_DATA")
    places = [(whole, None), (parent, whole.name)]
    if root:
        places += [(Path(root) / "relbench" / whole, None), (Path(root) / "relbench" / parent, whole.name)]
    for folder, task in places:
        if (folder / "manifest.yaml").is_file():
            return folder, task
    base = (parent if parent.name else whole).name
    raise InputError(
        f"{spec}: no RelBench database {base!r} below GRAPHMETA_DATA ({root or 'not set'}); pass its folder, or "
        f"download it: relbench.load_dataset('stanford-star/relbench-v1/{base}').dataset_dir is then the folder"
    )


def recommendation_task(spec: str) -> RecommendationTask:
    """The task ``relbench:DATABASE/TASK`` with its labels, see :func:`find` and
    :func:`~graphmeta.data.relbench.relbench_task`.
    """
    folder, task = find(spec)
    return relbench_task(folder, task=task)
