"""``import graphmeta as gm``: quick, without torch, with exactly the names that design and documentation promise."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import graphmeta as gm
from graphmeta.adapt.inner import InnerLoop
from graphmeta.baselines import ItemKNN
from graphmeta.evaluation.ranking import evaluate_tasks
from graphmeta.published.models.cbml import cbml
from graphmeta.published.models.session import SampledLoss, gru4rec, sr_gnn
from graphmeta.sampling.few_shot import sampled_tasks
from graphmeta.testing import fake_log

ROOT = Path(__file__).parents[1]
API = {
    *("ReadOptions", "Inactivity", "ActionWeights"),
    *("EventLog", "EntityTable", "build_graph", "split_by_time", "split_by_user", "split_by_item"),
    *(
        "prefixes",
        "last_clicks",
        "session_batch",
        "SubgraphSampler",
        "Tasks",
        "UserHistories",
        "UserTasks",
        "Recommender",
        "System",
        "Adaptation",
        "Scope",
        "Gradient",
    ),
    *(
        "LearnedRates",
        "NEXT",
        "OF",
        "build",
        "systems",
        "fit",
        "train",
        "TrainOptions",
        "TrainingRecipe",
        "FULL_SOFTMAX",
        "Callback",
        "Adam",
        "evaluate",
        "evaluate_next_basket",
        "audit",
        "load",
        "rollback",
        "recommend_file",
        "recommend_log",
        "read_recommendations",
        "SessionFile",
        "check_encoder",
    ),
    *("InputError", "__version__", "nn", "datasets", "metrics", "plots"),
}
PLAIN = ("NEXT", "OF", "__version__")  # values, which cannot have a docstring of their own


def test_dir_shows_the_api_and_nothing_else() -> None:
    assert set(dir(gm)) == set(gm.__all__) == API


@pytest.mark.parametrize("name", sorted(API))
def test_every_name_is_there_and_explained(name: str) -> None:
    found = getattr(gm, name)
    assert name in PLAIN or len(inspect.getdoc(found) or "") > 40


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'; dir\(graphmeta\)"):
        _ = gm.nonsense
    with pytest.raises(AttributeError, match="did you mean 'EventLog'"):
        _ = gm.EventLogg


def test_the_import_is_quick_and_brings_no_torch() -> None:
    program = (
        "import sys, time; began = time.perf_counter(); import graphmeta; took = time.perf_counter() - began\n"
        "print(took, *(m for m in ('torch', 'numpy', 'pandas', 'torch_geometric') if m in sys.modules))"
    )
    took, *brought = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True).split()
    assert float(took) < 0.1 and brought == []


def test_the_stub_equals_the_table() -> None:
    tree = ast.parse((ROOT / "graphmeta" / "__init__.pyi").read_text())
    stub = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name == alias.asname for alias in node.names), "only `as` exports from a stub"
            stub |= {alias.name: str(node.module) for alias in node.names}
    homes = vars(gm)["_HOME"]
    assert {name: stub[name] for name in homes} == homes
    packages = {name: f"{stub[name]}.{name}" for name in vars(gm)["_PACKAGES"]}
    assert packages == vars(gm)["_PACKAGES"] and stub.keys() | {"__version__"} == API


def test_the_version_is_that_of_the_project() -> None:
    assert f'\nversion = "{gm.__version__}"\n' in (ROOT / "pyproject.toml").read_text()


def test_star_imports_work() -> None:
    names: dict[str, object] = {}
    exec("from graphmeta import *", names)
    assert names.keys() >= API


def test_the_sub_packages_export_what_they_list() -> None:
    for package in (gm.nn, gm.datasets, gm.plots):
        assert all(hasattr(package, name) for name in package.__all__)
    assert importlib.import_module("graphmeta.evaluation.metrics") is gm.metrics


def test_every_name_is_in_the_reference_with_an_example() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    listed = set(re.findall(r"^\| `gm\.([A-Za-z_]+)", text, re.M))
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
    assert listed == API
    assert [name for name in API if not re.search(rf"\bgm\.{name}\b", code)] == []


def test_the_reference_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clicks().to_csv("clicks.csv", index=False)
    items = pd.DataFrame({"sku": [f"sku{n}" for n in range(30)], "brand": [f"b{n % 4}" for n in range(30)]})
    items.to_csv("items.csv", index=False)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.S):
        exec(block, names)


def clicks() -> pd.DataFrame:
    """150 visits that walk a ring of 30 items."""
    visit, step = np.repeat(np.arange(150), 5), np.tile(np.arange(5), 150)
    start = np.random.default_rng(0).integers(0, 30, 150)[visit]
    return pd.DataFrame(
        {
            "visit": [f"v{n}" for n in visit],
            "sku": [f"sku{n}" for n in (start + step) % 30],
            "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(3600 * visit + 60 * step, unit="s"),
            "who": np.array(["anna", "ben", "cara"])[visit % 3],
        }
    )


def test_the_block_of_the_design_runs_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    clicks().to_csv("clicks.csv", index=False)
    names: dict[str, object] = {}
    exec(BLOCK, names)
    told = capsys.readouterr()
    assert "15 samples, each target ranked among 30 items" in told.out and "mrr@20" in told.out
    assert "epoch 1/3" in told.err
    system, again = names["system"], gm.load("shop")
    assert not system.training and system.notes["system"] == "cbml"
    first, second = (of.recommend(["sku17", "sku4"], k=10, user="anna") for of in (system, again))
    assert len(first) == 10 and first == second and first[0].item.startswith("sku")


BLOCK = """
import graphmeta as gm

