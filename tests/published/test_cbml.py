"""CBML's oracles: what it is when its parts are switched off, and what each kind of gate multiplies."""

import pytest
import torch

from graphmeta.errors import InputError
from graphmeta.nn.conditioning.gate import Column, Rank1
from graphmeta.published.catalogue import build
from graphmeta.published.load import load
from graphmeta.sampling.samples import last_clicks, sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import fake_log

LOG = fake_log(sessions=40)
SAMPLES = last_clicks(LOG).take(slice(0, 6))
WIDTH = 6


def cbml_like(base, **arguments):
    """CBML whose IF-SAN part holds the weights of ``base`` and whose cluster block is zero."""
    system = build("cbml", LOG.items, width=6, **arguments)
    own, others = system.recommender.state_dict(), base.recommender.state_dict()
    for name in own:
        if name in others and name != "head.project.weight":
            own[name] = others[name]
    own["head.project.weight"] = torch.cat([others["head.project.weight"], torch.zeros(6, 6)], 1)
    system.recommender.load_state_dict(own)
    return system


def open_gates(system):
    for gate in system.adaptation.start.gates.values():
        torch.nn.init.zeros_(gate.weight)
        torch.nn.init.constant_(gate.bias, 100.0)


@torch.no_grad()
def test_cbml_with_everything_off_is_if_san():
    torch.manual_seed(0)
    base = build("if_san", LOG.items, width=6)
    system = cbml_like(base, lr=0.0)
    open_gates(system)
    samples = last_clicks(LOG)
    torch.testing.assert_close(system.scores(samples), base.scores(samples))


@torch.no_grad()
def test_the_gate_is_what_differs():
    torch.manual_seed(0)
    base = build("if_san", LOG.items, width=6)
    samples = last_clicks(LOG)
    assert not torch.allclose(cbml_like(base, lr=0.0).scores(samples), base.scores(samples))


@torch.no_grad()
def test_one_cluster_has_one_centre_for_all():
    torch.manual_seed(0)
    system = build("cbml", LOG.items, width=6, clusters=1)
    batch = session_batch(last_clicks(LOG), num_items=LOG.num_items)
    head, states = system.recommender.head, system.recommender.encode(batch)[0]
    centre = head.project.reads(head.readout(states, batch))[:, -6:]
    assert len(centre) == 40
    torch.testing.assert_close(centre, head.project.prototypes.centres.expand_as(centre))


def test_cbml_adapts_all_of_the_recommender_but_the_clusters():
    system = build("cbml", LOG.items, width=6)
    left_out = {n for n, _ in system.recommender.named_parameters()} - set(system.adaptation.names)
    assert left_out and all(name.startswith("head.project.prototypes") for name in left_out)


def parts_of(system):
    """What the last layer reads of each session, its weight and bias, and the gates as numbers in (0, 1)."""
    batch = session_batch(SAMPLES, num_items=LOG.num_items)
    seen = torch.cat([system.recommender.summary(session_batch(SAMPLES.take([s]), num_items=LOG.num_items))
                      for s in range(len(SAMPLES))])  # fmt: skip
    layer = system.recommender.head.project
    names = {"weight": "head/project/weight", "bias": "head/project/bias"}
    gates = {short: torch.sigmoid(system.adaptation.start.gates[name](seen)) for short, name in names.items()}
    _, table = system.recommender.encode(batch)
    return seen, layer.weight, layer.bias, gates, table


def built(seed=0, **arguments):
    torch.manual_seed(seed)
    return build("cbml", LOG.items, width=WIDTH, **arguments).double().eval()


