"""Checkpoints of a training plan: one folder per stage, kept until all stages are done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from graphmeta.errors import InputError
from graphmeta.storage import delete_state, load_state
from graphmeta.training.run import Checkpoint

# Folders of stages of a plan: the base model, the base model refitted on all sessions before the test, and the plan on
# the whole log.
BASE, BASE_REFITTED, REFIT = "base", "base_refitted", "refit"


def drop(folder: Path) -> None:
    """Remove a plan's checkpoints, and their folder if it is empty."""
    for plan in (folder / REFIT, folder):
        for place in (*(plan / name for name in (BASE, BASE_REFITTED)), plan):
            _drop(place)


def within(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """The checkpoint of a stage."""
    return replace(checkpoint, folder=checkpoint.folder / name)


def can_resume(checkpoint: Checkpoint, request: dict[str, Any]) -> bool:
    """Whether to resume from the checkpoint in the folder; if not, it is removed.

    Raises:
        InputError: a checkpoint of another training; names what differs.
    """
    if not checkpoint.resume or not (checkpoint.folder / "request.json").is_file():
        _drop(checkpoint.folder)
        return False
    _, stored = load_state(checkpoint.folder, "request")
    changed = [key for key in request if stored.get(key) != request[key]]
    if changed:
        raise InputError(
            f"{checkpoint.folder}: a checkpoint of another training (different: {', '.join(changed)}); "
            f"use its settings, or drop --resume to start over"
        )
    return True


def _drop(folder: Path) -> None:
    """Remove a checkpoint, and the folder if it is empty."""
    for name in ("training", "request"):
        delete_state(folder, name)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
