"""The state of a model: whatever it was built with is loaded again; what is broken is neither saved nor loaded."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graphmeta.adapt.inner import InnerLoop
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import GroupRates, LearnedRates
from graphmeta.cli.commands import main
from graphmeta.errors import DivergedError, InputError
from graphmeta.evaluation.ranking import evaluate, evaluate_sampled, evaluate_tasks, sampled_negatives
from graphmeta.nn.conditioning.gate import Full
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.pairwise import Bpr, BprMax, Top1
from graphmeta.nn.readout import Last
from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.published.load import load
from graphmeta.published.models.cbml import cbml, cbml_g
from graphmeta.published.models.meta import maml
from graphmeta.published.models.session import SampledLoss, gru4rec, if_san, sr_gnn
from graphmeta.published.models.streaming import mf, sml
from graphmeta.published.options import ENCODER_AND_HEAD, ClusterGate
from graphmeta.recommender import Recommender
from graphmeta.retrain.transfer import Transferred
from graphmeta.sampling.few_shot import RandomQueries, sampled_tasks
from graphmeta.sampling.samples import last_clicks
from graphmeta.storage import load_state, not_finite, save_state, state_hash
from graphmeta.storage.versions import current
from graphmeta.system import System
from graphmeta.testing import fake_log, fake_ratings
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam
from graphmeta.training.run import Checkpoint
from graphmeta.training.settings import TrainOptions
from tests.catalogue import sized
from tests.option_values import changed

LOG, RATED = fake_log(sessions=60, length=14), fake_ratings()
every = pytest.mark.parametrize("name", CATALOGUE)


def log_of(name: str) -> Any:
    return RATED if CATALOGUE[name].predicts_ratings else LOG


def queries_of(name: str) -> Any:
    if CATALOGUE[name].predicts_ratings:
        return RandomQueries(queries=4, min_events=6)(RATED).take(np.arange(3))
    return last_clicks(LOG).take(slice(0, 5))


def built(name: str, **arguments: Any) -> System:
    torch.manual_seed(0)
    log = log_of(name)
    system = build(name, log.items, users=log.users, **{**sized(name, 6), **arguments}).eval()
    system.fit_statistics(log)
    return system


def reloaded(system: System, folder: Path) -> System:
    system.save(folder)
    return load(folder)


pauses = pytest.mark.filterwarnings("ignore:dwell_lag=0", "ignore:.* not read")


@every
@pauses
def test_whatever_it_is_built_with_is_built_and_loaded_again(name: str, tmp_path: Path) -> None:
    """From its build spec, and from a folder; loading draws no random numbers."""
    arguments = changed(name)
    system = built(name, **arguments)
    assert system.spec is not None
    twin = built(name, **json.loads(json.dumps(system.spec.arguments)))
    assert twin.spec == system.spec and state_hash(twin) == state_hash(system)
    system.save(tmp_path)
    before, others = torch.get_rng_state(), np.random.get_state()[1].tolist()
    again = load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before) and np.random.get_state()[1].tolist() == others
    assert again.spec == system.spec
    assert set(arguments) == set(system.spec.arguments)
    assert state_hash(again) == state_hash(system)
    assert repr(again) == repr(system) and again.limits == system.limits == {"max_support": 3, "max_length": 4}
    assert repr(again.retraining) == repr(system.retraining)
    queries = queries_of(name)
    torch.testing.assert_close(again.scores(queries), system.scores(queries), rtol=0, atol=0)


@every
def test_function_and_build_make_the_same_system(name: str) -> None:
    entry, log = CATALOGUE[name], log_of(name)
    people = {"users": log.users} if "users" in inspect.signature(entry.function).parameters else {}
    torch.manual_seed(0)
    if entry.base is None:
        direct = entry.function(log.items, **people, **sized(name, 6))
    else:
        seen = log.items.without("categorical", "several") if entry.items_only else log.items
        base = build(entry.base, seen, users=log.users, width=6)
        direct = entry.function(base)
    direct.max_length = 5
    direct.fit_statistics(log)
    named = built(name, max_length=5)
    assert direct.spec == named.spec and state_hash(direct) == state_hash(named)
    assert not_finite(direct) is None  # all that a new system holds


def test_functions_show_at_most_eight_parameters() -> None:
    assert {name for name, row in CATALOGUE.items() if len(inspect.signature(row.function).parameters) > 8} == set()


def test_limits_are_options_of_build_not_of_functions() -> None:
    with pytest.raises(InputError, match=r"no 'max_length'; pass it to build\('sr_gnn', …\), or set system"):
        CATALOGUE["sr_gnn"].function(LOG.items, max_length=5)


# How much a system looks at


def test_more_support_changes_the_answers_and_is_kept(tmp_path: Path) -> None:
    queries = last_clicks(LOG)
    torch.manual_seed(0)
    ten = cbml(if_san(LOG.items, width=6), step=0.5)
    torch.manual_seed(0)
    more = build("cbml", base=if_san(LOG.items, width=6), step=0.5, max_support=30)
    assert (ten.max_support, more.max_support) == (10, 30)
    scores = more.scores(queries)
    assert (scores - ten.scores(queries)).abs().max() > 1e-4
    assert torch.equal(reloaded(more, tmp_path).scores(queries), scores)


def test_what_is_set_after_building_is_what_is_saved(tmp_path: Path) -> None:
    system = build("cbml", LOG.items, width=6)
    system.max_support, system.max_length = 2, 3
    assert system.spec is not None and system.spec.arguments["max_support"] == 2
    again = reloaded(system, tmp_path)
    assert again.limits == {"max_support": 2, "max_length": 3} and again.spec == system.spec
    own = mine(LOG.items)
    own.max_length = 7
    own.save(tmp_path)
    assert load(tmp_path, build=mine).max_length == 7


def test_limits_are_those_of_the_base_unless_the_wrapper_sets_others() -> None:
    options = {"max_length": 9}
    assert build("cbml", LOG.items, width=6, options=options).max_length == 9
    assert build("cbml", LOG.items, width=6, options=options, max_length=8).max_length == 8


@pytest.mark.parametrize("limit", [{"max_support": -1}, {"max_length": 0}, {"max_length": 2.5}, {"max_support": True}])
def test_limits_are_whole_numbers(limit: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be (a whole number|int)"):
        build("cbml", LOG.items, **limit)


def test_the_command_line_takes_them(tmp_path: Path) -> None:
    command = ["fit", str(written(tmp_path)), "--session", "s", "--item", "i", "--out", str(tmp_path / "out")]
    small = ["--system", "melu", "--width", "4", "--epochs", "1", "--max-support", "3", "--max-length", "4"]
    assert main([*command, *small]) == 0
    assert load(tmp_path / "out" / "model").limits == {"max_support": 3, "max_length": 4}
    assert main([*command, *small, "--resume", "--max-length", "5"]) == 0
    assert load(tmp_path / "out" / "model").max_length == 5


def written(folder: Path) -> Path:
    rows = zip(LOG.session, LOG.items.ids[LOG.item], strict=True)
    (folder / "events.csv").write_text("s,i\n" + "".join(f"{session},{item}\n" for session, item in rows))
    return folder / "events.csv"


# What cannot be built again


def mine(items: Any, *, width: int = 4) -> System:
    return System(Recommender(ItemFeatures(len(items), width), GatedSessionGraph(width), Dot(Last())), items)


class Coarse(Full):
    """A granularity of one's own, which has inherited a name."""