log = gm.EventLog.read("clicks.csv", session="visit", item="sku", time="at", user="who")
split = gm.split_by_time(log)
system = gm.fit(split, system="cbml", epochs=3, progress=True)        # trains; a System in eval mode
print(gm.evaluate(system, split.test))                                  # a table; .metrics, .to_frame()
system.recommend(["sku17", "sku4"], k=10, user="anna")                 # in your ids
system.save("shop"); gm.load("shop")
"""


LOG = fake_log(sessions=60, items=40)
SPLIT = gm.split_by_time(LOG)
MISTAKES = {
    "evaluate takes a trained system, not the name 'sr_gnn'; train it: fit(split, 'sr_gnn')": lambda: gm.evaluate(
        "sr_gnn", SPLIT.test
    ),
    "pass its test part: split.test": lambda: gm.evaluate(ItemKNN(LOG), SPLIT),
    "the arguments of evaluate are swapped; write evaluate(system, log)": lambda: gm.evaluate(LOG, ItemKNN(LOG)),
    "evaluate takes a system or a baseline, not a DataFrame": lambda: gm.evaluate(clicks(), SPLIT.test),
    "evaluate_tasks takes tasks, not a EventLog; use evaluate": lambda: evaluate_tasks(ItemKNN(LOG), LOG),
    "write fit(split, 'sr_gnn')": lambda: gm.train("sr_gnn", SPLIT),
    "not a DataFrame; read one with EventLog.read": lambda: gm.train(system(), clicks()),
    "options=TrainOptions(precision='bf16')": lambda: gm.train(system(), SPLIT, options={"precision": "bf16"}),
    "valid='x' is neither a log": lambda: gm.train(system(), SPLIT, valid="x"),
    "split.valid": lambda: gm.train(system(), SPLIT.train, valid=SPLIT),
    "sr_gnn takes no width=0; it must be 1 or more": lambda: gm.build("sr_gnn", LOG.items, width=0),
    "gru4rec takes no layers=0": lambda: gm.build("gru4rec", LOG.items, layers=0),
    "lr='fast' must be a number, 0 or more": lambda: gm.TrainingRecipe(optimizer=gm.Adam(lr="fast")),
    "optimizer=torch.optim.SGD(…) is already bound to its parameters; pass a factory": lambda: gm.TrainingRecipe(
        optimizer=torch.optim.SGD([torch.zeros(1)])  # pyright: ignore
    ),
    "epochs=0 must be a whole number, 1 or more": lambda: gm.fit(SPLIT, "sr_gnn", epochs=0),
    "recipe= takes a TrainingRecipe(…), not a str": lambda: gm.fit(SPLIT, "sr_gnn", recipe="full"),  # pyright: ignore
    "cbml takes no 'cluster'; did you mean 'clusters'? it takes": lambda: cbml(system(), cluster=8),
    "sr_gnn takes no 'widht'; did you mean 'width'?": lambda: gm.build("sr_gnn", LOG.items, widht=8),
    "sr_gnn: missing a required argument: 'items'": lambda: sr_gnn(),
    "item 'I1' is not known to this model (1 unknown); did you mean 'i1'? Otherwise leave it out": lambda: (
        system().recommend(["I1"])
    ),
    "item 'i1 ' is not known to this model (1 unknown); did you mean 'i1'? Otherwise leave it out": lambda: (
        system().recommend(["i1 "])
    ),
    "item 'i-560' is not known to this model (1 unknown); leave it out": lambda: system().recommend(["i-560"]),
    "k='3' must be a whole number": lambda: system().recommend(["i1"], k="3"),
    "MetaHIN has no data set 'movielense'; did you mean 'movielens'? it has movielens and dbook": lambda: (
        gm.datasets.metahin("movielense")
    ),
    "split_by_time takes a log, not a Split; pass one of its parts: split_by_time(split.train)": lambda: (
        gm.split_by_time(SPLIT)
    ),
    "split_by_user takes a log, not a str; read it first: split_by_user(EventLog.read('a.csv', session=…": lambda: (
        gm.split_by_user("a.csv")
    ),
    "split_by_item takes a log, not a DataFrame; pass split_by_item(log), where log is an EventLog": lambda: (
        gm.split_by_item(clicks())
    ),
    "last_clicks takes a log, not a Split; pass one of its parts: last_clicks(split.train)": lambda: gm.last_clicks(
        SPLIT
    ),
    "prefixes takes a log, not a str; read it first": lambda: gm.prefixes("clicks.csv"),
    "session_batch takes samples, not a log; make them of the log: session_batch(last_clicks(log), …)": lambda: (
        gm.session_batch(LOG, num_items=LOG.num_items)
    ),
    "SampledLoss takes no loss='bpr'; pass an object, such as": lambda: gru4rec(
        LOG.items,
        sampling=SampledLoss(loss="bpr"),  # pyright: ignore[reportArgumentType]
    ),
    "cbml: steps= is given twice, also as a part of inner=; pass one of them": lambda: gm.build(
        "cbml", LOG.items, steps=3, inner=InnerLoop(steps=2)
    ),
    "cbml: order= is given twice": lambda: gm.build("cbml", LOG.items, inner=InnerLoop(steps=2), order=2),
    "cbml: lr= is given twice, also as a part of step=": lambda: gm.build("cbml", LOG.items, lr=0.1, step=0.2),
    "cbml: learned= is given twice": lambda: gm.build(
        "cbml", LOG.items, step=gm.LearnedRates(0.1, per_step=True), learned="group"
    ),
    "cbml: without= is given twice": lambda: gm.build("cbml", LOG.items, scope=gm.Scope("head"), without=[]),
    "not from a DataFrame; read a log with EventLog.read and pass build('sr_gnn', log.items)": lambda: gm.build(
        "sr_gnn", clicks()
    ),
    "did you mean one of asars_user_cat, asars_user_att": lambda: gm.build("ASARS", LOG.items),
}


def system() -> gm.System:
    return gm.build("sr_gnn", LOG.items, width=4)


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_gets_one_line_with_the_remedy(line: str) -> None:
    with pytest.raises(gm.InputError) as found:
        MISTAKES[line]()
    assert line in str(found.value) and "\n" not in str(found.value)


def test_an_argument_that_is_not_there_names_its_function() -> None:
    with pytest.raises(TypeError, match=r"evaluate_tasks\(\) got an unexpected keyword argument 'metrics'"):
        evaluate_tasks(ItemKNN(LOG), sampled_tasks(LOG), metrics={})
    with pytest.raises(AttributeError, match=r"train it with list\(graphmeta.train\(system, split\)\).*fit_statistics"):
        _ = system().fit
    assert not hasattr(system(), "fit")
    for holder in (gm.System, system()):
        with pytest.raises(AttributeError, match=r"no load\(\); load a saved one with graphmeta\.load\(folder\)"):
            _ = holder.load


def test_the_table_of_systems_contains_names_and_rows() -> None:
    table = gm.systems()
    assert "cbml" in table and "stan" in table and table["cbml"] in table and "cmbl" not in table


def test_a_split_prints_as_three_lines() -> None:
    lines = str(SPLIT).splitlines()
    assert [line.split(":")[0].split()[-1] for line in lines] == ["train", "valid", "test"]
    assert f"{SPLIT.test.num_events:,} events in {SPLIT.test.num_sessions:,} sessions" in lines[2]
    assert SPLIT._repr_html_().count("<tr>") == 3


def test_the_version_and_the_packages_that_the_command_line_needs(capsys, monkeypatch) -> None:
    """With the core dependencies alone, every command names what to install."""
    from graphmeta import __main__ as program

    assert program.main(["--version"]) == 0
    assert capsys.readouterr().out == f"graphmeta {gm.__version__}\n"
    found = program.find_spec
    monkeypatch.setattr(program, "find_spec", lambda name: None if name == "typer" else found(name))
    for given in ([], ["--help"], ["run"]):
        assert program.main(given) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and "pip install 'graphmeta[cli]'" in said.err
