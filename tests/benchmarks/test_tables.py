"""The tables know every result, run only what is missing, and first what a row begins with."""

import importlib
import json
import shlex
import subprocess
import sys

import pytest

from benchmarks import tables
from benchmarks.rows import by_variant
from benchmarks.tables import HERE, QUICK, Job, completed, jobs, plain, run
from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.testing import fake_log

TABLES = json.loads((HERE / "tables.json").read_text())


def test_every_result_comes_from_a_command_of_a_table():
    known = {job.key[:-1] for commands in TABLES.values() for job in jobs(commands, 1)}
    assert {command[:-1] for command in completed(HERE / "results")} <= known


COMMANDS = [job for commands in TABLES.values() for job in jobs(commands, 2)]


@pytest.mark.parametrize("module", sorted({job.module for job in COMMANDS}))
def test_every_command_is_one_that_its_benchmark_takes(module):
    if module == "tune":
        pytest.importorskip("optuna")
    parser, own = importlib.import_module(f"benchmarks.{module}").parser(), [j for j in COMMANDS if j.module == module]
    for job in own:
        given = parser.parse_args([*job.command[1:], *QUICK.get(module, "--epochs 1").split()])
        names = given.systems if hasattr(given, "systems") else [given.system]
        assert given.dataset == job.words[1] and job.system in names
        with pytest.raises(SystemExit):
            parser.parse_args([word if word != job.system else "nobody" for word in job.command[1:]])


@pytest.mark.filterwarnings("ignore:.* not read without a gate")  # of cbml_g, which takes what its siblings take
def test_every_command_has_arguments_that_its_system_takes():
    log, jobs_of = fake_log(sessions=60), [j for j in COMMANDS if j.module in ("accuracy", "cold_items", "tune")]
    for name, given in sorted({(job.system, job.after("--arguments") or "{}") for job in jobs_of}):
        if name in CATALOGUE:
            build(name, log.items, users=log.users, **json.loads(given))


def test_seed_and_folders_do_not_distinguish_commands_from_their_results():
    one = plain(shlex.split("python -m benchmarks.accuracy a b --save saved/x --seed 2 --lr 1"))
    assert one == plain(shlex.split("python -m benchmarks.accuracy a b --lr 1 --seed 2 --checkpoint c"))
    assert one != plain(shlex.split("python -m benchmarks.accuracy a b --lr 1"))
    assert one != plain(shlex.split("python -m benchmarks.accuracy a b --lr 2 --seed 2"))


def test_each_seed_begins_with_what_its_own_seed_saved():
    job = Job(("accuracy", "a", "b", "--warm-start", "saved/x"), 1)
    assert job.command[-3:] == ("saved/x-1", "--seed", "1")
    assert Job(job.words, 0).after("--warm-start") == "saved/x"


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """Runs rows in a folder, where each only writes that it has been run, and what it was told to save."""
    order = []

    def instead(job, folder, where, *, quick):
        order.append(shlex.join(job.words))
        if job.after("--save"):
            (folder / job.after("--save")).mkdir(parents=True)
        where.mkdir(exist_ok=True)
        command = shlex.join(["python", "-m", f"benchmarks.{job.module}", *job.command[1:]])
        (where / f"{len(order)}.json").write_text(json.dumps({"command": command}))

    monkeypatch.setattr(tables, "start", instead)
    return order


def test_a_stopped_table_goes_on_where_it_stopped(ran, tmp_path):
    known = jobs(["accuracy d base --save saved/base", "accuracy d other --warm-start saved/base"], 1)
    run(known[:1], known, tmp_path, quick=True)
    run(known, known, tmp_path, quick=True)
    assert ran == ["accuracy d base --save saved/base", "accuracy d other --warm-start saved/base"]


def test_a_row_has_those_run_first_that_it_begins_with(ran, tmp_path):
    known = jobs(
        [
            "accuracy d c --warm-start saved/b",
            "accuracy d b --warm-start saved/a --save saved/b",
            "accuracy d a --save saved/a",
        ],
        1,
    )
    run(known[:1], known, tmp_path, quick=True)
    assert [words.split()[2] for words in ran] == ["a", "b", "c"]
    known += jobs(["accuracy d e --warm-start saved/b --refit-base saved/d", "accuracy d d --save saved/d"], 1)
    run(known[3:4], known, tmp_path, quick=True)
    assert [words.split()[2] for words in ran[3:]] == ["d", "e"]
    alone = jobs(["accuracy d g --warm-start saved/f --refit-base saved/f", "accuracy d f --save saved/f"], 1)
    run(alone, alone, tmp_path, quick=True)
    assert [words.split()[2] for words in ran[5:]] == ["f", "g"]
    with pytest.raises(SystemExit, match="no row of the table saves saved/a"):
        run(known[1:2], known[:2], tmp_path / "elsewhere", quick=True)


@pytest.mark.parametrize("table", [name for name, commands in TABLES.items() if "--warm-start" in str(commands)])
def test_a_fresh_table_runs_each_of_its_rows_once(ran, tmp_path, table):
    known = jobs(TABLES[table], 1)
    run(known, known, tmp_path, quick=True)
    assert sorted(ran) == sorted(shlex.join(job.words) for job in known)


def test_seeds_of_a_variant_go_together_and_rates_do_not():
    told = "accuracy d a --warm-start saved/{} --lr {} --save saved/{} --seed {}"
    rows = [{"command": told.format(*words)} for words in (("a", "2e-3", "b", 0), ("a-1", "2e-3", "b-1", 1))]
    assert [len(group) for group in by_variant([*rows, {"command": told.format("a", "2e-4", "b", 0)}])] == [2, 1]


def test_systems_are_selected_by_exact_name(monkeypatch, tmp_path, capsys):
    def words(*systems):
        monkeypatch.setattr(sys, "argv", ["tables", "cbml-diginetica", "--quick", "--systems", ",".join(systems)])
        found = []
        monkeypatch.setattr(tables, "run", lambda wanted, known, folder, quick: found.extend(wanted))
        tables.main()
        return found

    wanted = words("cbml", "stan")
    assert {job.words[2] for job in wanted} == {"cbml", "stan"} and len(wanted) > 4
    assert {job.words[2] for job in words("reranker")} == {"reranker"}  # though others have it for a base
    for strange in (("sr_gnn", "typo"), ("share-fp32",)):
        with pytest.raises(SystemExit):
            words(*strange)
        told = capsys.readouterr().err
        assert f"has no system {strange[-1]!r}" in told and "cbml, cbml_c" in told
    assert Job(("streams", "d", "--systems", "sml"), 0).system == "sml"


@pytest.mark.slow
def test_a_quick_row_runs_and_keeps_nothing():
    before = completed(HERE / "results")
    command = [sys.executable, "-m", "benchmarks.tables", "asars-complete-journey", "--systems", "bpr_mf", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, check=True)
    assert '"system": "bpr_mf"' in done.stdout
    assert completed(HERE / "results") == before
