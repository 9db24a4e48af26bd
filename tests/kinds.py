"""Which cases of a large product the quick suite runs; `make slow` runs the others."""

from collections import Counter

# One system for each way in which systems of the catalogue are built, trained, adapted or saved.
KINDS = frozenset(
    {
        *("sr_gnn", "gru4rec", "if_san", "caser", "bpr_mf", "asars_time_user", "hetero_gnn", "personal_reranker"),
        *("dropout_net", "cbml", "maml", "mamo", "meta_hin", "meta_cf_neural", "cluster_seq", "meta_tl"),
        *("mamo_rating", "spmf", "sml", "item_knn", "tifu_knn"),
    }
)


def values_of(item) -> set[tuple[tuple[str, ...], tuple[int, ...]]]:
    """The value of each ``parametrize`` and parametrised fixture of a test: the names, and which objects they have."""
    params = item.callspec.params
    groups = [mark.args[0] for mark in item.iter_markers("parametrize")]
    groups = [tuple(name.strip() for name in g.split(",")) if isinstance(g, str) else tuple(g) for g in groups]
    groups += [(name,) for name in params if not any(name in group for group in groups)]
    return {(group, tuple(id(params[name]) for name in group)) for group in groups}


def covering(cases: list[set]) -> set[int]:
    """Numbers of cases that together have every value of all cases.

    Each adds the most values not had before; of equal ones, that of the rarest values, so that none has one value only.
    """
    used, chosen = Counter(), set()
    while left := set().union(*cases) - used.keys():
        best = max(range(len(cases)), key=lambda n: (len(cases[n] & left), -sum(used[v] for v in cases[n]), -n))
        chosen.add(best)
        used.update(cases[best])
    return chosen
