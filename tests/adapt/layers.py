"""A catalogue of layers inside an encoder: ``LAYERS[name](width)`` is a module ``(x, batch) -> states``.

Names begin with their kind: ``conv`` (:mod:`torch_geometric.nn.conv`), ``aggr``, ``norm``, ``model``, ``torch``
(layers of :mod:`torch.nn`) and ``idiom`` (what people write with learned tensors). What cannot be in it is in
``ABSENT``, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import aggr as aggregations
from torch_geometric.nn import models
from torch_geometric.nn import norm as norms
from torch_geometric.utils import add_self_loops, scatter

from graphmeta.sampling.batch_rows import NEXT

ITEMS = 23  # the vocabulary of the sweep
Factory = Callable[[int], nn.Module]

LAYERS: dict[str, Factory] = {}
ABSENT: dict[str, str] = {}
EVAL_ONLY: set[str] = set()  # in training they mix sessions, sample at random or count what they have seen
PLAIN: dict[str, Factory] = {}  # the same function for the reference, where making the layer is slow
THREE_STEPS: set[str] = set()


class Encoder(nn.Module):
    """``call(self, …)`` with ``parts`` as attributes: modules, parameters, or anything."""

    def __init__(self, call: Callable[..., Tensor], parts: dict[str, Any]) -> None:
        super().__init__()
        self.call = call
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)


class Rows(Encoder):
    """What ``call(self, x [I, D], batch)`` makes of the item rows, at every click of theirs."""

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        return torch.tanh(self.call(self, x, batch))[batch["event"].item]


class Clicks(Encoder):
    """What ``call(self, h [E, D], batch)`` makes of the clicks."""

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        return self.call(self, x[batch["event"].item], batch)


class Padded(Encoder):
    """What ``call(self, h [S, L, D], known [S, L], batch)`` makes of the sessions, padded to the longest."""

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        dense, known = padded(x[batch["event"].item], batch, self.length(batch))
        return flat(self.call(self, dense, known, batch), batch)

    def length(self, batch: HeteroData) -> int:
        return batch.longest


class Fixed(Padded):
    """The same, padded to 50 places whatever the batch."""

    def length(self, batch: HeteroData) -> int:
        return 50


def padded(h: Tensor, batch: HeteroData, length: int) -> tuple[Tensor, Tensor]:
    event, size = batch["event"], batch["sample"].num_nodes
    dense = h.new_zeros(size, length, h.shape[1]).index_put((event.batch, event.order), h)
    known = torch.zeros(size, length, dtype=torch.bool).index_put((event.batch, event.order), torch.tensor(True))
    return dense, known


def flat(dense: Tensor, batch: HeteroData) -> Tensor:
    return dense[batch["event"].batch, batch["event"].order]


def edges(batch: HeteroData) -> Tensor:
    return batch[NEXT].edge_index


def weights(x: Tensor, batch: HeteroData) -> Tensor:
    return batch[NEXT].weight.to(x.dtype)


def kinds(batch: HeteroData) -> Tensor:
    """A kind of each edge, 0 or 1, by the items at its ends."""
    source, end = edges(batch)
    n_id = batch["item"].n_id
    return (n_id[source] + n_id[end]) % 2


def attributes(x: Tensor, batch: HeteroData, size: int) -> Tensor:
    """Numbers of each edge, ``[N, size]``, between 0 and 1."""
    source, end = edges(batch)
    return torch.sigmoid((x[source] - x[end])[:, :size] * weights(x, batch)[:, None])


def places(x: Tensor, batch: HeteroData) -> Tensor:
    """A point in space for each item row, ``[I, 3]``, and always the same for one item."""
    n_id = batch["item"].n_id.to(x.dtype)
    return torch.stack([n_id.sin(), (2 * n_id).cos(), (3 * n_id + 1).sin()], 1)


def owner(batch: HeteroData) -> Tensor:
    return batch["item"].batch


def samples(batch: HeteroData) -> int:
    return batch["sample"].num_nodes


def lengths(batch: HeteroData) -> Tensor:
    return batch["sample"].ptr.diff()


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with a smooth function between."""
    parts: list[nn.Module] = []
    for one, other in zip(sizes, sizes[1:], strict=False):
        parts += [nn.Linear(one, other), nn.Tanh()]
    return nn.Sequential(*parts[:-1])


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * 0.5)


def add(name: str, kind: type[Encoder], call: Callable[..., Tensor], parts: Callable[[int], dict[str, Any]]) -> None:
    """A layer of the catalogue."""
    assert name not in LAYERS, name
    LAYERS[name] = lambda width: kind(call, parts(width))


