"""Compare metrics, baselines and the export to RelBench with what other packages compute, and write the differences.

    make judges                                  # builds .venv/judges, runs the tests marked `judges` and this
    .venv/judges/bin/python -m benchmarks.judges

Packages that are not installed are left out. ``benchmarks/judges.json`` has, for each package and version, what was
compared, on how many lists, and the largest absolute difference.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from graphmeta.baselines import ItemKNN
from graphmeta.data.events import EventLog
from graphmeta.data.relbench import TASK, relbench_task, to_relbench
from graphmeta.datasets.session_logs import complete_journey
from graphmeta.evaluation.metrics import hit, mrr, ndcg, of_lists, ranks
from graphmeta.evaluation.next_basket import evaluate_next_basket
from graphmeta.evaluation.precision import average_precision
from graphmeta.sampling.samples import Samples
from graphmeta.storage import write_json

FILE = Path(__file__).with_name("judges.json")
KS = (1, 5, 12)
Lists = tuple[np.ndarray, list[np.ndarray]]  # all items in ranked order [U, C], and the targets of each user
Means = dict[str, float]


@dataclass(frozen=True)
class Agreement:
    """What was compared with a package, on how many lists, and the largest absolute difference."""

    package: str
    version: str
    what: str
    lists: int
    difference: float


def ours(scores: np.ndarray, targets: list[np.ndarray], k: int) -> Means:
    """The means of our metrics; MRR of lists with one target each."""
    owner = torch.from_numpy(np.repeat(np.arange(len(targets)), [len(one) for one in targets]))
    found = ranks(torch.from_numpy(scores)[owner], torch.from_numpy(np.concatenate(targets)))
    each = of_lists(found, owner, k)
    values = {"recall": each["hit"], "hit ratio": each["hit_any"], "ndcg": each["ndcg"]}
    values["map"] = average_precision(found, owner, k)
    if all(len(one) == 1 for one in targets):
        values |= {"mrr": mrr(found, k), "hit": hit(found, k), "ndcg of one target": ndcg(found, k)}
    return {name: float(value.mean()) for name, value in values.items()}


def of_pyg(lists: Lists, k: int) -> Means:
    """torch_geometric.metrics, in double precision."""
    from torch_geometric import metrics

    order, targets = lists
    kinds = {"recall": "Recall", "hit ratio": "HitRatio", "ndcg": "NDCG", "map": "MAP", "mrr": "MRR"}
    user = np.repeat(np.arange(len(targets)), [len(one) for one in targets])
    label = torch.from_numpy(np.stack([user, np.concatenate(targets)]))
    with _double():
        means = {}
        for name, kind in kinds.items():
            metric = getattr(metrics, f"LinkPred{kind}")(k)
            metric.update(torch.from_numpy(order[:, :k].copy()), label)
            means[name] = float(metric.compute())
    return _with_single(means, targets)


def of_rectools(lists: Lists, k: int) -> Means:
    """rectools.metrics; its MAP divides by the number n of targets instead of min(k, n), which is converted."""
    from rectools import Columns
    from rectools.metrics import MAP, MRR, NDCG, HitRate, Recall

    order, targets = lists
    users, size = np.arange(len(order)), order.shape[1]
    reco = pd.DataFrame({Columns.User: np.repeat(users, size), Columns.Item: order.ravel()})
    reco[Columns.Rank] = np.tile(np.arange(1, size + 1), len(order))
    count = np.array([len(one) for one in targets])
    known = pd.DataFrame({Columns.User: np.repeat(users, count), Columns.Item: np.concatenate(targets)})
    kinds = {
        "recall": Recall(k),
        "hit ratio": HitRate(k),
        "ndcg": NDCG(k, divide_by_achievable=True),
        "map": MAP(k),
        "mrr": MRR(k),
    }
    each = {name: metric.calc_per_user(reco, known).reindex(users) for name, metric in kinds.items()}
    each["map"] *= count / np.minimum(count, k)
    return _with_single({name: float(values.mean()) for name, values in each.items()}, targets)


def of_relbench(lists: Lists, k: int) -> Means:
    """relbench.metrics, which has MAP for recommendation."""
    from relbench.metrics import map as map_at_k

    order, targets = lists
    inside = np.stack([np.isin(row[:k], one) for row, one in zip(order, targets, strict=True)])
    return {"map": float(map_at_k(inside, np.array([len(one) for one in targets])))}


def of_ranx(lists: Lists, k: int) -> Means:
    """ranx; its MAP divides by the number n of targets instead of min(k, n), which is converted."""
    from ranx import Qrels, Run, evaluate

    order, targets = lists
    size, count = order.shape[1], np.array([len(one) for one in targets])
    relevant = {f"u{n:06d}": {f"i{item}": 1 for item in one} for n, one in enumerate(targets)}
    run = {f"u{n:06d}": {f"i{item}": float(size - r) for r, item in enumerate(row)} for n, row in enumerate(order)}
    kinds = {"recall": "recall", "hit ratio": "hit_rate", "ndcg": "ndcg", "map": "map", "mrr": "mrr"}
    names = [f"{kind}@{k}" for kind in kinds.values()]
    found = evaluate(Qrels(relevant), Run(run), names, return_mean=False)
    each = {name: np.asarray(found[f"{kind}@{k}"], dtype=np.float64) for name, kind in kinds.items()}
    each["map"] = each["map"] * count / np.minimum(count, k)
    return _with_single({name: float(values.mean()) for name, values in each.items()}, targets)


def _with_single(means: Means, targets: list[np.ndarray]) -> Means:
    """MRR and the names of metrics of one target where each list has one."""
    if any(len(one) != 1 for one in targets):
        return {name: value for name, value in means.items() if name != "mrr"}
    return means | {"hit": means["recall"], "ndcg of one target": means["ndcg"]}


JUDGES: Mapping[str, Callable[[Lists, int], Means]] = {
    "torch_geometric": of_pyg,
    "rectools": of_rectools,
    "relbench": of_relbench,
    "ranx": of_ranx,
}


def metrics_of(package: str, *, users: int = 200, items: int = 40) -> Iterator[Agreement]:
    """Metrics of random lists with 1 to 15 targets and with one, and of lists with ties over all their orders."""
    judge, random = JUDGES[package], np.random.default_rng(0)
    for most in (15, 1):
        scores = random.random((users, items))
        targets = [np.sort(random.choice(items, random.integers(1, most + 1), replace=False)) for _ in range(users)]
        lists = np.argsort(-scores, axis=1), targets
        for k in KS:
            own, theirs = ours(scores, targets, k), judge(lists, k)
            for name, value in theirs.items():
                kind = "one target" if most == 1 else "several targets"
                yield _agreement(package, f"{name}@{k}, {kind}", users, abs(value - own[name]))
    worst: dict[str, float] = {}
    tied = 20
    for _ in range(tied):
        scores = random.integers(0, 3, (1, 6)).astype(np.float64)
        targets = [np.sort(random.choice(6, random.integers(1, 5), replace=False))]
        order = np.array(every_order(scores[0]))
        for k in (1, 3, 5):
            own, theirs = ours(scores, targets, k), judge((order, targets * len(order)), k)
            for name, value in theirs.items():
                worst[name] = max(worst.get(name, 0.0), abs(value - own[name]))
    for name, difference in worst.items():
        yield _agreement(package, f"{name} with ties, mean over all orders", tied, difference)


def every_order(scores: np.ndarray) -> list[list[int]]:
    """All orders of the items by descending score: one for each order of each tie."""
    ties = [np.flatnonzero(scores == value).tolist() for value in np.unique(scores)[::-1]]
    return [list(itertools.chain(*parts)) for parts in itertools.product(*map(itertools.permutations, ties))]


def item_knn(log: EventLog) -> Agreement:
    """ItemKNN with α = ½ and implicit's CosineRecommender on the matrix of sessions and items."""
    from implicit.nearest_neighbours import CosineRecommender
    from scipy.sparse import csr_matrix

    pairs = np.unique(np.stack([log.session, log.item], 1), axis=0)
    matrix = csr_matrix((np.ones(len(pairs)), pairs.T), (log.num_sessions, log.num_items))
    theirs = CosineRecommender(K=log.num_items)
    theirs.fit(matrix, show_progress=False)
    own = ItemKNN(log, neighbours=log.num_items, alpha=0.5)
    found = csr_matrix((own.similarity, own.similar.value, own.similar.ptr), (log.num_items, log.num_items))
    difference = float(np.abs((found - theirs.similarity).toarray()).max())
    return _agreement("implicit", "item_knn, alpha 0.5: cosines of all pairs of items", log.num_items, difference)