@pytest.mark.usefixtures("float64")
@torch.no_grad()
def test_a_column_gate_scales_the_input():
    system = built(granularity="column", lr=0.0)
    x, weight, bias, gates, table = parts_of(system)
    wanted = ((x * gates["weight"]) @ weight.t() + bias * gates["bias"]) @ table.t()
    torch.testing.assert_close(system.scores(SAMPLES), wanted, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("float64")
@torch.no_grad()
def test_a_row_gate_scales_the_output_before_the_bias():
    system = built(granularity="row", lr=0.0)
    x, weight, bias, gates, table = parts_of(system)
    wanted = (gates["weight"] * (x @ weight.t()) + bias * gates["bias"]) @ table.t()
    torch.testing.assert_close(system.scores(SAMPLES), wanted, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("granularity", ["full", "rank1", "row", "column"])
@torch.no_grad()
def test_without_a_step_gates_of_samples_are_gates_of_sessions(granularity):
    session = built(granularity=granularity, lr=0.0)
    sample = built(granularity=granularity, lr=0.0, gate_scope="sample")
    weights = {
        name.replace("adaptation.start.gates.head/project/", "recommender.head.project.gate.gates."): tensor
        for name, tensor in session.state_dict().items()
    }
    sample.load_state_dict(weights)
    torch.testing.assert_close(sample.scores(SAMPLES), session.scores(SAMPLES), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_gates_of_samples_are_computed_for_each_support_sample():
    """The step by hand, for one session: each prefix under its own gate, the slope with respect to the shared W."""
    system = built(gate_scope="sample", scope="predictor", lr=0.5, granularity="column")
    one, project = SAMPLES.take([0]), system.recommender.head.project
    clicks = one.item[one.begin[0] : one.end[0]]
    weight, bias = (tensor.detach().clone().requires_grad_() for tensor in (project.weight, project.bias))

    def scores(prefix, weight, bias):
        batch = session_batch(sessions_without_target([prefix]), num_items=LOG.num_items)
        x, table = system.recommender.summary(batch)[0], system.recommender.encode(batch)[1]
        gate = [torch.sigmoid(project.gate.gates[name](x)) for name in ("weight", "bias")]
        return (weight @ (gate[0] * x) + bias * gate[1]) @ table.t()

    losses = [
        torch.nn.functional.cross_entropy(scores(clicks[:n], weight, bias), torch.tensor(clicks[n]))
        for n in range(1, len(clicks))
    ]
    slopes = torch.autograd.grad(torch.stack(losses).mean(), (weight, bias))
    wanted = scores(clicks, weight - 0.5 * slopes[0], bias - 0.5 * slopes[1])
    torch.testing.assert_close(system.scores(one)[0], wanted.detach(), rtol=0, atol=1e-12)


@torch.no_grad()
def test_cbml_g_is_cbml_with_open_gates():
    torch.manual_seed(0)
    free, gated = build("cbml_g", LOG.items, width=WIDTH).eval(), build("cbml", LOG.items, width=WIDTH).eval()
    gated.recommender.load_state_dict(free.recommender.state_dict())
    open_gates(gated)
    torch.testing.assert_close(gated.scores(SAMPLES), free.scores(SAMPLES), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "sees"), [("cbml_c", slice(0, 12)), ("cbml_s", slice(12, 18))])
@torch.no_grad()
def test_a_variant_is_cbml_whose_gate_sees_less(name, sees):
    torch.manual_seed(0)
    less, full = build(name, LOG.items, width=WIDTH).eval(), build("cbml", LOG.items, width=WIDTH).eval()
    full.recommender.load_state_dict(less.recommender.state_dict())
    for key, gate in full.adaptation.start.gates.items():
        torch.nn.init.zeros_(gate.weight)
        gate.weight[:, sees] = less.adaptation.start.gates[key].weight
        gate.bias.copy_(less.adaptation.start.gates[key].bias)
    torch.testing.assert_close(full.scores(SAMPLES), less.scores(SAMPLES), rtol=0, atol=1e-6)


def test_cbml_f_sees_no_attributes():
    system = build("cbml_f", LOG.items, width=WIDTH)
    project, gates = system.recommender.head.project, system.adaptation.start
    assert project.prototypes.query.weight.shape == (6, 6) and project.weight.shape == (6, 12) and gates.width == 12
    assert not [name for name, _ in system.named_parameters() if "field_" in name]
    assert set(system.items.attributes) == {"category", "brand"}  # the system still knows them, to show and save


@pytest.mark.parametrize(
    ("scope", "changes"),
    [("predictor", {"head"}), ("attention", {"encoder", "head"}), ("all", {"features", "encoder", "head"})],
)
@pytest.mark.parametrize("gate_scope", ["session", "sample"])
def test_scopes_by_name(scope, changes, gate_scope):
    names = build("cbml", LOG.items, width=WIDTH, scope=scope, gate_scope=gate_scope).adaptation.names
    assert {name.split(".")[0] for name in names} == changes
    assert {name for name in names if name.startswith("head.")} == {"head.project.weight", "head.project.bias"}


@pytest.mark.parametrize("base", ["niser", "sr_gnn", "gc_san", "tagnn", "gru4rec", "caser", "hetero_gnn"])
def test_cbml_wraps_other_encoders(base):
    torch.manual_seed(0)
    system = build("cbml", LOG.items, users=LOG.users, width=WIDTH, base=base, scope="predictor")
    alone = build(base, LOG.items, users=LOG.users, width=WIDTH)
    alone.fit_statistics(LOG)
    copied = set(system.load_matching(alone))
    wanted = {name for name in alone.recommender.state_dict() if name != "head.project.bias"}
    assert wanted <= copied
    before, optimizer = (
        float(system.eval().losses(SAMPLES).mean().detach()),
        torch.optim.Adam(system.parameters(), 1e-2),
    )
    for _ in range(3):
        optimizer.zero_grad()
        system.losses(SAMPLES).mean().backward()
        optimizer.step()
    assert float(system.losses(SAMPLES).mean().detach()) < before
    assert not system.adaptation.fell_back


@torch.no_grad()
@pytest.mark.parametrize("base", ["niser", "sr_gnn", "gc_san", "gru4rec"])
def test_cbml_on_another_encoder_starts_as_that_encoder(base):
    system = build("cbml", LOG.items, width=WIDTH, base=base, lr=0.0, scope="predictor")
    alone = build(base, LOG.items, width=WIDTH)
    system.load_matching(alone)
    open_gates(system)
    torch.testing.assert_close(system.scores(SAMPLES), alone.scores(SAMPLES), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"granularity": "rank1", "gate_scope": "sample"},
        {"granularity": Column(), "scope": ["head.project"]},
        {"granularity": Rank1(), "learned": True, "steps": 2, "scope": "attention"},
        {"base": "niser", "options": {"scale": 9.0}, "scope": "predictor"},
        {"gate": "none", "scope": "predictor"},
    ],
)
def test_every_option_is_saved(arguments, tmp_path):
    system = build("cbml", LOG.items, width=WIDTH, **arguments).eval()
    system.save(tmp_path)
    again = load(tmp_path).eval()
    assert torch.equal(again.scores(SAMPLES), system.scores(SAMPLES))
    assert str(again) == str(system)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"granularity": "rows"}, "unknown granularity 'rows'; choose full, row, column, rank1"),
        ({"scope": "everything"}, "no scope is called 'everything'; there are predictor, encoder_head, all"),
        ({"gate": "all"}, "must be one of both, session, cluster, none"),
        ({"gate_scope": "task"}, "session or sample"),
        ({"clusters": 0}, "cbml takes no clusters=0; it must be 1 or more"),
        ({"steps": 1.5}, "takes no steps=.1.5.; it must be int"),
        ({"lr": float("nan")}, "the rate is nan; it must be a finite number"),
        ({"scope": ["head.score_terms.reranker"], "base": "reranker"}, "excluded from adaptation.*reranker"),
        ({"base": "niserr"}, "no system is called 'niserr'"),
        ({"base": "youtube_dnn", "options": {"tower": [7]}}, "does not end in one linear layer"),
    ],
)
def test_strange_options_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        build("cbml", LOG.items, width=WIDTH, **arguments)


def test_a_gate_that_reads_nothing_is_refused():
    from graphmeta.published.options import ClusterGate

    with pytest.raises(InputError, match="gate=None"):
        ClusterGate(session=False, cluster=False)
