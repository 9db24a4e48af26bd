"""Layers under meta-training: which are stacked, looped or refused; a table for the documentation.

    python -m benchmarks.layers --out docs/layers.md

Every layer of the catalogue (``tests/adapt/layers.py``, ``tests/adapt/idioms.py``) is adapted and meta-trained in about
twelve ways and compared with a reference that shares no code with the library (``tests/adapt/reference.py``). Takes
about ten minutes on one core.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch_geometric
from tqdm import tqdm

from tests.adapt.attacks import ABSENT, LAYERS
from tests.adapt.sweep import OUTCOMES, TOLERANCE, Case, Finding, findings

KINDS = {
    "conv": "Convolutions of PyG",
    "aggr": "Aggregations of PyG",
    "norm": "Norms",
    "model": "Models of PyG",
    "torch": "Layers of torch",
    "idiom": "Custom layers",
    "attack": "Adversarial cases: shapes that would mislead an engine that infers tasks from sizes",
}
MEANING = {
    "stacked": "all tasks at once, equal to the reference",
    "loop": "per-task loop, with exactly one warning, equal to the reference",
    "refused": "an error with its reason, where torch itself or the encoder contract does not allow the layer",
    "hidden": "equal to the reference, but warned more than once",
    "damaged": "equal to the reference, but the model's own weights have changed",
    "crash": "an unexpected error",
    "wrong": "not equal to the reference",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the sweep and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write the table; standard output if not given")
    parser.add_argument("--only", default="", help="layers with this in their name")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = [name for name in LAYERS if options.only in name]
    text = page({name: findings(name) for name in tqdm(names, file=sys.stderr)})
    if options.out is None:
        print(text, end="")
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)


def page(found: dict[str, list[Finding]]) -> str:
    """The table as Markdown."""
    worst = {name: max(each, key=lambda f: f.badness) for name, each in found.items()}
    counts = Counter(finding.outcome for finding in worst.values())
    lines = [
        "# Layers under meta-training",
        "",
        f"{datetime.date.today()}, torch {torch.__version__}, PyG {torch_geometric.__version__}: {len(worst)} layers, "
        f"{sum(map(len, found.values()))} cases; float64, the tolerance is {TOLERANCE:.0e} of the "
        "largest number. Written by `python -m benchmarks.layers`.",
        "",
        *(f"* **{outcome}** ({counts[outcome]}): {MEANING[outcome]}" for outcome in OUTCOMES if counts[outcome]),
        "",
        "The outcome of a layer is that of its worst case.",
    ]
    for kind, title in KINDS.items():
        chosen = [name for name in worst if name.startswith(f"{kind} ")]
        if chosen:
            lines += ["", f"## {title}", "", *_rows(chosen, found, worst)]
    left_out = [f"* {name}: {why}" for name, why in ABSENT.items()]
    return "\n".join([*lines, "", "## Not in the table", "", *left_out, ""])


def _rows(names: Iterable[str], found: dict[str, list[Finding]], worst: dict[str, Finding]) -> list[str]:
    lines = ["| layer | outcome | largest difference | reason |", "|---|---|---|---|"]
    for name in names:
        each, one = found[name], worst[name]
        same = sum(finding.outcome == one.outcome for finding in each)
        share = "" if same == len(each) or one.outcome == "loop" else f" ({same} of {len(each)})"
        place = f"; {_told(one.case)}" if one.outcome in ("wrong", "crash", "damaged") and one.case else ""
        largest = max(finding.difference for finding in each)
        reason = (one.reason + place).removeprefix("; ").replace("|", "\\|")
        lines.append(f"| {name.partition(' ')[2]} | {one.outcome}{share} | {largest:.0e} | {reason} |")
    return lines


def _told(case: Case) -> str:
    what = "scores" if case.score else f"order {case.order}"
    return f"{case.batch}, {what}, {case.steps} steps, scope {' + '.join(case.scope)}"


if __name__ == "__main__":
    main()