class Scorer:
    """Scores without ties that depend on the user's number and the item."""

    reads_tasks = False

    def __init__(self, log: EventLog) -> None:
        self.items, self.users, self.num_items = log.items, log.users, log.num_items

    def scores(self, samples: Samples) -> torch.Tensor:
        """``[S, num_items]``."""
        users = np.zeros(len(samples), np.int64) if samples.user is None else samples.user
        return torch.stack([self.of_user(int(user)) for user in users])

    def of_user(self, user: int) -> torch.Tensor:
        """The scores of a user, ``[num_items]``."""
        return torch.rand(self.num_items, dtype=torch.float64, generator=torch.Generator().manual_seed(user + 1))


def relbench_export(log: EventLog, folder: Path) -> Iterator[Agreement]:
    """The exported database in relbench: its labels, what its loader hides, and MAP by its task."""
    from relbench import load_dataset

    data = load_dataset(str(to_relbench(log, folder)))
    task, own = data.load_task(TASK, regenerate=True), relbench_task(folder)
    shown = data.get_db()
    late = sum(int((table.df[table.time_col] > data.test_timestamp).sum()) for table in _timed(shown))
    yield _agreement("relbench", "rows after the test time that its loader shows", _rows(shown), late)
    missing = _rows(shown) - own.known.num_events - int((log.starts <= data.test_timestamp.timestamp()).sum())
    yield _agreement("relbench", "rows of events and sessions until the test time", _rows(shown), abs(missing))
    for part, known in (("val", own.valid), ("test", own.test)):
        labels = task.get_table(part, mask_input_cols=False).df
        theirs = {int(u): set(items) for u, items in zip(labels["user"], labels["item"], strict=True)}
        assert known.session_user is not None
        mine = {int(known.session_user[s]): set(known.item[known.session == s]) for s in range(known.num_sessions)}
        wrong = sum(theirs.get(u) != mine.get(u) for u in theirs.keys() | mine.keys())
        yield _agreement("relbench", f"users with other labels ({part})", len(theirs), wrong)
    table, model = task.get_table("test", mask_input_cols=False), Scorer(own.known)
    best = np.stack([model.of_user(int(user)).topk(own.k).indices.numpy() for user in table.df["user"]])
    theirs = task.evaluate(best, table)["map"]
    found = evaluate_next_basket(model, own.test, history=own.known, ks=(own.k,)).metrics[f"map@{own.k}"]
    yield _agreement("relbench", f"map@{own.k} of the exported task", len(table.df), abs(theirs - found))


