"""Systems that read their log's graph or its users' sessions are asked and served with ``--graph``."""

import asyncio
import json
import runpy
from pathlib import Path

import httpx
import pytest
import torch
from torch import nn

import graphmeta as gm
from graphmeta.cli.commands import main
from graphmeta.data.graph_files import save_graph
from graphmeta.data.stored_columns import Columns
from graphmeta.errors import InputError
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.readout import Mean
from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.published.source import Source
from graphmeta.serving.app import create_app
from graphmeta.serving.settings import Settings
from graphmeta.testing import fake_log

GraphEncoder = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "graph_encoder.py"))["GraphEncoder"]
LOG = fake_log(sessions=60, items=12)


def custom(items: gm.EntityTable, *, adapted: bool = False) -> gm.System:
    """The example's encoder of users, earlier sessions, followers and attributes."""
    torch.manual_seed(0)
    head = Dot(Mean(), nn.Linear(6, 6))
    recommender = gm.Recommender(gm.nn.ItemFeatures(len(items), 6), GraphEncoder(6, LOG.graph), head)
    adaptation = gm.Adaptation(gm.Scope("head"), step=gm.Gradient(0.1), steps=1) if adapted else None
    return gm.System(recommender, items, users=LOG.users, adaptation=adaptation)


def adapting(items: gm.EntityTable) -> gm.System:
    return custom(items, adapted=True)


def not_a_system(items: gm.EntityTable) -> list[int]:
    return [len(items)]


def reads_log(name: str) -> bool:
    """Whether a system of the catalogue reads earlier sessions or the graph of a log."""
    entry = CATALOGUE[name]
    if entry.predicts_ratings or entry.family in ("cross-domain",):
        return False
    try:
        system = build(name, LOG.items, users=LOG.users)
    except (InputError, TypeError):
        return False
    reader = system._reads_subgraph()
    return system.reads_history or (reader is not None and reader.neighbourhood.needs_log)


CUSTOM = {"custom": custom, "adapting": adapting}
QUICK = ("custom", "personal_frequency")
NAMES = [*CUSTOM, *(name for name in CATALOGUE if reads_log(name))]


def test_the_catalogue_has_systems_that_read_a_log() -> None:
    assert {"personal_reranker", "personal_frequency", "tifu_knn", "up_cf"} <= set(NAMES)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log as a file, and as a folder that ``graphmeta graph`` writes."""
    place = tmp_path_factory.mktemp("log")
    LOG.to_frame().to_csv(place / "clicks.csv", index=False)
    save_graph(place / "graph", LOG.graph)
    return place


def made(name: str, folder: Path) -> gm.System:
    """A system with its log, saved without it."""
    torch.manual_seed(0)
    system = CUSTOM[name](LOG.items) if name in CUSTOM else build(name, LOG.items, users=LOG.users)
    system.fit_statistics(LOG)
    for weight in system.eval().parameters():
        weight.data.add_(0.1 * torch.randn_like(weight))
    system.notes["columns"] = Columns("item", "session", "time", "user").to_json()
    system.save(folder)
    return system


def options(name: str) -> list[str]:
    return ["--build", f"{__name__}:{name}"] if name in CUSTOM else []


def asked(capsys: pytest.CaptureFixture, *command: str) -> list:
    capsys.readouterr()
    assert main([*command, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.mark.filterwarnings("ignore:this system reads dwell times")
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_the_command_line_and_the_server_read_the_graph(
    name: str, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    system = made(name, tmp_path)
    wanted = [vars(one) for one in system.recommend(["i3", "i4"], 5, user="u1")]
    nobody = [vars(one) for one in system.recommend(["i3", "i4"], 5)]
    assert wanted != nobody, "the history of u1 changes nothing, so the test shows nothing"
    for place in (log / "clicks.csv", log / "graph")[: 1 + (name == "custom")]:
        given = [str(tmp_path), "--graph", str(place), *options(name)]
        found = asked(capsys, "recommend", *given, "--session", "i3,i4", "--user", "u1", "-k", "5")[0]["items"]
        assert [one["item"] for one in found] == [one["item"] for one in wanted]
        assert [one["score"] for one in found] == pytest.approx([one["score"] for one in wanted], rel=1e-4, abs=1e-5)
    if name not in QUICK:
        why = asked(capsys, "explain", *given, "--session", "i3", "--item", "i7", "--user", "u1")
        assert sum(why["parts"].values()) == pytest.approx(why["score"], abs=1e-4)
    settings = Settings(str(tmp_path), Source(str(log / "clicks.csv"), (options(name) or [None])[-1]))
    app = create_app(Settings.from_text(settings.to_text()))
    app.state.server.start()

    async def ask() -> list[dict]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            found = await client.post("/recommend", json={"session": ["i3", "i4"], "user": "u1", "k": 5})
            return found.json()["items"]

    try:
        served = asyncio.run(ask())
        made(name, tmp_path)
        assert app.state.server.reloader.check() and app.state.server.engine.model.version == "2"
        assert asyncio.run(ask()) == served
    finally:
        app.state.server.stop()
    assert [one["item"] for one in served] == [one["item"] for one in wanted]


def test_a_graph_or_function_that_does_not_fit_is_an_error_of_one_line(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    made("custom", tmp_path / "custom")
    plain = build("sr_gnn", LOG.items, width=4)
    plain.save(tmp_path / "plain")
    own, graph = ["--build", f"{__name__}:custom"], ["--graph", str(log / "graph")]
    for folder, more, says in (
        ("custom", own, "--graph"),
        ("custom", graph, "--build"),
        ("custom", ["--build", "no_such_module:f"], "cannot be imported"),
        ("custom", ["--build", f"{__name__}:nothing"], "cannot be imported"),
        ("custom", ["--build", f"{__name__}:not_a_system"], "gives list, not a System"),
        ("custom", ["--build", "custom"], "must be module:function"),
        ("plain", graph, "reads no graph and no history"),
        ("plain", ["--graph", str(log / "clicks.csv")], "not written by fit or run"),
        ("custom", [*own, "--graph", str(log / "none.csv")], "none.csv"),
    ):
        for command in (["recommend", "--session", "i3"], ["serve"]):
            assert main([command[0], str(tmp_path / folder), *command[1:], *more]) == 2
            error = capsys.readouterr().err.strip().splitlines()
            assert says in error[-1], error
