"""Print the commands of rows of results, with their commits and dates.

python -m benchmarks.command benchmarks/results/diginetica/cbml/cbml/seed0.json
python -m benchmarks.command diginetica/sr-gnn            # all rows of a data set under a protocol
python -m benchmarks.command diginetica/sr-gnn/niser      # those of a system
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.rows import RESULTS, read


def main() -> None:
    """Print the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", help="a result file, or a folder of them, also below benchmarks/results")
    for line in commands(parser.parse_args().rows):
        print(line)


def commands(where: str) -> list[str]:
    """The commands of a file, or of all files below a folder.

    Raises:
        SystemExit: no row is there.
    """
    place = next((path for path in (Path(where), RESULTS / where) if path.exists()), None)
    files = [] if place is None else [place] if place.is_file() else sorted(place.rglob("*.json"))
    if not files:
        raise SystemExit(f"no rows in {where!r}; pass a file or folder of {RESULTS}, such as diginetica/sr-gnn")
    return [f"{row['command']}  # {row['commit']}, {row['date']}" for row in map(read, files)]


if __name__ == "__main__":
    main()
