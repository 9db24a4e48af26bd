"""graphmeta: meta-learned graph neural recommenders on PyTorch Geometric.

A system is a recommender (features, encoder, head), an adaptation (which weights a task changes, and how) and a
retraining. ``import graphmeta as gm`` takes a few milliseconds: torch is imported with the first name that needs it.

    log = gm.EventLog.read("clicks.csv", session="visit", item="sku", time="at", user="who")
    split = gm.split_by_time(log)
    system = gm.fit(split, system="cbml", epochs=3, progress=True)
    print(gm.evaluate(system, split.test))
    system.recommend(["sku17", "sku4"], k=10, user="anna")
    system.save("shop"); gm.load("shop")
"""

from importlib import import_module

from graphmeta.processors import prepare

prepare()
__version__ = "0.2.0"

# The module of each name. ``__init__.pyi`` declares the same names for editors and type checkers; a test compares them.
_HOME = {
    # data
    "EventLog": "graphmeta.data.events",
    "EntityTable": "graphmeta.data.tables",
    "ReadOptions": "graphmeta.data.read_options",
    "Inactivity": "graphmeta.data.read_options",
    "ActionWeights": "graphmeta.data.read_options",
    "build_graph": "graphmeta.data.graph",
    "split_by_time": "graphmeta.data.splits",
    "split_by_user": "graphmeta.data.splits",
    "split_by_item": "graphmeta.data.splits",
    # samples, tasks and their graphs
    "prefixes": "graphmeta.sampling.samples",
    "last_clicks": "graphmeta.sampling.samples",
    "session_batch": "graphmeta.sampling.session_batch",
    "SubgraphSampler": "graphmeta.sampling.subgraph",
    "Tasks": "graphmeta.sampling.tasks",
    "UserHistories": "graphmeta.sampling.user_histories",
    "UserTasks": "graphmeta.published.options",
    "NEXT": "graphmeta.sampling.batch_rows",
    "OF": "graphmeta.sampling.batch_rows",
    # systems
    "Recommender": "graphmeta.recommender",
    "System": "graphmeta.system",
    "Adaptation": "graphmeta.adapt.adaptation",
    "Scope": "graphmeta.adapt.scope",
    "Gradient": "graphmeta.adapt.step",
    "LearnedRates": "graphmeta.adapt.step",
    "build": "graphmeta.published.catalogue",
    "systems": "graphmeta.published.systems",
    # training, evaluation, storage
    "fit": "graphmeta.published.fit",
    "train": "graphmeta.training.loop",
    "TrainOptions": "graphmeta.training.settings",
    "Adam": "graphmeta.training.optimizers",
    "TrainingRecipe": "graphmeta.training.recipes",
    "FULL_SOFTMAX": "graphmeta.training.recipes",
    "Callback": "graphmeta.training.callbacks",
    "evaluate": "graphmeta.evaluation.ranking",
    "evaluate_next_basket": "graphmeta.evaluation.next_basket",
    "audit": "graphmeta.evaluation.audit",
    "load": "graphmeta.published.load",
    "rollback": "graphmeta.storage.versions",
    # recommendations for files and logs
    "recommend_file": "graphmeta.inference.bulk",
    "recommend_log": "graphmeta.inference.bulk",
    "read_recommendations": "graphmeta.inference.read_back",
    "SessionFile": "graphmeta.inference.session_file",
    "check_encoder": "graphmeta.testing",
    "InputError": "graphmeta.errors",
}
_PACKAGES = {
    "nn": "graphmeta.nn",
    "datasets": "graphmeta.datasets",
    "metrics": "graphmeta.evaluation.metrics",
    "plots": "graphmeta.plots",
}
__all__ = [*_HOME, *_PACKAGES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name in _PACKAGES:
        found = import_module(_PACKAGES[name])
    elif name in _HOME:
        found = getattr(import_module(_HOME[name]), name)
    else:
        from graphmeta.errors import nearest

        near = None if name.startswith("_") else nearest(name, __all__)
        meant = f"did you mean {near!r}? " if near else ""
        raise AttributeError(f"module 'graphmeta' has no attribute {name!r}; {meant}dir(graphmeta) lists what it has")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
