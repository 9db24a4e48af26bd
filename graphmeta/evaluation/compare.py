"""Evaluation of a system and its baselines on the same test queries, and the metrics as JSON."""

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
    """Popularity, session kNN and STAN; they never recommend repeats if no session of the log has any."""
    models = {"popularity": Popularity(past), "session_knn": SessionKNN(past), "stan": Stan(past)}
    return {name: match_repeats(past, model) for name, model in models.items()}


def compare(
    system: System, queries: Samples, *, past: EventLog, base: System | None = None, bar: Bar
) -> dict[str, Result]:
    """Results of the system and its baselines on the same test queries, by their names in JSON.

    For a system that adapts, ``without_steps`` is the ablation without inner steps.

    Args:
        past: the training log, for the baselines and for the slices by item frequency.
        base: a system without adaptation, trained as such.
        bar: ``(batches, name) -> batches``, shows progress.
    """

    def measured(scorer: Any, name: str, **adapting: Unpack[Adapting]) -> Result:
        return evaluate(scorer, queries, ks=KS, support=past.support, progress=lambda rows: bar(rows, name), **adapting)

    found = {name: measured(model, name.replace("_", " ")) for name, model in baselines(past).items()}
    if base is not None:
        found["base_model"] = measured(base, "base model")
    if system.adaptation is not None:
        # The start (a gate, a memory) is the trained one.
        found["without_steps"] = measured(system, "without steps", steps=0)
    return found | {"system": measured(system, "system")}


def metrics(results: Mapping[str, Result], *, system: str, seed: int) -> dict[str, Any]:
    """The flat object of ``metrics.json``: metrics in [0, 1], number of samples and candidates."""
    own = results["system"]
    others = [name for name in ("popularity", "session_knn", "stan", "base_model") if name in results]
    ablations = [name for name in ("without_steps",) if name in results]
    return {
        "system": system,
        "candidates": own.candidates,
        "samples": own.samples,
        "seed": seed,
        **own.metrics,
        "slices": own.slices,
        "baselines": {name: results[name].metrics for name in others},
        **{name: results[name].metrics for name in ablations},
        "ties": own.ties,
    }