def _timed(database) -> list:  # noqa: ANN001 - of relbench
    return [table for table in database.table_dict.values() if table.time_col is not None]


def _rows(database) -> int:  # noqa: ANN001 - of relbench
    return sum(len(table.df) for table in _timed(database))


def _agreement(package: str, what: str, lists: int, difference: float) -> Agreement:
    return Agreement(package, version(package), what, lists, float(difference))


@contextmanager
def _double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def bundled(sessions: int = 4000) -> EventLog:
    """The last sessions of the bundled log."""
    log = complete_journey()
    return log.of_sessions(np.arange(log.num_sessions) >= log.num_sessions - sessions)


def agreements() -> Iterator[Agreement]:
    """All comparisons with the packages that are installed."""
    for package in JUDGES:
        if find_spec(package) is not None:
            yield from metrics_of(package)
    if find_spec("implicit") is not None:
        yield item_knn(bundled())
    if find_spec("relbench") is not None:
        with tempfile.TemporaryDirectory() as folder:
            yield from relbench_export(complete_journey(), Path(folder) / "rel-journey")


def main() -> None:
    """Print the differences and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FILE, help="the file that is written")
    out = parser.parse_args().out
    found = list(agreements())
    for one in found:
        print(f"{one.package} {one.version}: {one.what}, {one.lists:,} lists: {one.difference:.1e}", flush=True)
    command = "python -m benchmarks.judges"
    write_json(out, {"command": command, "date": date.today().isoformat(), "rows": [asdict(one) for one in found]})
    print(json.dumps({p: max(o.difference for o in found if o.package == p) for p in {o.package for o in found}}))


if __name__ == "__main__":
    main()