@pytest.mark.parametrize(
    "arguments",
    [
        {"base": mine},
        {"base": lambda items, width: mine(items, width=width)},
        {"base": partial(mine, width=4)},
        {"base": "dropout_net", "options": {"base": mine}},
        {"granularity": Coarse()},
    ],
)
def test_what_cannot_be_loaded_again_is_refused_when_built(arguments: dict[str, Any]) -> None:
    with pytest.raises(
        InputError, match=r"cbml: .*cannot be stored in a build spec.*pass a name.*cbml\.cbml and load.*build="
    ):
        build("cbml", LOG.items, width=4, **arguments)


@pytest.mark.parametrize(
    "scope",
    [
        Scope("encoder", "head", without=["encoder.gate"]),
        Scope("head.project", without=()),
        Scope(*ENCODER_AND_HEAD.prefixes, without=["head.scale"]),
    ],
)
def test_a_scope_with_exclusions_of_its_own_is_saved(scope: Scope, tmp_path: Path) -> None:
    system = cbml(if_san(LOG.items, width=6), scope=scope)
    again = reloaded(system, tmp_path)
    assert again.adaptation is not None and again.adaptation.scope == scope
    assert again.spec == system.spec and state_hash(again) == state_hash(system)


@pytest.mark.parametrize(
    "arguments", [{"step": GroupRates(0.1, groups=["encoder", "head"])}, {"gate": ClusterGate(granularity=Coarse())}]
)
def test_what_cannot_be_stored_warns_when_built(arguments: dict[str, Any], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="cbml: .* cannot be stored in a build spec.* loaded with build="):
        system = cbml(if_san(LOG.items, width=6), scope=ENCODER_AND_HEAD, **arguments)
    assert system.spec is None


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        ({"gate": None}, {"gate": "none"}),
        ({"gate": ClusterGate(session=False)}, {"gate": "cluster"}),
        (
            {"scope": ENCODER_AND_HEAD, "step": LearnedRates(0.1)},
            {"scope": "attention", "lr": 0.1, "learned": "per entry, shared by steps"},
        ),
        ({"inner": InnerLoop(steps=3)}, {"steps": 3}),
        ({"step": 0.5}, {"lr": 0.5}),
    ],
)
def test_build_takes_objects_too(arguments: dict[str, Any], same: dict[str, Any], tmp_path: Path) -> None:
    one, other = (build("cbml", LOG.items, width=6, **given) for given in (arguments, same))
    assert one.spec == other.spec


