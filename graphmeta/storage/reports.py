"""Reports of a version of a model (metrics, pictures): files in its folder ``reports``, of which copies lie beside the
folder of the model, always those of the current version.
"""

from __future__ import annotations

from pathlib import Path

from graphmeta.storage import clear_temporary, write_bytes

REPORTS = "reports"


def reports(folder: str | Path, version: Path) -> list[Path]:
    """The copies of a version's reports beside the folder of its model.

    Args:
        version: the folder of the version.
    """
    return [Path(folder).parent / one.name for one in sorted((version / REPORTS).glob("*"))]


def publish(folder: Path, version: Path) -> None:
    """Copy the reports of a version beside the folder of its model, and remove those of other versions there."""
    own = {one.name: one for one in (version / REPORTS).glob("*")}
    every = {one.name for one in version.parent.glob(f"*/{REPORTS}/*")}
    clear_temporary(folder.parent, every)
    for name, report in own.items():
        write_bytes(folder.parent / name, report.read_bytes())
    for name in every - own.keys():
        (folder.parent / name).unlink(missing_ok=True)
