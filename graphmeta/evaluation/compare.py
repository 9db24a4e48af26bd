"""What is asked of a model and what is told of it: the cut of a log, the comparison with rivals, examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from graphmeta.baselines import Popularity, SessionKNN, Stan, match_repeats
from graphmeta.data.events import EventLog
from graphmeta.evaluation.protocol import KS
from graphmeta.evaluation.ranking import Result, evaluate
from graphmeta.protocols import Adapting, Bar
from graphmeta.sampling.samples import Samples
from graphmeta.system import System


def baselines(past: EventLog) -> dict[str, Any]:
    """Popularity, session kNN and STAN; where no session of the log repeats an item, they do not either."""
    models = {"popularity": Popularity(past), "session_knn": SessionKNN(past), "stan": Stan(past)}
    return {name: match_repeats(past, model) for name, model in models.items()}


def compare(
    system: System, asked: Samples, *, past: EventLog, alone: System | None = None, bar: Bar
) -> dict[str, Result]:
    """How well the system and its rivals answer the same questions, by their names in JSON.

    Of a system that adapts, ``without_steps`` says what its sessions' own steps are worth.

    Args:
        past: the training log, which the baselines count in and the slices by item frequency refer to.
        alone: a plain encoder trained as such.
        bar: ``(batches, name) -> batches``, shows progress.
    """

    def measured(scorer: Any, name: str, **adapting: Unpack[Adapting]) -> Result:
        return evaluate(scorer, asked, ks=KS, support=past.support, progress=lambda rows: bar(rows, name), **adapting)

    found = {name: measured(rival, name.replace("_", " ")) for name, rival in baselines(past).items()}
    if alone is not None:
        found["encoder_alone"] = measured(alone, "encoder alone")
    if system.adaptation is not None:
        # Where a session starts from (a gate, a memory) is as trained.
        found["without_steps"] = measured(system, "without steps", steps=0)
    return found | {"system": measured(system, "system")}


def metrics(results: Mapping[str, Result], *, system: str, seed: int) -> dict[str, Any]:
    """The flat object of ``metrics.json``: fractions in [0, 1], and what they are fractions of."""
    own = results["system"]
    rivals = [name for name in ("popularity", "session_knn", "stan", "encoder_alone") if name in results]
    off = [name for name in ("without_steps",) if name in results]
    return {
        "system": system,
        "candidates": own.candidates,
        "samples": own.samples,
        "seed": seed,
        **own.metrics,
        "slices": own.slices,
        "baselines": {name: results[name].metrics for name in rivals},
        **{name: results[name].metrics for name in off},
        "ties": own.ties,
    }