def test_build_takes_a_built_base(tmp_path: Path) -> None:
    base = sr_gnn(LOG.items, width=6)
    system = build("cbml", base=base, clusters=2)
    assert system.spec == build("cbml", LOG.items, base="sr_gnn", width=6, clusters=2).spec
    assert state_hash(reloaded(system, tmp_path)) == state_hash(system)
    assert build("cbml", LOG.items, base=mine(LOG.items)).spec is None
    with pytest.raises(InputError, match="the base is already built; pass width= to the function"):
        build("cbml", base=base, width=8)
    with pytest.raises(InputError, match="cbml: the base has other items; pass its own"):
        build("cbml", LOG.items.take(np.arange(3)), base=base)
    with pytest.raises(InputError, match="cbml is built from items; pass them"):
        build("cbml")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: gru4rec(LOG.items, cell="gru"), "gru4rec takes no cell='gru'; pass an object, such as GRU, LSTM"),
        (lambda: gru4rec(LOG.items, sampling=SampledLoss("bpr")), "SampledLoss takes no loss='bpr'; .* Bpr()"),
        (lambda: mf(LOG.items, users=LOG.users, loss="bpr"), "mf takes no loss='bpr'; pass an object, such as"),
        (lambda: sml(mf(LOG.items, users=LOG.users), restart_from="retrained"), "takes no restart_from='retrained'"),
        (lambda: cbml(if_san(LOG.items), gate="none"), "cbml takes no gate='none'; pass a ClusterGate(…), or None"),
        (lambda: cbml(if_san(LOG.items), scope="attention"), "cbml takes no scope='attention'; pass a Scope"),
        (lambda: build("gru4rec", LOG.items, loss="mse"), "loss='mse' must be one of cross_entropy, bpr"),
        (lambda: build("gru4rec", LOG.items, cell="rnn"), "cell='rnn' must be one of gru, lstm"),
    ],
)
def test_functions_take_objects_and_build_takes_names(make: Any, says: str) -> None:
    with pytest.raises(InputError, match=says.replace("(", r"\(").replace(")", r"\)")):
        make()


def test_losses_cells_and_restarts_are_objects(tmp_path: Path) -> None:
    system = gru4rec(LOG.items, width=6, cell=nn.LSTM, sampling=SampledLoss(Top1(), negatives=3))
    assert system.spec is not None and system.spec.arguments["loss"] == "top1"
    assert repr(reloaded(system, tmp_path)) == repr(system)
    streamed = sml(mf(LOG.items, users=LOG.users, width=6, loss=Bpr()), restart_from=Transferred())
    assert reloaded(streamed, tmp_path / "sml").retraining.restart_from == Transferred()
    with pytest.warns(UserWarning, match=r"BprMax\(penalty=0.5\) cannot be stored"):
        gru4rec(LOG.items, width=6, sampling=SampledLoss(BprMax(0.5)))


def test_a_base_of_ones_own_is_for_the_function_and_loaded_by_its_builder(tmp_path: Path) -> None:
    def around(items: Any) -> System:
        return maml(mine(items))

    system = around(LOG.items)
    assert system.spec is None
    system.save(tmp_path)
    with pytest.raises(InputError, match="pass build="):
        load(tmp_path)
    assert state_hash(load(tmp_path, build=around)) == state_hash(system)


