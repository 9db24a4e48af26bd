"""A published system is trained by its name in one call, by the same plan as the command; names are told apart."""

import importlib
import inspect
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from graphmeta.baselines import __all__ as BASELINES
from graphmeta.cli import commands
from graphmeta.data.splits import split_by_time
from graphmeta.errors import InputError
from graphmeta.evaluation.ranking import evaluate
from graphmeta.published.catalogue import CATALOGUE, RANKING, build
from graphmeta.published.fit import PLACEMENT, check_system, fit
from graphmeta.published.load import load
from graphmeta.published.names import check_items, check_name, nearest, others
from graphmeta.published.systems import Systems, systems
from graphmeta.published.training_plan import Plan, train_plan
from graphmeta.storage import state_hash
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam, Sgd
from graphmeta.training.recipes import TrainingRecipe
from graphmeta.training.run import Checkpoint

LOG = fake_log(sessions=100)
SPLIT = split_by_time(LOG)
KNOWN = [row.name for row in systems()]


@pytest.mark.parametrize("name", ["sr_gnn", "maml", "reranker"])
def test_fit_is_the_plan_of_the_command(name, tmp_path):
    random = torch.random.get_rng_state()
    system = fit(SPLIT, name, epochs=2, width=8)
    assert torch.equal(torch.random.get_rng_state(), random)
    plan = Plan(name, 8, 0, TrainingRecipe(epochs=2))
    by_command = train_plan(plan, SPLIT, Checkpoint(tmp_path), say=str, bar=lambda rows, name: rows).system
    assert state_hash(system) == state_hash(by_command)
    assert not system.training and system.notes["system"] == name
    assert [report["epoch"] for report in system.notes["history"]["sr_gnn" if name == "sr_gnn" else name]]


def test_the_defaults_are_those_of_the_command():
    defaults = {name: p.default for name, p in inspect.signature(fit).parameters.items()}
    for users, system in ((True, "personal_reranker"), (False, "reranker")):
        plan = commands.TrainingOptions().plan(commands.Limits(), users=users)
        assert defaults["system"] is None
        recipe = replace(defaults["recipe"], refit=True)  # a file is a log, which gm.fit trains on again by default
        assert plan == Plan(system, defaults["width"], defaults["seed"], recipe, device=PLACEMENT["device"])


@pytest.mark.parametrize("optimizer", [Sgd(lr=0.2), torch.optim.AdamW, partial(torch.optim.SGD, lr=0.2)])
def test_it_trains_with_the_given_optimizer_and_is_saved(optimizer, tmp_path):
    system = fit(SPLIT, "sr_gnn", epochs=1, width=8, recipe=TrainingRecipe(optimizer=optimizer))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        by_train = build("sr_gnn", SPLIT.train.items, width=8)
    list(train(by_train, SPLIT, epochs=1, batch_size=64, optimizer=optimizer))
    assert state_hash(system) == state_hash(by_train)
    system.save(tmp_path / "model")
    assert load(tmp_path / "model").notes["optimizer"] == system.notes["optimizer"]