def conv(name: str, make: Callable[[int], nn.Module], call: Callable[..., Any] | None = None, *, first: bool = False):
    """A convolution over the items' transitions; ``first`` puts a linear layer before one without weights."""

    def run(m: Any, x: Tensor, batch: HeteroData) -> Tensor:
        x = m.first(x) if first else x
        return m.conv(x, edges(batch)) if call is None else call(m.conv, x, batch)

    def parts(width: int) -> dict[str, Any]:
        return {"conv": make(width)} | ({"first": nn.Linear(width, width)} if first else {})

    add(f"conv {name}", Rows, run, parts)


def weighted(c: Any, x: Tensor, b: HeteroData) -> Tensor:
    return c(x, edges(b), weights(x, b))


def attributed(size: int) -> Callable[..., Tensor]:
    return lambda c, x, b: c(x, edges(b), attributes(x, b, size))


def typed(c: Any, x: Tensor, b: HeteroData) -> Tensor:
    return c(x, edges(b), kinds(b))


def pair(c: Any, x: Tensor, b: HeteroData) -> Tensor:
    return c((x, x.sin()), edges(b))


def bipartite(c: Any, x: Tensor, b: HeteroData) -> Tensor:
    """From clicks to items, which are other rows."""
    event = b["event"]
    at = torch.stack([torch.arange(event.num_nodes), event.item])
    return c((x[event.item].sin(), x), at)


# Convolutions that have a form on (x, edge_index).

for _aggr in ("sum", "mean", "max", "min", "mul", "std", "var"):
    conv(f"SimpleConv {_aggr}", lambda d, a=_aggr: pyg.SimpleConv(aggr=a, combine_root="sum"), first=True)