def test_what_goes_around_a_system_does_not_pass_for_it() -> None:
    from graphmeta.published.models.cold_item import dropout_net

    assert dropout_net(mine(LOG.items)).spec is None


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("gru4rec", {"whole": 1}),  # would be built, and not be loaded
        ("gc_san", {"steps": 2.0}),
        ("cbml", {"width": True}),
        ("sr_gnn", {"width": "6"}),
        ("cbml", {"clusters": "2"}),
        ("cbml", {"options": {"layers": "2"}}),
    ],
)
def test_an_argument_of_another_type_is_refused_by_function_and_build(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="takes no .*; it must be "):
        build(name, LOG.items, **arguments)
    if set(arguments) <= set(CATALOGUE[name].defaults):
        of = if_san(LOG.items, width=4) if CATALOGUE[name].base else LOG.items
        with pytest.raises(InputError, match="takes no .*; it must be "):
            CATALOGUE[name].function(of, **arguments)


def test_swapped_items_and_bases_are_distinguished() -> None:
    with pytest.raises(InputError, match="cbml wraps a built system.*build..cbml., items, base="):
        CATALOGUE["cbml"].function(LOG.items)
    with pytest.raises(InputError, match=r"sr_gnn is built from an EntityTable.*sr_gnn\(log.items\)"):
        CATALOGUE["sr_gnn"].function(LOG)


def test_a_base_stays_as_it_is() -> None:
    base = if_san(LOG.items, width=4)
    before = state_hash(base)
    system = cbml(base, step=0.5)
    list(train(system, LOG, epochs=1))
    assert state_hash(base) == before and base.adaptation is None


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    system = sr_gnn(LOG.items, width=np.int64(6), steps=np.arange(3)[2])
    assert reloaded(system, tmp_path).spec == system.spec


def test_a_variant_is_called_by_its_own_name() -> None:
    spec = cbml_g(if_san(LOG.items, width=4)).spec
    assert spec is not None and (spec.name, spec.arguments["gate"]) == ("cbml_g", "none")