def test_a_meta_learner_is_trained_with_a_tenth_of_any_learning_rate():
    rates = []

    class Sgd(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            super().step(closure)

    fit(SPLIT, "maml", epochs=2, width=4, recipe=TrainingRecipe(optimizer=partial(Sgd, lr=0.5)))
    assert list(dict.fromkeys(rates)) == [0.5, 0.05]


def test_a_log_is_split_by_time_and_none_of_it_is_kept_for_a_test():
    system = fit(LOG, "sr_gnn", width=8, recipe=TrainingRecipe(epochs=1, refit=False))
    wanted = fit(split_by_time(LOG, test=0.0, valid=0.1), "sr_gnn", epochs=1, width=8)
    assert state_hash(system) == state_hash(wanted)
    assert system.notes["history"]["sr_gnn"][0]["valid"].keys() >= {"mrr@20"}


def test_the_test_part_has_no_influence():
    other = split_by_time(LOG)
    emptied = other.test.select(np.zeros(other.test.num_events, dtype=bool))
    assert state_hash(fit(replace(other, test=emptied), "sr_gnn", epochs=1, width=8)) == state_hash(
        fit(SPLIT, "sr_gnn", epochs=1, width=8)
    )


STEEP = TrainingRecipe(epochs=6, optimizer=Adam(lr=3e-2), batch_size=20)


def test_it_learns_and_is_measured_on_a_log():
    system = fit(split_by_time(fake_log(sessions=240)), "sr_gnn", width=8, recipe=STEEP)
    assert evaluate(system, LOG, ks=(1,)).metrics["hit@1"] > 0.6


def test_progress_shows_bars_and_epochs(capsys):
    fit(SPLIT, "sr_gnn", epochs=1, width=8, progress=True)
    told = capsys.readouterr()
    assert "epoch 1/1   loss" in told.err and told.out == ""
    fit(SPLIT, "sr_gnn", epochs=1, width=8)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("data", "name", "line"),
    [
        (SPLIT, "SR-GNN", "no system is called 'SR-GNN'; did you mean 'sr_gnn'? gm.systems() (`graphmeta "),
        (SPLIT, "sasrec", "no system is called 'sasrec'; gm.systems() (`graphmeta systems`) lists all"),
        (SPLIT, "item_mean", "item_mean is not in the catalogue: it is a rating baseline; fit it with "),
        (SPLIT, "catn", "cross-domain rating model; see graphmeta.published.models.cross_domain.catn"),
        (SPLIT, "melu_rating", "melu_rating predicts ratings, not the next item"),
        (SPLIT, 3, "3 is not the name of a system"),
        (SPLIT, build("sr_gnn", LOG.items, width=4), "this system is already built; train it with list(train("),
        (LOG.to_frame(), "sr_gnn", "fit takes a log or a split, not a DataFrame"),
        (LOG.select(LOG.session < 3), "sr_gnn", "too few sessions, 3, for"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(data, name, line):
    with pytest.raises(InputError, match=re.escape(line)) as told:
        fit(data, name, epochs=1, width=4)
    assert "\n" not in str(told.value)


def test_a_system_of_users_requires_users():
    with pytest.raises(InputError, match="bpr_mf needs users"):
        check_system("bpr_mf", users=False)
    check_system("bpr_mf", users=True)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("SR-GNN", "sr_gnn"),
        ("srgnn", "sr_gnn"),
        ("GRU4Rec", "gru4rec"),
        ("Session KNN", "session_knn"),
        ("cmbl", "cbml"),
        ("NISER+", "niser"),
        ("CATN", "catn"),
        ("meta-cf-g", "meta_cf_g"),
        ("sasrec", None),
        ("bert4rec", None),
        ("lightgcn", None),
        ("", None),
        ("!", None),
    ],
)
def test_the_nearest_name(name, near):
    assert nearest(name, KNOWN) == near


@pytest.mark.parametrize("name", KNOWN)
def test_every_name_is_nearest_to_itself(name):
    assert nearest(name, KNOWN) == nearest(name.upper().replace("_", "-"), KNOWN) == name


def test_a_known_name_is_accepted_and_items_are_no_log():
    for name in CATALOGUE:
        check_name(name, CATALOGUE)
    check_items("sr_gnn", LOG.items)
    line = "a system is built from items, not from a log or a split; pass build('sr_gnn', log.items, users=log.users)"
    with pytest.raises(InputError, match=re.escape(line)):
        check_items("sr_gnn", LOG)
    with pytest.raises(InputError, match=re.escape("build('cbml', split.train.items, users=split.train.users)")):
        check_items("cbml", SPLIT)


def test_the_table_lists_every_system_once():
    table = systems()
    assert len(set(KNOWN)) == len(KNOWN) and set(KNOWN) >= set(CATALOGUE)
    kinds = {row.name: row.kind for row in table}
    assert {name for name in CATALOGUE if kinds[name] == "next item"} == set(RANKING)
    places = [row.where.split("(")[0].rsplit(".", 1)[-1] for row in others().values()]
    assert {"catn", "anr", "cmf", "emcdr", "cdlfm", "dfm", "r_dfm"} <= set(places)
    rated = {"GlobalMean", "ItemMean", "ItemUserMean"}
    assert rated <= set(places)
    ranking = {name for name in BASELINES if name[0].isupper()} - {"NoRepeats", "BASELINES"} - rated
    counted = [build(name, LOG.items).baseline for name, row in CATALOGUE.items() if row.counts]
    assert {getattr(one, "func", one).__name__ for one in counted} == ranking


@pytest.mark.parametrize("row", systems(), ids=lambda row: row.name)
def test_what_makes_a_system_is_there(row):
    place, arguments = re.fullmatch(r"([\w.]+)(?:\((.*)\))?", row.where).groups()
    module, name = place.rsplit(".", 1)
    made = getattr(importlib.import_module(module), name)
    for argument in re.findall(r"(\w+)=", arguments or ""):
        owner = importlib.import_module(module).CatnVariant if argument == "user_means" else made
        assert argument in {**inspect.signature(made).parameters, **inspect.signature(owner).parameters}


def test_the_table_is_shown_as_one():
    table = systems()
    assert repr(table).splitlines()[0].split() == ["name", "kind", "paper", "adapts"]
    assert len(repr(table).splitlines()) == len(table) + 1
    frame = table.to_frame()
    assert frame["name"].tolist() == KNOWN and "where" in frame
    assert isinstance(table[:2], Systems) and len(table[:2]) == 2
    assert table["cbml"] is next(row for row in table if row.name == "cbml") and table[0].name == KNOWN[0]
    with pytest.raises(InputError, match="no system is called 'nothing'"):
        table["nothing"]
    with pytest.raises(InputError, match="did you mean 'sr_gnn'"):
        table["SR-GNN"]
