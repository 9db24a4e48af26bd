"""What a step on a session's own clicks adds to a trained encoder, without meta-training (Multi-FT).

    GRAPHMETA_DATA=… python -m benchmarks.own_clicks diginetica if_san --warm-start saved/if_san --held-out 1000

The rate and the number of steps are chosen by MRR@5 on prefixes of at least two clicks of the last training sessions,
which the saved encoder must not have seen (``--held-out``). The encoder and the chosen setting are then tested once
under CBML's protocol. Writes the rows of ``multi_ft`` and, without steps, of the encoder; the first has all settings
tried, with their validation metrics.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.accuracy import DATASETS, PREFIXES
from benchmarks.rows import Row, cost, measured, provenance, write
from benchmarks.sessions import Sessions
from graphmeta.data.splits import last_sessions
from graphmeta.evaluation.ranking import evaluate
from graphmeta.published.catalogue import TRAINED
from graphmeta.published.load import load
from graphmeta.published.models.meta import multi_ft
from graphmeta.sampling.samples import prefixes

MEASURE = "mrr@5"
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)


def main() -> None:
    """Choose on the held-out sessions, then test."""
    options = parser().parse_args()
    train_log, _, test_log = DATASETS[options.dataset].parts()
    ran, began = provenance("benchmarks.own_clicks"), time.perf_counter()
    base = load(options.warm_start)
    _, held_out = last_sessions(train_log, options.held_out)
    queries = prefixes(held_out)
    queries = queries.take(np.flatnonzero(queries.lengths >= 2)[-options.queries :])
    tried: list[Row] = [{"steps": 0, "valid": evaluate(base, queries).metrics}]
    for rate, steps in product(options.rates, options.steps):
        found = evaluate(multi_ft(base, step=rate, steps=steps).eval(), queries).metrics
        tried.append({"rate": rate, "steps": steps, "valid": found})
        print(tried[-1], flush=True)
    best = max(tried[1:], key=lambda each: each["valid"][MEASURE])
    test = PREFIXES["cbml"](test_log)
    for name, model, chosen in (
        (options.system, base, {}),
        (
            "multi_ft",
            multi_ft(base, step=best["rate"], steps=best["steps"]).eval(),
            {"lr": best["rate"], "steps": best["steps"]},
        ),
    ):
        arguments = {"base": options.system, **chosen} if chosen else {}
        result = evaluate(model, test, support=train_log.support, progress=tqdm)
        sessions = Sessions.of(result, test)
        row = {
            **{"dataset": options.dataset, "protocol": "cbml", "system": name, "arguments": arguments},
            **measured(result, sessions),
            **{"seed": options.seed, "epochs": 0, "history": [], "note": options.note},
            **cost(time.perf_counter() - began),
            **({"tried": tried, "queries": len(queries)} if chosen else {}),
            **ran,
        }
        write(row, variant=options.tag, sessions=sessions)


def parser() -> argparse.ArgumentParser:
    """The command-line options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("system", choices=TRAINED, help="the encoder")
    parser.add_argument("--warm-start", type=Path, required=True, help="folder of the trained encoder")
    parser.add_argument("--held-out", type=int, default=1000, help="last training sessions, which it has not seen")
    parser.add_argument("--queries", type=int, default=3000, help="the last prefixes of them that choose")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--steps", type=int, nargs="+", default=(1, 3))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tag", default="own-clicks", help="name of the variant in the file name")
    parser.add_argument("--note", default="", help="shown beside the system's name in RESULTS.md")
    return parser


if __name__ == "__main__":
    main()