# Numbers that are not finite


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["recommender.encoder.mix.weight", "recommender.features.weight"])
def test_a_number_that_is_not_finite_is_never_saved(part: str, bad: float, tmp_path: Path) -> None:
    system = build("global_gnn", LOG.items, width=4)  # features.weight is a buffer
    system.save(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with torch.no_grad():
        system.state_dict()[part][0, 0] = bad
    with pytest.raises(DivergedError, match=f"{part} is not finite"):
        system.save(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@dataclass(frozen=True)
class Leap(Adam):
    """A rate that is far too high in the second half of a training."""

    def rate(self, progress: float) -> float:
        return 0.01 if progress < 0.5 else 1e40


def test_weights_that_the_last_step_of_an_epoch_breaks_end_the_training(tmp_path: Path) -> None:
    def training(system: System, resume: bool = False) -> Any:
        checkpoint = Checkpoint(tmp_path, resume)
        return train(
            system, LOG, epochs=2, optimizer=Leap(), batch_size=10_000, options=TrainOptions(checkpoint=checkpoint)
        )

    system = build("sr_gnn", LOG.items, width=4)
    reports = training(system)
    next(reports)
    good = state_hash(system)
    with pytest.raises(DivergedError, match=r"epoch 2: recommender.* is not finite; lower the learning rate"):
        next(reports)
    again = build("sr_gnn", LOG.items, width=4)
    assert next(training(again, resume=True)).epoch == 0 and state_hash(again) == good


def test_a_training_that_diverges_is_one_line_and_no_model(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["fit", str(written(tmp_path)), "--session", "s", "--item", "i", "--out", str(tmp_path / "out")]
    code = main(
        [*command, "--system", "sr_gnn", "--width", "4", "--epochs", "1", "--lr", "1e40", "--batch-size", "9999"]
    )
    said = capsys.readouterr().err.strip().splitlines()
    assert code != 0 and "lower the learning rate" in said[-1] and "Traceback" not in "".join(said)
    assert not (tmp_path / "out" / "model").exists()


class Fixed:
    """Scores that are all ``value`` for the first item, and 0 for the others."""

    num_items = LOG.num_items

    def __init__(self, value: float) -> None:
        self.value = value

    def scores(self, samples: Any) -> torch.Tensor:
        scores = torch.zeros(len(samples), self.num_items)
        scores[:, 0] = self.value
        return scores


TASKS = sampled_tasks(LOG)
MEASURES: dict[str, Callable[[Any], Any]] = {
    "evaluate": lambda model: evaluate(model, last_clicks(LOG)),
    "sampled": lambda model: evaluate_sampled(model, last_clicks(LOG), AGAINST),
    "tasks": lambda model: evaluate_tasks(model, TASKS),
}
AGAINST = sampled_negatives(last_clicks(LOG), LOG, count=20)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_not_measured(measure: str, value: float) -> None:
    with pytest.raises(InputError, match="scores are not finite numbers"):
        MEASURES[measure](Fixed(value))


@pytest.mark.parametrize("measure", MEASURES)
def test_an_item_may_be_left_out_by_minus_infinity(measure: str) -> None:
    assert MEASURES[measure](Fixed(-float("inf"))).metrics


# Forged documents


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("saved")
    build("cbml", LOG.items, users=LOG.users, width=6).save(folder)
    return load_state(current(folder), "model")


def forged(saved: Any, folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    tensors, document = saved[0], json.loads(json.dumps(saved[1]))
    change(document)
    save_state(folder, "model", tensors, document)


def arguments(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["spec"]["arguments"].update(values)


def brand(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["items"]["columns"]["brand"].update(values)


ONES = [1] * LOG.num_items


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (arguments(width=7), "do not fit"),
        (arguments(width=10_000_000, granularity="row"), "do not fit"),
        (arguments(width=10_000_000), "builds no system"),
        (arguments(width=10**18), "builds no system"),
        (arguments(width=-3), "takes no width=-3"),
        (arguments(clusters=10**12), "do not fit"),
        (arguments(steps=10**9, learned=True), "do not fit"),
        (arguments(options={"layers": 10**9}), "far larger system"),
        (arguments(base="gru4rec", options={"layers": 10**9}), "far larger system"),
        (arguments(base="gru4rec", options={}), "do not fit"),
        (arguments(width="6"), "takes no width"),
        (arguments(width=6.0), "takes no width"),
        (arguments(width=True), "takes no width"),
        (arguments(steps=1.5), "takes no steps"),  # said before anything is built
        (arguments(clusters=True), "takes no clusters"),
        (arguments(lr="1e-3"), "takes no lr"),
        (arguments(options=["layers"]), "takes no options"),
        (arguments(scope=[1, 2]), "takes no scope"),
        (arguments(max_support=None, base=None), "takes no base"),
        (arguments(base="os.system"), "no system is called"),
        (arguments(depth=3), "takes no 'depth'"),
        (arguments(options={"layers": "2"}), "takes no layers='2'; it must be int"),
        (lambda d: d["spec"].update(name="__import__"), "not in this version's catalogue"),
        (lambda d: d["spec"].update(name=5), "build spec is damaged"),
        (lambda d: d.update(spec="cbml"), "build spec is damaged"),
        (lambda d: d["spec"].pop("arguments"), "build spec is damaged"),
        (lambda d: d.update(limits={"max_support": -1}), "limits are damaged"),
        (lambda d: d.update(limits={"max_support": "9"}), "limits are damaged"),
        (lambda d: d.update(limits={"eval": 9}), "limits are damaged"),
        (lambda d: d.update(notes=[]), "notes are damaged"),
        (lambda d: d.update(format=99), "update graphmeta"),
        (lambda d: d.update(format="3"), "update graphmeta"),
        (lambda d: d.pop("items"), "items or users are damaged"),
        (lambda d: d.update(items=[]), "items or users are damaged"),
        (lambda d: d["items"].update(ids=[[1], [2]]), "items or users are damaged"),
        (lambda d: d["items"].update(ids=[{}] * LOG.num_items), "items or users are damaged"),
        (lambda d: d["items"].update(labels=["one"]), "items or users are damaged"),
        (lambda d: d["items"]["ids"].pop(), "items or users are damaged"),
        (brand(codes=[10**15, *ONES[1:]]), "items or users are damaged"),
        (brand(codes=[-1, *ONES[1:]]), "items or users are damaged"),
        (brand(codes=ONES[1:]), "items or users are damaged"),
        (brand(codes=["x", *ONES[1:]]), "items or users are damaged"),
        (brand(values=[]), "items or users are damaged"),
        (lambda d: d["items"].update(several={"tag": {"codes": [0], "ptr": [0, 1], "values": [""]}}), "damaged"),
    ],
)
def test_a_forged_document_is_refused_in_one_line(saved: Any, change: Any, told: str, tmp_path: Path) -> None:
    forged(saved, tmp_path, change)
    with pytest.raises(InputError, match=told) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


MEMORY = """
import sys
from benchmarks.timing import peak_mb
from graphmeta.errors import InputError
from graphmeta.published.load import load

load(sys.argv[1])
before = peak_mb()
try:
    load(sys.argv[2])
except InputError as error:
    print(int(peak_mb() - before), error)
"""


def test_a_forged_document_costs_no_memory(saved: Any, tmp_path: Path) -> None:
    forged(saved, tmp_path / "good", lambda document: None)
    forged(saved, tmp_path / "huge", arguments(width=10_000_000, granularity="row"))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "good"), str(tmp_path / "huge")],
        capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False,
        env=os.environ | {"PYTHONPATH": "."},
    )  # fmt: skip
    assert "do not fit" in done.stdout, done.stderr
    assert int(done.stdout.split()[0]) < 50  # MB; at that width a table of the 40 items alone has 1,600


def test_loading_by_a_builder_of_ones_own_draws_no_random_numbers(tmp_path: Path) -> None:
    def around(items: Any) -> System:
        system = maml(mine(items))
        nn.init.trunc_normal_(system.recommender.features.item.weight)
        return system

    around(LOG.items).save(tmp_path)
    before = torch.get_rng_state()
    load(tmp_path, build=around)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("given", [{}, {"base": "sr_gnn", "granularity": "row", "scope": ["head.project"]}])
def test_models_of_earlier_formats_are_loaded(number: int, given: dict[str, Any], tmp_path: Path) -> None:
    system = build("cbml", LOG.items, width=6, **given)
    system.save(tmp_path)
    tensors, document = load_state(current(tmp_path), "model")
    del document["limits"]
    if number == 1:
        del document["users"]
    document["recipe"] = {**document.pop("spec"), "arguments": {"width": 6, **given}}  # only what was given
    save_state(current(tmp_path), "model", tensors, {**document, "format": number})
    again = load(tmp_path)
    assert state_hash(again) == state_hash(system) and again.limits == {"max_support": 10, "max_length": 50}


def test_names_of_format_4_are_read(tmp_path: Path) -> None:
    system = build("mamo_rating", RATED.items, users=RATED.users, width=3, learned="group")
    system.save(tmp_path)
    tensors, document = load_state(current(tmp_path), "model")
    old = {name.replace("start.gradient_slots.", "start.slopes."): tensor for name, tensor in tensors.items()}
    document["recipe"] = document.pop("spec")
    assert old.keys() != tensors.keys() and document["recipe"]["arguments"]["learned"] == "per group"
    document["recipe"]["arguments"]["learned"] = "group"
    save_state(current(tmp_path), "model", old, {**document, "format": 4})
    assert state_hash(load(tmp_path)) == state_hash(system)


def test_the_key_of_format_5_is_read(tmp_path: Path) -> None:
    system = build("sr_gnn", LOG.items, width=6)
    system.save(tmp_path)
    tensors, document = load_state(current(tmp_path), "model")
    document["recipe"] = document.pop("spec")
    save_state(current(tmp_path), "model", tensors, {**document, "format": 5})
    again = load(tmp_path)
    assert state_hash(again) == state_hash(system) and again.spec == system.spec


# Modes, and what counts


def test_a_loaded_system_answers_and_does_not_learn(tmp_path: Path) -> None:
    system = build("cbml", LOG.items, width=6).train()
    assert not any(part.training for part in reloaded(system, tmp_path).modules())


@pytest.mark.parametrize("valid", [None, LOG])
def test_training_leaves_the_system_in_eval_mode(valid: Any, tmp_path: Path) -> None:
    def modes(system: System, resume: bool) -> list[bool]:
        reports = train(
            system, LOG, epochs=2, valid=valid, options=TrainOptions(checkpoint=Checkpoint(tmp_path, resume))
        )
        return [any(part.training for part in system.modules()) for _ in reports]

    for resume in (False, True):
        system = build("if_san", LOG.items, width=4).train()
        assert modes(system, resume) == [False, False]
        assert not any(part.training for part in system.modules())


class Sklearnish(GatedSessionGraph):
    """An encoder with a ``fit`` of another kind, and something to count."""

    counted = 0

    def fit(self, X: Any, y: Any) -> None:
        raise AssertionError("nobody may call this")

    def fit_statistics(self, log: Any) -> None:
        self.counted = log.num_sessions


def test_an_encoder_may_have_a_fit_of_its_own() -> None:
    encoder: nn.Module = Sklearnish(4)
    system = System(Recommender(ItemFeatures(LOG.num_items, 4), encoder, Dot(Last())), LOG.items)
    list(train(system, LOG, epochs=1, optimizer=Adam()))
    assert encoder.counted == LOG.num_sessions
    assert not hasattr(system, "fit")