conv("SimpleConv median", lambda d: pyg.SimpleConv(aggr="median"), lambda c, x, b: c(x, looped(x, b)), first=True)
conv("GCNConv", lambda d: pyg.GCNConv(d, d))
conv("GCNConv weighted", lambda d: pyg.GCNConv(d, d), weighted)
conv("GCNConv improved", lambda d: pyg.GCNConv(d, d, improved=True, bias=False))
conv("GCNConv plain", lambda d: pyg.GCNConv(d, d, normalize=False, add_self_loops=False))
conv("ChebConv", lambda d: pyg.ChebConv(d, d, K=3))
conv("ChebConv rw", lambda d: pyg.ChebConv(d, d, K=2, normalization="rw"), weighted)
conv("SAGEConv", lambda d: pyg.SAGEConv(d, d))
conv("SAGEConv project", lambda d: pyg.SAGEConv(d, d, project=True, normalize=True))
conv("SAGEConv max", lambda d: pyg.SAGEConv(d, d, aggr="max"))
conv("SAGEConv several", lambda d: pyg.SAGEConv(d, d, aggr=["mean", "max", "std"]))
conv("SAGEConv pair", lambda d: pyg.SAGEConv((d, d), d), pair)
conv("SAGEConv bipartite", lambda d: pyg.SAGEConv((d, d), d), bipartite)
conv("GraphConv", lambda d: pyg.GraphConv(d, d), weighted)
conv("GraphConv bipartite", lambda d: pyg.GraphConv((d, d), d), bipartite)
conv("GatedGraphConv", lambda d: pyg.GatedGraphConv(d, 2), weighted)
conv("ResGatedGraphConv", lambda d: pyg.ResGatedGraphConv(d, d))
conv("ResGatedGraphConv attributes", lambda d: pyg.ResGatedGraphConv(d, d, edge_dim=2), attributed(2))
conv("GATConv", lambda d: pyg.GATConv(d, d // 2, heads=2))
conv("GATConv attributes", lambda d: pyg.GATConv(d, d, heads=2, concat=False, edge_dim=3), attributed(3))
conv("GATConv residual", lambda d: pyg.GATConv(d, d, residual=True, add_self_loops=False))
conv("GATConv bipartite", lambda d: pyg.GATConv((d, d), d, add_self_loops=False), bipartite)
conv("GATv2Conv", lambda d: pyg.GATv2Conv(d, d // 2, heads=2))
conv("GATv2Conv shared", lambda d: pyg.GATv2Conv(d, d, share_weights=True))
conv("GATv2Conv attributes", lambda d: pyg.GATv2Conv(d, d, edge_dim=2, residual=True), attributed(2))
conv("TransformerConv", lambda d: pyg.TransformerConv(d, d // 2, heads=2, beta=True))
conv("TransformerConv attributes", lambda d: pyg.TransformerConv(d, d, edge_dim=2), attributed(2))
conv("AGNNConv", lambda d: pyg.AGNNConv(), first=True)
conv("TAGConv", lambda d: pyg.TAGConv(d, d, K=2), weighted)
conv("GINConv", lambda d: pyg.GINConv(mlp(d, d, d), train_eps=True))
conv("GINEConv", lambda d: pyg.GINEConv(mlp(d, d), train_eps=True, edge_dim=2), attributed(2))
conv("ARMAConv", lambda d: pyg.ARMAConv(d, d, num_stacks=2, num_layers=2), weighted)
conv("ARMAConv shared", lambda d: pyg.ARMAConv(d, d, num_stacks=2, num_layers=3, shared_weights=True))
conv("SGConv", lambda d: pyg.SGConv(d, d, K=2), weighted)
conv("SSGConv", lambda d: pyg.SSGConv(d, d, alpha=0.2, K=2))
conv("APPNP", lambda d: pyg.APPNP(K=2, alpha=0.2), first=True)
conv("MFConv", lambda d: pyg.MFConv(d, d, max_degree=3))
conv("RGCNConv", lambda d: pyg.RGCNConv(d, d, 2), typed)
conv("RGCNConv bases", lambda d: pyg.RGCNConv(d, d, 2, num_bases=2), typed)
conv("RGCNConv blocks", lambda d: pyg.RGCNConv(d, d, 2, num_blocks=2), typed)
conv("FastRGCNConv", lambda d: pyg.FastRGCNConv(d, d, 2), typed)
conv("FastRGCNConv bases", lambda d: pyg.FastRGCNConv(d, d, 2, num_bases=3), typed)
conv("RGATConv", lambda d: pyg.RGATConv(d, d, 2), typed)
conv(
    "RGATConv within",
    lambda d: pyg.RGATConv(d, d // 2, 2, heads=2, attention_mechanism="within-relation", num_bases=2, edge_dim=2),
    lambda c, x, b: c(x, edges(b), kinds(b), attributes(x, b, 2)),
)
conv("SignedConv", lambda d: pyg.SignedConv(d, d // 2, first_aggr=True), lambda c, x, b: c(x, *signed(b)))
conv(
    "SignedConv second",
    lambda d: pyg.SignedConv(d // 2, d // 2, first_aggr=False),
    lambda c, x, b: c(x, *signed(b)),
)
conv(
    "DNAConv",
    lambda d: pyg.DNAConv(d, heads=2, groups=2),
    lambda c, x, b: c(torch.stack([x, x.sin(), x.cos()], 1), edges(b)),
)
conv(
    "PointNetConv",
    lambda d: pyg.PointNetConv(mlp(d + 3, d), mlp(d, d)),
    lambda c, x, b: c(x, places(x, b), edges(b)),
)
conv("GMMConv", lambda d: pyg.GMMConv(d, d, dim=2, kernel_size=3), attributed(2))
conv("GMMConv separate", lambda d: pyg.GMMConv(d, d, dim=2, kernel_size=2, separate_gaussians=True), attributed(2))
conv("NNConv", lambda d: pyg.NNConv(d, d, mlp(2, d * d)), attributed(2))
conv("CGConv", lambda d: pyg.CGConv(d))
conv("CGConv attributes", lambda d: pyg.CGConv(d, dim=2), attributed(2))
conv("EdgeConv", lambda d: pyg.EdgeConv(mlp(2 * d, d)))
conv("EdgeConv normalised", lambda d: pyg.EdgeConv(nn.Sequential(nn.Linear(2 * d, d), nn.LayerNorm(d)), aggr="mean"))
conv(
    "PPFConv",
    lambda d: pyg.PPFConv(mlp(d + 4, d), mlp(d, d)),
    lambda c, x, b: c(x, places(x, b), F.normalize(places(x, b).flip(1), dim=1), edges(b)),
)
conv("FeaStConv", lambda d: pyg.FeaStConv(d, d, heads=2))
conv(
    "PointTransformerConv",
    lambda d: pyg.PointTransformerConv(d, d),
    lambda c, x, b: c(x, places(x, b), edges(b)),
)
conv(
    "PointTransformerConv deep",
    lambda d: pyg.PointTransformerConv(d, d, mlp(3, d, d), mlp(d, d)),
    lambda c, x, b: c(x, places(x, b), edges(b)),
)
conv("HypergraphConv", lambda d: pyg.HypergraphConv(d, d), lambda c, x, b: c(x, hyper(b), num_edges=samples(b)))
conv(
    "HypergraphConv attention",
    lambda d: pyg.HypergraphConv(d, d // 2, use_attention=True, heads=2),
    lambda c, x, b: c(x, hyper(b), hyperedge_attr=of_samples(x, b), num_edges=samples(b)),
)
conv("LEConv", lambda d: pyg.LEConv(d, d), weighted)
conv(
    "PNAConv",
    lambda d: pyg.PNAConv(d, d, ["mean", "max", "std"], ["identity", "amplification"], DEGREES, towers=2),
)
conv("PNAConv attributes", lambda d: pyg.PNAConv(d, d, ["sum"], ["linear"], DEGREES, edge_dim=2), attributed(2))
conv("ClusterGCNConv", lambda d: pyg.ClusterGCNConv(d, d, diag_lambda=0.5))
conv("GENConv", lambda d: pyg.GENConv(d, d, learn_t=True, norm="layer", msg_norm=True, learn_msg_scale=True))
conv("GENConv power", lambda d: pyg.GENConv(d, d, aggr="powermean", learn_p=True, norm="layer"))
conv("GENConv attributes", lambda d: pyg.GENConv(d, d, edge_dim=2, norm="layer"), attributed(2))
conv("GCN2Conv", lambda d: pyg.GCN2Conv(d, alpha=0.3), lambda c, x, b: c(x, x.sin(), edges(b)))
conv(
    "GCN2Conv apart",
    lambda d: pyg.GCN2Conv(d, alpha=0.3, theta=0.5, layer=1, shared_weights=False),
    lambda c, x, b: c(x, x.sin(), edges(b), weights(x, b)),
)
conv("WLConvContinuous", lambda d: pyg.WLConvContinuous(), weighted, first=True)
conv("FiLMConv", lambda d: pyg.FiLMConv(d, d))
conv("FiLMConv typed", lambda d: pyg.FiLMConv(d, d, num_relations=2, act=nn.Tanh()), typed)
conv("SuperGATConv", lambda d: pyg.SuperGATConv(d, d // 2, heads=2), lambda c, x, b: c(x, edges(b), edges(b).flip(0)))
conv(
    "SuperGATConv SD",
    lambda d: pyg.SuperGATConv(d, d, attention_type="SD"),
    lambda c, x, b: c(x, edges(b), edges(b).flip(0)),
)
conv("FAConv", lambda d: pyg.FAConv(d), lambda c, x, b: c(x, x.sin(), edges(b)))
conv(
    "EGConv",  # its own self-loops miss a node that no edge leads to
    lambda d: pyg.EGConv(d, d, num_heads=2, num_bases=3, add_self_loops=False),
    lambda c, x, b: c(x, looped(x, b)),
)
conv(
    "EGConv several",
    lambda d: pyg.EGConv(d, d, ["sum", "mean", "max"], num_heads=3, num_bases=2, add_self_loops=False),
    lambda c, x, b: c(x, looped(x, b)),
)
conv("PDNConv", lambda d: pyg.PDNConv(d, d, edge_dim=2, hidden_channels=4), attributed(2))
conv("GeneralConv", lambda d: pyg.GeneralConv(d, d))
conv("GeneralConv attention", lambda d: pyg.GeneralConv(d, d, 2, heads=2, attention=True), attributed(2))
conv("GeneralConv dot", lambda d: pyg.GeneralConv(d, d, heads=2, attention=True, attention_type="dot_product"))
conv(
    "HEATConv",
    lambda d: pyg.HEATConv(d, d // 2, 2, 2, 3, 2, 3, heads=2),
    lambda c, x, b: heat(c, x, b),  # which cannot do without any edge
)
conv("LGConv", lambda d: pyg.LGConv(), weighted, first=True)
conv(
    "PointGNNConv",
    lambda d: pyg.PointGNNConv(mlp(d, 3), mlp(d + 3, d), mlp(d, d)),
    lambda c, x, b: c(x, places(x, b), edges(b)),
)
conv(
    "GPSConv",
    lambda d: pyg.GPSConv(d, pyg.GCNConv(d, d), heads=2, norm="layer_norm"),
    lambda c, x, b: c(x, edges(b), owner(b)),
)
conv(
    "GPSConv without a norm",
    lambda d: pyg.GPSConv(d, pyg.SAGEConv(d, d), heads=2, norm=None),
    lambda c, x, b: c(x, edges(b), owner(b)),
)
conv("AntiSymmetricConv", lambda d: pyg.AntiSymmetricConv(d, num_iters=2))
conv("DirGNNConv", lambda d: pyg.DirGNNConv(pyg.SAGEConv(d, d)))
conv("MixHopConv", lambda d: pyg.MixHopConv(d, d // 3, powers=[0, 1, 2]), weighted)
conv(
    "MeshCNNConv",
    lambda d: pyg.MeshCNNConv(d, d),
    lambda c, x, b: c(x, torch.arange(len(x)).repeat_interleave(4)[None].repeat(2, 1)),
)
DEGREES = torch.tensor([4, 6, 3, 1])

for _name in ("CuGraphSAGEConv", "CuGraphGATConv", "CuGraphRGCNConv", "FusedGATConv"):
    ABSENT[f"conv {_name}"] = "needs a GPU library (cugraph, dgNN)"
for _name in ("GravNetConv", "DynamicEdgeConv", "XConv"):
    ABSENT[f"conv {_name}"] = "finds neighbours by torch-cluster, which is not required"
ABSENT["conv SplineConv"] = "needs torch-spline-conv"
ABSENT["conv SAGEConv lstm"] = "reads the padding, whose length is the highest degree of the whole batch"
ABSENT["conv PANConv"] = "needs torch-sparse"
ABSENT["conv WLConv"] = "has no weight and no slope: it colours nodes by whole numbers"
ABSENT["conv MessagePassing"] = "the base class; see the idioms"
ABSENT["conv HGTConv, HeteroConv"] = "of several kinds of nodes: see `model`"
ABSENT["conv HANConv"] = "mixes sessions: its attention to kinds of edges is a mean over all nodes"


def signed(batch: HeteroData) -> tuple[Tensor, Tensor]:
    kind = kinds(batch)
    return edges(batch)[:, kind == 0], edges(batch)[:, kind == 1]


def hyper(batch: HeteroData) -> Tensor:
    """Samples as hyperedges over their items."""
    return torch.stack([torch.arange(len(owner(batch))), owner(batch)])


def of_samples(x: Tensor, batch: HeteroData) -> Tensor:
    return scatter(x, owner(batch), 0, samples(batch), reduce="mean")


def heat(conv: Any, x: Tensor, batch: HeteroData) -> Tensor:
    n_id, both = batch["item"].n_id, looped(x, batch)
    source, end = both
    return conv(x, both, n_id % 2, (n_id[source] + n_id[end]) % 2, torch.sigmoid((x[source] - x[end])[:, :2]))


def looped(x: Tensor, batch: HeteroData) -> Tensor:
    return add_self_loops(edges(batch), num_nodes=len(x))[0]


# Aggregations: every click sees what its session comes to.


def aggregate(
    name: str, make: Callable[[int], Any], out: Callable[[int], int] = lambda d: d, *, of_items: bool = False, **known
) -> None:
    def clicks(m: Any, h: Tensor, b: HeteroData) -> Tensor:
        found = m.aggr(m.first(h), b["event"].batch, dim_size=samples(b), **known)
        return h + torch.tanh(m.last(found))[b["event"].batch]

    def items(m: Any, x: Tensor, b: HeteroData) -> Tensor:
        found = m.aggr(m.first(x), owner(b), dim_size=samples(b), **known)
        return x + m.last(found)[owner(b)]

    def parts(d: int) -> dict[str, Any]:
        return {"first": nn.Linear(d, d), "aggr": make(d), "last": nn.Linear(out(d), d)}

    add(f"aggr {name}", Rows if of_items else Clicks, items if of_items else clicks, parts)


aggregate("Sum", lambda d: aggregations.SumAggregation())
aggregate("Sum of items", lambda d: aggregations.SumAggregation(), of_items=True)
aggregate("Mean", lambda d: aggregations.MeanAggregation())
aggregate("Max", lambda d: aggregations.MaxAggregation())
aggregate("Min", lambda d: aggregations.MinAggregation())
aggregate("Mul", lambda d: aggregations.MulAggregation())
aggregate("Var", lambda d: aggregations.VarAggregation())
aggregate("Std", lambda d: aggregations.StdAggregation())
aggregate("Softmax", lambda d: aggregations.SoftmaxAggregation(learn=True))
aggregate("Softmax by channel", lambda d: aggregations.SoftmaxAggregation(learn=True, channels=d))
add(
    "aggr PowerMean",  # of positive numbers
    Clicks,
    lambda m, h, b: (
        h + m.aggr(torch.sigmoid(m.first(h)) + 0.5, b["event"].batch, dim_size=samples(b))[b["event"].batch]
    ),
    lambda d: {"first": nn.Linear(d, d), "aggr": aggregations.PowerMeanAggregation(p=1.5, learn=True)},
)
aggregate("Median", lambda d: aggregations.MedianAggregation())
aggregate("Quantile", lambda d: aggregations.QuantileAggregation([0.3, 0.7]), lambda d: 2 * d)
# These read the padding, too: to a length that is always the same.
aggregate("LSTM", lambda d: aggregations.LSTMAggregation(d, d), max_num_elements=8)
aggregate("GRU", lambda d: aggregations.GRUAggregation(d, d), max_num_elements=8)
aggregate("Set2Set", lambda d: aggregations.Set2Set(d, 2), lambda d: 2 * d)
aggregate("DegreeScaler", lambda d: aggregations.DegreeScalerAggregation(["mean"], ["linear"], DEGREES))
aggregate(
    "DegreeScaler several",
    lambda d: aggregations.DegreeScalerAggregation(["sum", "max"], ["identity", "attenuation"], DEGREES),
    lambda d: 4 * d,
)
aggregate("Sort", lambda d: aggregations.SortAggregation(3), lambda d: 3 * d)
aggregate("GraphMultisetTransformer", lambda d: aggregations.GraphMultisetTransformer(d, k=2, heads=2))
aggregate("Attentional", lambda d: aggregations.AttentionalAggregation(mlp(d, 1), mlp(d, d)))
aggregate("Attentional of items", lambda d: aggregations.AttentionalAggregation(mlp(d, d)), of_items=True)
ABSENT["aggr Equilibrium"] = "mixes sessions: its energy is a mean over the batch"
aggregate("MLP", lambda d: aggregations.MLPAggregation(d, d, 8, num_layers=1))
aggregate("DeepSets", lambda d: aggregations.DeepSetsAggregation(mlp(d, d), mlp(d, d)))
aggregate("SetTransformer", lambda d: aggregations.SetTransformerAggregation(d, heads=2))
aggregate(
    "SetTransformer seeds",
    lambda d: aggregations.SetTransformerAggregation(d, num_seed_points=2, num_decoder_blocks=1, layer_norm=True),
    lambda d: 2 * d,
)
aggregate("LCM", lambda d: aggregations.LCMAggregation(d, d), max_num_elements=8)
EVAL_ONLY.add("aggr LCM")  # shuffles in training
aggregate("VariancePreserving", lambda d: aggregations.VariancePreservingAggregation())
aggregate("PatchTransformer", lambda d: aggregations.PatchTransformerAggregation(d, d, 2, d), max_num_elements=8)
aggregate(
    "Multi",
    lambda d: aggregations.MultiAggregation(["sum", aggregations.SoftmaxAggregation(learn=True)]),
    lambda d: 2 * d,
)
aggregate(
    "Multi by attention",
    lambda d: aggregations.MultiAggregation(
        ["sum", "max"], mode="attn", mode_kwargs={"in_channels": d, "out_channels": d, "num_heads": 2}
    ),
)
aggregate(
    "Multi by projection",
    lambda d: aggregations.MultiAggregation(["sum", "std"], mode="proj", mode_kwargs=dict.fromkeys(
        ["in_channels", "out_channels"], d
    )),
)  # fmt: skip
ABSENT["aggr FusedAggregation"] = "has no weight; the names in a list above make one"


# Norms, each after a linear layer.


def norm(name: str, make: Callable[[int], nn.Module], call: Callable[..., Tensor] | None = None, *, only_eval=False):
    def run(m: Any, x: Tensor, b: HeteroData) -> Tensor:
        return (lambda n, h, b: n(h))(m.norm, m.first(x), b) if call is None else call(m.norm, m.first(x), b)

    add(f"norm {name}", Rows, run, lambda d: {"first": nn.Linear(d, d), "norm": make(d)})
    if only_eval:
        EVAL_ONLY.add(f"norm {name}")


def by_owner(n: Any, h: Tensor, b: HeteroData) -> Tensor:
    return n(h, owner(b), samples(b))


norm("BatchNorm", lambda d: norms.BatchNorm(d), only_eval=True)
norm("HeteroBatchNorm", lambda d: norms.HeteroBatchNorm(d, 2), lambda n, h, b: n(h, b["item"].n_id % 2), only_eval=True)
norm("InstanceNorm", lambda d: norms.InstanceNorm(d, affine=True), by_owner)
norm("LayerNorm graph", lambda d: norms.LayerNorm(d), by_owner)
norm("LayerNorm node", lambda d: norms.LayerNorm(d, mode="node"), by_owner)
norm("HeteroLayerNorm", lambda d: norms.HeteroLayerNorm(d, 2), lambda n, h, b: n(h, b["item"].n_id % 2))
norm("GraphNorm", lambda d: norms.GraphNorm(d), by_owner)
norm("GraphSizeNorm", lambda d: norms.GraphSizeNorm(), by_owner)
norm("PairNorm", lambda d: norms.PairNorm(), by_owner)
norm("MeanSubtractionNorm", lambda d: norms.MeanSubtractionNorm(), by_owner)
norm("MessageNorm", lambda d: norms.MessageNorm(learn_scale=True), lambda n, h, b: h + n(h, h.cos()))
norm("DiffGroupNorm", lambda d: norms.DiffGroupNorm(d, 3), only_eval=True)
norm("torch LayerNorm", nn.LayerNorm)
norm("torch LayerNorm without weights", lambda d: nn.LayerNorm(d, elementwise_affine=False))
norm("torch LayerNorm without bias", lambda d: nn.LayerNorm(d, bias=False))
norm("torch RMSNorm", nn.RMSNorm)
norm("torch GroupNorm", lambda d: nn.GroupNorm(2, d))
norm("torch BatchNorm1d", nn.BatchNorm1d, only_eval=True)
norm("torch InstanceNorm1d", lambda d: nn.InstanceNorm1d(1, affine=True), lambda n, h, b: n(h[:, None])[:, 0])
norm("torch LocalResponseNorm", lambda d: nn.LocalResponseNorm(2), lambda n, h, b: n(h[:, :, None])[:, :, 0])


# PyG's models.


def model(name: str, make: Callable[[int], nn.Module], call: Callable[..., Any] | None = None, *, first: bool = False):
    conv(name, make, call, first=first)
    LAYERS[f"model {name}"] = LAYERS.pop(f"conv {name}")


model("MLP", lambda d: models.MLP([d, 2 * d, d], norm=None, act="tanh"), lambda m, x, b: m(x))
model("MLP layer norm", lambda d: models.MLP([d, 2 * d, d], norm="layer_norm"), lambda m, x, b: m(x, owner(b)))
model("GCN", lambda d: models.GCN(d, d, 2), weighted)
model("GCN norm", lambda d: models.GCN(d, d, 2, d, norm="graph_norm"), lambda m, x, b: m(x, edges(b), batch=owner(b)))
model("GCN jumping", lambda d: models.GCN(d, d, 2, d, jk="lstm"))
model("GraphSAGE", lambda d: models.GraphSAGE(d, d, 2))
model("GraphSAGE jumping", lambda d: models.GraphSAGE(d, d, 2, d, jk="cat"))
model("GIN", lambda d: models.GIN(d, d, 2))
model(
    "GAT",
    lambda d: models.GAT(d, d, 2, heads=2, edge_dim=2),
    lambda m, x, b: m(x, edges(b), edge_attr=attributes(x, b, 2)),
)
model("GATv2", lambda d: models.GAT(d, d, 2, v2=True, share_weights=True))
model("PNA", lambda d: models.PNA(d, d, 2, aggregators=["mean", "max"], scalers=["identity"], deg=DEGREES))
model("EdgeCNN", lambda d: models.EdgeCNN(d, d, 2))
for _mode in ("cat", "max", "lstm"):
    model(
        f"JumpingKnowledge {_mode}",
        lambda d, a=_mode: nn.ModuleDict(
            {"jk": models.JumpingKnowledge(a, d, 3), "last": nn.Linear(3 * d if a == "cat" else d, d)}
        ),
        lambda m, x, b: m["last"](m["jk"]([x, x.sin(), x.cos()])),
        first=True,
    )
model(
    "HeteroJumpingKnowledge",
    lambda d: models.HeteroJumpingKnowledge(["item", "other"], "lstm", d, 2),
    lambda m, x, b: m({"item": [x, x.sin()], "other": [x, x.cos()]})["item"],
)
model("AttentiveFP", lambda d: models.AttentiveFP(d, d, d, 2, 2, 2), lambda m, x, b: (
    x + m(x, edges(b), attributes(x, b, 2), owner(b))[owner(b)]
))  # fmt: skip
model("RECT_L", lambda d: models.RECT_L(d, d), weighted)
model("PMLP", lambda d: models.PMLP(d, d, d, 2, norm=False))
EVAL_ONLY.add("model PMLP")
model("NeuralFingerprint", lambda d: models.NeuralFingerprint(d, d, d, 2), lambda m, x, b: (
    x + m(x, edges(b), owner(b), samples(b))[owner(b)]
))  # fmt: skip
ABSENT["model SGFormer"] = "mixes sessions: its attention is divided by the norm of the whole batch"
model(
    "Polynormer",
    lambda d: models.Polynormer(d, d, d, 1, 1, 0.0, 0.0, 0.0, heads=1, post_bn=False),
    lambda m, x, b: m(x, edges(b), owner(b)),
)
model("DeepGCNLayer", lambda d: models.DeepGCNLayer(pyg.GENConv(d, d, norm="layer"), nn.LayerNorm(d), nn.Tanh()))
model(
    "DeepGCNLayer checkpointed",
    lambda d: models.DeepGCNLayer(pyg.GCNConv(d, d), nn.LayerNorm(d), nn.Tanh(), ckpt_grad=True),
)
model("GroupAddRev", lambda d: models.GroupAddRev(pyg.GCNConv(d // 2, d // 2), num_groups=2), first=True)
model(
    "GraphUNet",
    lambda d: models.GraphUNet(d, d, d, 1, 0.6),
    lambda m, x, b: m(x, looped(x, b), owner(b)),
)
model(
    "MetaLayer",
    lambda d: models.MetaLayer(EdgeModel(d), NodeModel(d), GlobalModel(d)),
    lambda m, x, b: m(x, edges(b), attributes(x, b, 3), of_samples(x, b), owner(b))[0],
)
for _name, _why in {
    "Node2Vec, MetaPath2Vec, LightGCN, LINKX": "have one row for each node of one graph",
    "DeepGraphInfomax, GAE, VGAE, ARGA, ARGVA, SignedGCN, LPFormer, ARLinkPredictor": "are losses and link predictors",
    "SchNet, DimeNet, GNNFF, ViSNet": "find atoms in space by torch-cluster",
    "RENet, TGNMemory, LabelPropagation, CorrectAndSmooth, MaskLabel, GPSE": "want other data, or labels",
}.items():
    ABSENT[f"model {_name}"] = _why


class EdgeModel(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.mlp = mlp(3 * d + 3, 3)

    def forward(self, source: Tensor, end: Tensor, attr: Tensor, u: Tensor, batch: Tensor) -> Tensor:
        return self.mlp(torch.cat([source, end, attr, u[batch]], 1))


class NodeModel(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.one, self.other = mlp(d + 3, d), mlp(3 * d, d)

    def forward(self, x: Tensor, edge_index: Tensor, attr: Tensor, u: Tensor, batch: Tensor) -> Tensor:
        out = scatter(self.one(torch.cat([x[edge_index[0]], attr], 1)), edge_index[1], 0, len(x), reduce="mean")
        return self.other(torch.cat([x, out, u[batch]], 1))


class GlobalModel(nn.Module):
    """Computed, and not read."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.mlp = mlp(2 * d, d)

    def forward(self, x: Tensor, edge_index: Tensor, attr: Tensor, u: Tensor, batch: Tensor) -> Tensor:
        return self.mlp(torch.cat([u, scatter(x, batch, 0, len(u), reduce="mean")], 1))


# Several kinds of nodes: items and clicks.

OF, HAS, AFTER = ("event", "of", "item"), ("item", "at", "event"), ("event", "after", "event")
METADATA = (["item", "event"], [NEXT, OF, HAS, AFTER])


def hetero(x: Tensor, batch: HeteroData) -> tuple[dict[str, Tensor], dict[tuple[str, str, str], Tensor]]:
    event = batch["event"]
    of = torch.stack([torch.arange(event.num_nodes), event.item])
    later = (event.order > 0).nonzero()[:, 0]
    after = torch.stack([later - 1, later])
    return {"item": x, "event": x[event.item].sin()}, {NEXT: edges(batch), OF: of, HAS: of.flip(0), AFTER: after}


class SeveralKinds(nn.Module):
    """Layers over both kinds of nodes, of whose last outputs one kind is read."""

    def __init__(self, layers: list[nn.Module], read: str) -> None:
        super().__init__()
        self.layers, self.read = nn.ModuleList(layers), read

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        nodes, links = hetero(x, batch)
        for layer in self.layers:
            nodes = {kind: torch.tanh(h) for kind, h in layer(nodes, links).items() if h is not None}
        return nodes[self.read][batch["event"].item] if self.read == "item" else nodes[self.read]


def hetero_conv(d: int, make: Callable[[int], Any] = lambda d: pyg.SAGEConv((d, d), d)) -> nn.Module:
    return pyg.HeteroConv({link: make(d) for link in METADATA[1]}, aggr="sum")


class Homogeneous(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.one, self.other = pyg.SAGEConv((d, d), d), pyg.SAGEConv((d, d), d)
        self.last = nn.Linear(d, d)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.one(x, edge_index).tanh()
        return self.last(self.other(h, edge_index))


for _read in ("item", "event"):
    LAYERS[f"model HGTConv, {_read}s read"] = lambda d, r=_read: SeveralKinds(
        [pyg.HGTConv(d, d, METADATA, heads=2) for _ in range(2)], r
    )
    LAYERS[f"model HeteroConv, {_read}s read"] = lambda d, r=_read: SeveralKinds([hetero_conv(d), hetero_conv(d)], r)
    LAYERS[f"model to_hetero, {_read}s read"] = lambda d, r=_read: SeveralKinds(
        [pyg.to_hetero(Homogeneous(d), METADATA)], r
    )
LAYERS["model HeteroConv of GATConv"] = lambda d: SeveralKinds(
    [hetero_conv(d, lambda d: pyg.GATConv((d, d), d, add_self_loops=False))], "event"
)
LAYERS["model HeteroDictLinear"] = lambda d: Clicks(
    lambda m, h, b: m.linear({"a": h, "b": h.sin(), "c": h})["a"],
    {"linear": pyg.HeteroDictLinear({"a": d, "b": d, "c": d}, d)},
)
add(
    "model HeteroLinear",
    Clicks,
    lambda m, h, b: m.linear(h, b["event"].order % 2),
    lambda d: {"linear": pyg.HeteroLinear(d, d, 2)},
)
add("model Linear", Clicks, lambda m, h, b: m.linear(h), lambda d: {"linear": pyg.Linear(d, d)})
add(
    "model Sequential",
    Rows,
    lambda m, x, b: m.net(x, edges(b)),
    lambda d: {"net": pyg.Sequential("x, edge_index", sequence(d))},
)


def sequence(d: int) -> list[Any]:
    return [
        (pyg.GCNConv(d, d), "x, edge_index -> x1"),
        nn.Tanh(),
        (nn.Linear(d, d), "x1 -> x2"),
        (lambda a, b: a + b, "x1, x2 -> x"),
    ]


add(
    "model PositionalEncoding",
    Clicks,
    lambda m, h, b: m.last(h * m.encode(b["event"].order.to(h.dtype))),
    lambda d: {"encode": pyg.PositionalEncoding(d), "last": nn.Linear(d, d)},
)
add(
    "model TemporalEncoding",
    Clicks,
    lambda m, h, b: m.last(h * m.encode(b["event"].order.to(h.dtype)).to(h.dtype)),
    lambda d: {"encode": pyg.TemporalEncoding(d), "last": nn.Linear(d, d)},
)
