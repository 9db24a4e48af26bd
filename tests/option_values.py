"""Another value than the default of every option of the catalogue."""

from typing import Any

from graphmeta.nn.conditioning.gate import Column, Row
from graphmeta.published.catalogue import CATALOGUE

# A value of every argument that is not its default; those of one system alone stand under its name.
OTHER: dict[str, Any] = {
    "width": 6, "steps": 2, "score_terms": ("repeat_bias", "same_category"), "max_support": 3, "max_length": 4,
    "layers": 3, "weighted": True, "item_weight": 0.7, "attribute_weight": 0.3, "learned_weights": True,
    "dropout": 0.3, "cell": "gru", "loss": "bpr", "negatives": 4, "weight": 0.4, "kernel": 3, "cycle": 2,
    "residual": False, "length": 3, "horizontal": 5, "vertical": 2, "ahead": 2,
    "hidden": 7, "user_width": 5, "carry_state": True, "temporal": True, "time_width": 3, "dwell_lag": 0,
    "messages": "attention", "neighbours": 2, "window": 2, "discount": 0, "normalised": True, "scale": 9.0,
    "drop": 0.25, "lr": 0.02, "learned": True, "order": 2, "slots": 2, "rate": 0.2, "size": 5, "path_lr": 0.01,
    "clusters": 3, "gate": "cluster", "granularity": Column(), "gate_scope": "sample",
    "scope": ["head"], "without": ["head.project.prototypes", "head.scale"],
    "penalty": 0.01, "sums": True, "graph": 5, "code": 3, "epochs": 2, "batch_size": 32,
    "from_scratch": True, "rounds": 2, "offline": 1, "warm_up": 1, "detach_dot": False, "restart_from": "transferred",
    "inner": {"clip": 0.5, "proximal": 0.1, "multi_step": 0.5, "first_order": 0.25},
    "anchor": "user", "history": 3, "history_events": 20, "decay": 0.2, "item_bias": False, "bias_rate": 50.0,
    "sessions": 4, "empty": 0.3, "recent": 1, "idf": False, "lambda1": 1.0, "lambda2": 0.1, "lambda3": 1.0, "days": 2.0,
    "popular_ties": False, "popular_rest": False, "group": 2, "within": 0.5, "between": 0.4, "locality": 1.0,
    "known": 4, "paths": ["genre"], "alpha": 0.5, "bias": False, "whole": False, "tower": (5,), "combine": "concat",
}  # fmt: skip
NESTED = {"base": "dropout_net", "options": {"base": "sr_gnn", "options": {"steps": 2}, "drop": 0.1}}
OWN: dict[str, dict[str, Any]] = {
    "gru4rec": {"cell": "lstm"}, "global_gnn": {"context_dropout": 0.2, "item_dropout": 0.1}, "sml": {"residual": True},
    "mamo_rating": {"bias": 0.2}, "cluster_seq": {"weight": 0.3, "dropout": 0.1}, "attention_decoder": {"dropout": 0.1},
    "meta_tl": {"hidden": (9, 8), "order": 1, "inner": {"clip": 0.5}},
    "reranker": {"base": "sr_gnn", "options": {"score_terms": ("cooccurrence",), "steps": 2}},
    "dropout_net": {"base": "gru4rec", "options": {"cell": "lstm"}},
    "maml": {"base": "hetero_gnn", "options": {"messages": "attention"}, "width": 8, "learned": "per group"},
    "multi_ft": {"base": "caser", "options": {"length": 3}}, "melu": NESTED,
    "mamo": {"base": "gc_san", "options": {"dropout": 0.1, "layers": 2}},
    "meta_hin": {"base": "niser", "options": {"steps": 2}, "inner": {"clip": 0.5}},
    "meta_hin_rating": {"inner": {"clip": 0.5}},
    "cbml": {"base": "sr_gnn", "options": {"score_terms": ["repeat_bias"]}, "granularity": Row()},
    "cbml_g": {"base": "niser", "options": {"scale": 8.0}, "gate": "both"},
    "cbml_c": {"base": "gru4rec", "options": {"layers": 2, "bias": False}, "gate": "both"},
    "cbml_s": {"base": "gc_san", "options": {"layers": 2}, "gate": "session"},
    "cbml_f": {"base": "sr_gnn", "options": {"steps": 2}, "granularity": "rank1"},
    "hetero_gnn": {"width": 8},
    "ensemble": {"members": ("gru4rec", "sr_gnn"), "member_options": ({"layers": 2}, {"steps": 2})},
    "personal_reranker": {"base": "sr_gnn", "options": {"score_terms": ("cooccurrence",), "steps": 2}},
    "amortised": {"base": "sr_gnn", "options": {"steps": 2}},
    **{name: {"base": "bpr_mf", "options": {"negatives": 2}} for name in ("full_retrain", "fine_tune", "spmf", "sml")},
}  # fmt: skip
OWN["sml"]["residual"] = True


def changed(name: str) -> dict[str, Any]:
    """Every argument of the system, none as it is by default."""
    entry = CATALOGUE[name]
    values = {key: {**OTHER, **OWN.get(name, {})}[key] for key in entry.options}
    defaults = {"base": entry.base, "options": None, "width": None, **entry.defaults}
    alike = {key for key, value in values.items() if key in defaults and value == defaults[key]}
    assert not alike
    return values
