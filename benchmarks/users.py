"""Evaluate one system on the last items of sessions, given the earlier sessions of their users; write one row.

    python -m benchmarks.users complete_journey personal_reranker
    python -m benchmarks.users complete_journey maml --base niser --arguments '{"scope": "item_bias", "order": 2}'

Splits: ``time`` (the last tenth of sessions is the test, the tenth before it the validation) and ``user`` (random
tenths of users, with all their sessions; no user is in two parts). A system is trained by ``gm.fit`` with its default
recipe on the training part; a meta-learner adapts a base trained so, with users as tasks. The test part is evaluated
once, with all sessions that ended before a question's session began, and by the number of known sessions: of the users
as they are, and of all queries with only the last n sessions known.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import graphmeta as gm
from benchmarks.accuracy import BASELINES, USER_BASELINES, movielens
from benchmarks.rows import Row, cost, epoch_row, measured, provenance, write
from benchmarks.sessions import Sessions
from graphmeta.baselines import match_repeats
from graphmeta.data.events import EventLog
from graphmeta.data.merging import merged
from graphmeta.data.splits import Split, split_by_user
from graphmeta.datasets import session_logs as datasets
from graphmeta.evaluation.compare import by_known_sessions
from graphmeta.evaluation.protocol import Rules, cut
from graphmeta.published.catalogue import CATALOGUE, TRAINED
from graphmeta.published.load import load
from graphmeta.sampling.samples import Samples, last_clicks
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.training.recipes import adam_without_decay

LOGS: Mapping[str, Callable[[], EventLog]] = {
    "complete_journey": datasets.complete_journey,
    "movielens1m": movielens,
}
SPLITS: Mapping[str, Callable[[EventLog], Split]] = {
    "time": partial(cut, rules=Rules(min_item_support=1)),
    "user": partial(split_by_user, test=0.1, valid=0.1),
}


def main() -> None:
    """Run one row from the command line."""
    options = parser().parse_args()
    torch.manual_seed(options.seed)
    split = SPLITS[options.split](LOGS[options.dataset]())
    print(split, flush=True)
    ran, began, cpu = provenance("benchmarks.users"), time.perf_counter(), time.process_time()
    model, history = fitted(options, split)
    spent = cost(time.perf_counter() - began, cpu=time.process_time() - cpu)
    queries = queries_of(split)
    result = gm.evaluate(model, queries, ks=(5, 20), progress=partial(tqdm, mininterval=10))
    sessions = Sessions.of(result, queries)
    few = queries.take(np.linspace(0, len(queries) - 1, min(len(queries), options.curve)).astype(np.int64))
    curve = by_known_sessions({"": model}, few)[""] if options.curve else {}
    row = {
        "dataset": options.dataset,
        "protocol": f"users-{options.split}",
        "system": options.system,
        "base": options.base,
        "arguments": options.arguments,
        "note": options.note,
        **measured(result, sessions),
        "known_sessions": {"all" if n is None else str(n): one.metrics for n, one in curve.items()},
        "seed": options.seed,
        "epochs": len(history),
        "history": history,
        **spent,
        **ran,
    }
    write(row, variant=options.tag, sessions=sessions)
    print({name: one["hit@20"] for name, one in row["known_sessions"].items()})


def parser() -> argparse.ArgumentParser:
    """The command-line options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=LOGS)
    parser.add_argument("system", choices=[*TRAINED, *BASELINES, *USER_BASELINES])
    parser.add_argument("--split", choices=SPLITS, default="time")
    parser.add_argument("--base", help="of a meta-learner: the system that gm.fit trains first")
    parser.add_argument("--warm-start", help="folder of the trained base")
    parser.add_argument("--save", help="folder to save the system in")
    parser.add_argument("--arguments", type=json.loads, default={}, help="of the system, as JSON")
    parser.add_argument("--fit-epochs", type=int, help="of gm.fit; those of the recipe if not given")
    parser.add_argument("--epochs", type=int, default=2, help="of meta-training; 0: rates as given")
    parser.add_argument("--lr", type=float, default=1e-2, help="of meta-training")
    parser.add_argument("--batch-size", type=int, default=25, help="tasks per step of meta-training")
    parser.add_argument("--curve", type=int, default=1000, help="queries of the curve by known sessions; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tag", default="", help="name of the variant in the file name")
    parser.add_argument("--note", default="", help="shown beside the system's name in RESULTS.md")
    return parser


def queries_of(split: Split) -> Samples:
    """The last items of the test sessions, with their users' earlier sessions."""
    return UserHistories.of(*split.parts).attached(last_clicks(split.test), split.test)


def fitted(options: argparse.Namespace, split: Split) -> tuple[Any, list[Row]]:
    """The trained model, and a row for each epoch of its last training."""
    baselines = BASELINES | USER_BASELINES
    if options.system in baselines:
        known = merged(split.train, split.valid)
        # a trained system can learn whether items recur within a session; baselines are configured
        return match_repeats(known, baselines[options.system](known, **options.arguments)), []
    fit = partial(gm.fit, split, seed=options.seed, epochs=options.fit_epochs)
    if options.base is None:
        model = fit(options.system, progress=True)
        saved(model, options.save)
        return model, model.notes["history"][options.system]
    base = load(options.warm_start) if options.warm_start else fit(options.base)
    arguments = {"anchor": "user", **options.arguments} if "anchor" in CATALOGUE[options.system].options else {}
    model = gm.build(options.system, base.items, base=base, **(arguments or options.arguments))
    reports = (
        []
        if not options.epochs
        else list(
            gm.train(
                model,
                split.train,
                epochs=options.epochs,
                batch_size=options.batch_size,
                optimizer=adam_without_decay(options.lr),
                valid=split.valid,
                seed=options.seed,
                options=gm.TrainOptions(progress=partial(tqdm, mininterval=10)),
            )
        )
    )
    saved(model, options.save)
    return model.eval(), [epoch_row(report) for report in reports]


def saved(model: gm.System, folder: str | None) -> None:
    """Save the system, if a folder is given."""
    if folder is not None:
        model.save(folder)


if __name__ == "__main__":
    main()
