"""Atomic storage of tensors and a JSON document, without executable content.

``name.json`` holds the document, its SHA-256 and that of ``name-<hash>.safetensors`` beside it. The tensors are
written first, under a content-based name; replacing the JSON file then switches atomically from the old state to the
new. A process killed at any time leaves either state readable.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from graphmeta.errors import InputError


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: to a temporary file beside it, synced, then renamed.

    Raises:
        InputError: a path that cannot be written; an existing file is unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another path") from None


def write_json(path: Path, document: Any) -> None:
    """Write a document as indented JSON, atomically."""
    write_bytes(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())


def save_state(folder: Path, name: str, tensors: dict[str, Tensor], document: dict[str, Any]) -> None:
    """Write tensors and document (what JSON can hold) as ``folder/name.json`` and its safetensors file.

    Use one writer per name: files left by earlier writers, also killed ones, are removed at the end.
    """
    document = json.loads(json.dumps(document, allow_nan=False))  # fails before anything is written; keys become text
    content = save({key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    file = f"{name}-{digest[:16]}.safetensors"
    write_bytes(folder / file, content)
    body = {"document": document, "tensors": {"file": file, "sha256": digest}}
    write_json(folder / f"{name}.json", body | {"sha256": _digest(body)})
    _remove(folder, name, kept=(f"{name}.json", file))


def delete_state(folder: Path, name: str) -> None:
    """Remove what :func:`save_state` wrote, if there is any, also what was left by killed writers."""
    _remove(folder, name)


def clear_state(folder: Path, name: str) -> None:
    """Remove what killed writers of :func:`save_state` left beside the state.

    Raises:
        InputError: as :func:`load_state`.
    """
    _, file, _ = _document(folder, name)
    _remove(folder, name, kept=(f"{name}.json", file))


def clear_temporary(folder: Path, names: Iterable[str]) -> None:
    """Remove what killed writers of these files (:func:`write_bytes`) left."""
    for name in names:
        for old in folder.glob(f".{glob.escape(name)}.*"):
            old.unlink(missing_ok=True)


def _remove(folder: Path, name: str, kept: Sequence[str] = ()) -> None:
    """Remove the files of a state, and temporary ones of theirs, but for the ``kept`` ones."""
    file = rf"{re.escape(name)}(\.json|-[0-9a-f]{{16}}\.safetensors)"
    own = re.compile(rf"{file}|\.{file}\.\w+")
    for old in folder.iterdir() if folder.is_dir() else ():
        if own.fullmatch(old.name) and old.name not in kept:
            old.unlink(missing_ok=True)


def load_state(folder: Path, name: str, *, mapped: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_state` wrote, and verify its checksums.

    Args:
        mapped: the tensors are views of the mapped file, read from disk when used; changes of them are not written.

    Raises:
        InputError: a missing, truncated or changed file; names it.
    """
    document, file, digest = _document(folder, name)
    load = _map_tensors if mapped else _load_tensors
    return load(folder / file, digest), document


def _document(folder: Path, name: str) -> tuple[dict[str, Any], str, str]:
    """The document of a state, and the name and SHA-256 of its file of tensors."""
    path = folder / f"{name}.json"
    if not path.is_file():
        inner = folder / "model"
        found = any((inner / file).is_file() for file in (f"{name}.json", "current.json"))
        remedy = f"pass {inner}" if found else f"is {folder} a folder that graphmeta wrote?"
        raise InputError(f"{path}: no such file; {remedy}")
    try:
        body = json.loads(path.read_bytes())
        digest, document, tensors = body.pop("sha256"), body["document"], body["tensors"]
        file, tensors_digest, changed = Path(tensors["file"]).name, tensors["sha256"], digest != _digest(body)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise InputError(f"{path}: cut short or not a graphmeta file; restore it from a copy") from None
    if changed:
        raise InputError(f"{path}: changed since it was written (its SHA-256 differs); restore it from a copy")
    return document, file, tensors_digest


def _load_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; the model is incomplete, restore it from a copy")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{path}: damaged or changed (its SHA-256 differs); restore it from a copy")
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); restore it from a copy") from None


def _map_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; the graph is incomplete, restore it from a copy")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise InputError(f"{path}: damaged or changed (its SHA-256 differs); restore it from a copy")
    try:
        with safe_open(path, framework="pt") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); restore it from a copy") from None


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, allow_nan=False).encode()).hexdigest()


def not_finite(module: torch.nn.Module) -> str | None:
    """The name of the first parameter or buffer that holds NaN or an infinity; None if all are finite."""
    return next((name for name, tensor in module.state_dict().items() if not tensor.isfinite().all()), None)


def state_hash(module: torch.nn.Module) -> str:
    """SHA-256 over all parameters and buffers: equal for bitwise equal weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {list(plain.shape)}\n".encode())
        if plain.numel():  # an empty tensor may have no stride to view bytes by
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
