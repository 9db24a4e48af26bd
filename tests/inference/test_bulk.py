"""Recommendations for a file are those of single sessions, in any order and format, also after the run was killed."""

import json
import multiprocessing
import shutil
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import graphmeta as gm
from graphmeta.cli.commands import main
from graphmeta.data.table_chunks import chunks
from graphmeta.data.table_files import read_frame
from graphmeta.errors import InputError
from graphmeta.inference import bulk, session_file
from graphmeta.inference.parts import Parts, parts_folder
from graphmeta.inference.session_file import SessionFile, layout_of, parts_of
from graphmeta.storage.lock import locked
from graphmeta.testing import fake_log

LOG = fake_log(sessions=150, items=20)


def with_weights(name):
    torch.manual_seed(0)
    system = gm.build(name, LOG.items, users=LOG.users, width=8).eval()
    system.fit_statistics(LOG)
    for weight in system.parameters():
        weight.data.add_(0.1 * torch.randn_like(weight))
    return system


@pytest.fixture(scope="module")
def system():
    return with_weights("sr_gnn")


@pytest.fixture(scope="module")
def frame():
    """61 sessions of 1 to 5 clicks in random order; of some, all or some items are unknown."""
    random, rows = np.random.default_rng(0), []
    for session in random.permutation(60):
        for at in range(random.integers(1, 6)):
            known = session % 10 and random.random() < 0.9
            item = random.choice(LOG.items.ids) if known else f"new {at}"
            rows.append((f"v,{session}", item, 1e9 + 10 * session + at, f"u{session % 7}"))
    rows += [("both", "i1", 2e9, "u1"), ("both", "i2", 2e9 + 1, "u1")]
    return pd.DataFrame(rows, columns=["visit", "sku", "at", "who"])


def columns(path):
    return SessionFile(path, "sku", session="visit", time="at", user="who")


def small_parts(monkeypatch, rows):
    monkeypatch.setitem(layout_of.__kwdefaults__, "rows", rows)
    monkeypatch.setattr(session_file, "_ROWS", 2 * rows)


def read(path):
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".jsonl":
        return pd.read_json(path, lines=True, dtype={"item": str, "session": str})
    return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype={"item": str, "session": str})


@pytest.mark.parametrize("name", ["sr_gnn", "maml", "personal_reranker", "mf"])
def test_a_file_has_what_each_session_has_alone(name, frame, tmp_path, monkeypatch):
    small_parts(monkeypatch, 40)
    system = with_weights(name)
    frame.to_csv(tmp_path / "in.csv", index=False)
    written = gm.recommend_file(system, columns(tmp_path / "in.csv"), tmp_path / "out.csv", 4, exclude=["i3"])
    found = read(tmp_path / "out.csv")
    assert found["session"].drop_duplicates().tolist() == frame["visit"].drop_duplicates().tolist()
    assert sum(written.sessions.values()) == 61 and list(tmp_path.iterdir()).count(tmp_path / "out.csv.parts") == 0
    reads_users = system.users is not None or system.reads_history
    for session, clicks in list(frame.groupby("visit"))[::4]:
        own = found[found["session"] == session]
        alone = system.recommend(
            clicks["sku"],
            4,
            user=clicks["who"].iloc[0] if reads_users else None,
            times=clicks["at"].tolist(),
            unknown="ignore",
            exclude=["i3"],
        )
        assert own["item"].tolist() == [one.item for one in alone]
        assert own["score"].to_numpy() == pytest.approx([one.score for one in alone], rel=1e-4, abs=1e-5)
        assert own["flag"].tolist() == [one.why for one in alone] and own["rank"].tolist() == [1, 2, 3, 4]
    assert set(found["flag"]) == {"model", "popular"}


def test_the_order_of_sessions_and_the_size_of_parts_change_nothing(system, frame, tmp_path, monkeypatch):
    results = []
    for number, rows in enumerate((17, 64, 10_000)):
        small_parts(monkeypatch, rows)
        order = np.random.default_rng(number).permutation(frame["visit"].unique())
        mixed = frame.set_index("visit").loc[order].reset_index()
        mixed.to_csv(tmp_path / "in.csv", index=False)
        gm.recommend_file(system, columns(tmp_path / "in.csv"), tmp_path / "out.parquet", 3)
        results.append(read(tmp_path / "out.parquet").sort_values(["session", "rank"]).reset_index(drop=True))
    for other in results[1:]:
        pd.testing.assert_frame_equal(results[0], other, rtol=1e-4, atol=1e-5)


def test_formats_have_the_same_rows_and_parquet_a_row_group_per_part(system, frame, tmp_path, monkeypatch):
    from pyarrow.parquet import ParquetFile

    small_parts(monkeypatch, 30)
    frame.to_parquet(tmp_path / "in.parquet")
    file = columns(tmp_path / "in.parquet")
    tables = {}
    for kind in ("csv", "tsv", "jsonl", "parquet"):
        gm.recommend_file(system, file, tmp_path / f"out.{kind}", 3, among=["i1", "i2"], exclude_seen=True)
        tables[kind] = read(tmp_path / f"out.{kind}")
        pd.testing.assert_frame_equal(tables["csv"], tables[kind], check_dtype=False, rtol=1e-6)
    groups = ParquetFile(tmp_path / "out.parquet").num_row_groups
    assert groups == len(layout_of(file).bounds) - 1 > 3
    none = tables["parquet"][tables["parquet"]["flag"] == "no allowed item"]
    seen = frame.groupby("visit")["sku"].agg(set)
    assert set(none["session"]) == {visit for visit, items in seen.items() if items >= {"i1", "i2"}} != set()
    assert none[["rank", "item", "name", "score"]].isna().all(axis=None)


def test_whole_numbers_stay_numbers(tmp_path):
    rows = pd.DataFrame({"s": np.repeat(np.arange(30), 4), "i": np.tile(np.arange(12), 10) + 100})
    log = gm.EventLog.read(rows, session="s", item="i")
    system = gm.build("sr_gnn", log.items, width=4)
    rows.to_csv(tmp_path / "in.csv", index=False)
    gm.recommend_file(system, SessionFile(tmp_path / "in.csv", "i", session="s"), tmp_path / "out.parquet", 2)
    found = read(tmp_path / "out.parquet")
    assert found["session"].dtype == found["item"].dtype == np.int64
    rows["i"] = 7
    rows.to_csv(tmp_path / "in.csv", index=False)
    system.events = None  # a model without counts of training events
    gm.recommend_file(system, SessionFile(tmp_path / "in.csv", "i", session="s"), tmp_path / "out.jsonl", 2)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines == [
        {"session": s, "rank": None, "item": None, "name": None, "score": None, "flag": "no known item"}
        for s in range(30)
    ]


def test_a_log_has_the_same_recommendations_in_frames(system):
    frames = list(gm.recommend_log(system, LOG, 3, exclude_seen=True))
    found = pd.concat(frames)
    assert found["session"].drop_duplicates().tolist() == LOG.sessions.tolist()
    last = LOG.items.ids[LOG.item[LOG.ptr[-2] :]].tolist()
    assert found["item"].tolist()[-3:] == [one.item for one in system.recommend(last, 3, exclude_seen=True)]


def test_sessions_without_a_column_end_by_inactivity(system, frame, tmp_path, monkeypatch):
    small_parts(monkeypatch, 30)
    rows = frame.sort_values(["who", "at"], kind="stable").assign(at=lambda f: f["at"] * 3)
    rows.to_csv(tmp_path / "in.csv", index=False)
    file = SessionFile(tmp_path / "in.csv", "sku", session=gm.Inactivity(20), time="at", user="who")
    gm.recommend_file(system, file, tmp_path / "out.csv", 2)
    log = gm.EventLog.read(tmp_path / "in.csv", session=gm.Inactivity(20), item="sku", time="at", user="who")
    assert set(read(tmp_path / "out.csv")["session"]) == set(log.sessions) and log.num_sessions > 20


def test_parts_are_whole_sessions_that_together_are_the_file(frame, tmp_path, monkeypatch):
    small_parts(monkeypatch, 20)
    frame.to_csv(tmp_path / "in.csv", index=False)
    file = columns(tmp_path / "in.csv")
    layout = layout_of(file)
    parts = list(parts_of(file, layout))
    assert len(parts) == len(layout.bounds) - 1 > 6 and layout.sessions == 61
    ids = np.concatenate([part.ids for part in parts])
    assert ids.tolist() == frame["visit"].drop_duplicates().tolist()
    assert [i for part in parts for session in part.sessions for i in session] == frame["sku"].tolist()
    for first in (0, 3, len(parts) - 1):
        rest = list(parts_of(file, layout, first=first))
        assert [part.ids.tolist() for part in rest] == [part.ids.tolist() for part in parts[first:]]


# errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.sort_values("at", kind="stable").iloc[::-1].sort_values("sku"), "goes on after rows of others"),
        (
            lambda f: f.assign(at=["yesterday" if n == 77 else t for n, t in enumerate(f["at"])]),
            "row 78: the time 'yes",
        ),
        (
            lambda f: f.assign(sku=[None if n == 90 else i for n, i in enumerate(f["sku"])]),
            "row 91: the item is missing",
        ),
        (lambda f: f.rename(columns={"sku": "product"}), "no column 'sku' for the item; the table has: visit, product"),
    ],
)
def test_errors_name_row_and_remedy_before_anything_is_written(system, frame, tmp_path, monkeypatch, change, message):
    small_parts(monkeypatch, 30)
    change(frame).to_csv(tmp_path / "in.csv", index=False)
    with pytest.raises(InputError, match=message) as error:
        gm.recommend_file(system, columns(tmp_path / "in.csv"), tmp_path / "out.csv", 2)
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == [tmp_path / "in.csv"]


def test_the_row_where_a_session_goes_on_is_named(system, frame, tmp_path):
    moved = pd.concat([frame, frame.iloc[:1]])
    moved.to_csv(tmp_path / "in.csv", index=False)
    name = frame["visit"].iloc[0]
    with pytest.raises(InputError, match=rf"row {len(moved)}: session '{name}' goes on .* sort the file by the column"):
        gm.recommend_file(system, columns(tmp_path / "in.csv"), tmp_path / "out.csv", 2)


def test_bad_rows_are_dropped_and_counted_once(system, frame, tmp_path, monkeypatch):
    small_parts(monkeypatch, 30)
    bad = frame.assign(at=["soon" if n % 50 == 7 else t for n, t in enumerate(frame["at"])])
    bad.to_csv(tmp_path / "in.csv", index=False)
    file = SessionFile(
        tmp_path / "in.csv", "sku", session="visit", time="at", options=gm.ReadOptions(drop_bad_rows=True)
    )
    with pytest.warns(
        UserWarning, match=f"dropped rows: {(bad['at'] == 'soon').sum()} of in.csv cannot be read"
    ) as caught:
        gm.recommend_file(system, file, tmp_path / "out.csv", 2)
    assert len(caught) == 1


def test_a_note_is_given_once_for_both_passes(system, frame, tmp_path, monkeypatch):
    small_parts(monkeypatch, 30)
    frame.assign(at=frame["at"] % 1000).to_csv(tmp_path / "in.csv", index=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gm.recommend_file(system, columns(tmp_path / "in.csv"), tmp_path / "out.csv", 2)
    assert [str(one.message).count("lie in 1970") for one in caught] == [1]


def test_parts_of_another_request_and_other_endings_are_refused(system, frame, tmp_path, monkeypatch):
    small_parts(monkeypatch, 30)
    frame.to_csv(tmp_path / "in.csv", index=False)
    file, add = columns(tmp_path / "in.csv"), bulk.Parts.add
    with pytest.raises(InputError, match="are written as .csv, .tsv, .jsonl, .parquet"):
        gm.recommend_file(system, file, tmp_path / "out.xlsx")
    monkeypatch.setattr(bulk.Parts, "add", lambda self, n, f: add(self, n, f) if n < 3 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gm.recommend_file(system, file, tmp_path / "out.csv", 2)
    monkeypatch.setattr(bulk.Parts, "add", add)
    assert not (tmp_path / "out.csv").exists()
    for other in ({"k": 3}, {"exclude": ["i3"]}, {"exclude_seen": True}):
        with pytest.raises(InputError, match="has parts of another input, model or other options; delete that folder"):
            gm.recommend_file(system, file, tmp_path / "out.csv", **{"k": 2, **other})
    assert gm.recommend_file(system, file, tmp_path / "out.csv", 2).resumed == 3


def test_a_history_needs_users_and_a_system_that_reads_it(system, frame, tmp_path):
    frame.to_csv(tmp_path / "in.csv", index=False)
    without = SessionFile(tmp_path / "in.csv", "sku", session="visit")
    with pytest.raises(InputError, match=r"needs the users of the sessions; name their column"):
        gm.recommend_file(with_weights("personal_reranker"), without, tmp_path / "out.csv", 2, history=LOG)
    with pytest.raises(InputError, match="reads no history"):
        gm.recommend_file(system, columns(tmp_path / "in.csv"), tmp_path / "out.csv", 2, history=LOG)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("in.csv", {}),
        ("in.tsv.gz", {"sep": "\t"}),
        ("in.dat", {"sep": "::", "header": False}),
        ("in.parquet", {}),
        ("in.csv", {"where": {"who": ["u1", "u2"]}}),
        ("in.csv", {"drop_bad_rows": True}),
    ],
)
def test_chunks_are_the_rows_of_the_whole_table(frame, tmp_path, name, options):
    path, read_options = tmp_path / name, gm.ReadOptions(**options)
    if name == "in.parquet":
        frame.to_parquet(path)
    elif name == "in.dat":
        path.write_text("".join("::".join(map(str, row)) + "\n" for row in frame.itertuples(index=False)))
    else:
        frame.to_csv(path, index=False, sep=options.get("sep", ","))
    whole = read_frame(read_options.of(path))
    pd.testing.assert_frame_equal(pd.concat(chunks(read_options.of(path), 13)), whole)
    few = {"sku", "who"} if read_options.header else {"2", "4"}
    found = pd.concat(chunks(read_options.of(path), 13, wanted=few.__contains__))
    pd.testing.assert_frame_equal(found[sorted(few)], whole[sorted(few)])


# killed runs


def run(system, folder):
    layout_of.__kwdefaults__["rows"] = 20
    gm.recommend_file(system, columns(folder / "in.csv"), folder / "out.csv", 3)


@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_killed_run_continues_without_a_doubled_or_missing_row(system, frame, tmp_path, monkeypatch, kills):
    small_parts(monkeypatch, 20)
    frame.to_csv(tmp_path / "in.csv", index=False)
    run(system, tmp_path)
    (tmp_path / "out.csv").unlink()
    begin = time.perf_counter()  # of a second run, which is not slowed by imports
    run(system, tmp_path)
    seconds = time.perf_counter() - begin
    wanted = (tmp_path / "out.csv").read_bytes()
    (tmp_path / "out.csv").unlink()
    random, fork, interrupted = np.random.default_rng(kills), multiprocessing.get_context("fork"), 0
    for _ in range(20 * kills):  # a child may end before it is killed
        if interrupted == kills:
            break
        child = fork.Process(target=run, args=(system, tmp_path))
        child.start()
        child.join(random.uniform(0.1, 0.6) * seconds)
        child.kill()
        child.join()
        interrupted += child.exitcode != 0
        if (tmp_path / "out.csv").exists():
            assert (tmp_path / "out.csv").read_bytes() == wanted
            (tmp_path / "out.csv").unlink()
    run(system, tmp_path)
    assert interrupted and (tmp_path / "out.csv").read_bytes() == wanted
    assert not (tmp_path / "out.csv.parts").exists()


@pytest.mark.parametrize("left", ["part-000000.csv", "part-000001.json", "request.json", "parts"])
def test_a_run_that_was_killed_while_it_removed_its_parts_is_begun_anew(system, frame, tmp_path, monkeypatch, left):
    """Whatever it had removed by then; parts without their request are never read."""
    small_parts(monkeypatch, 20)
    frame.to_csv(tmp_path / "in.csv", index=False)
    kept = tmp_path / "kept"
    clear = Parts._clear

    def copied(self):
        if list(self.folder.glob("part-*")):
            shutil.copytree(self.folder, kept, dirs_exist_ok=True)
        clear(self)

    monkeypatch.setattr(Parts, "_clear", copied)
    run(system, tmp_path)
    wanted = (tmp_path / "out.csv").read_bytes()
    (tmp_path / "out.csv").unlink()
    if left == "parts":  # of another request, which has gone
        (kept / "request.json").unlink()
        for part in kept.glob("part-*.csv"):
            part.write_bytes(b"stale\n")
    else:
        (kept / left).unlink()
    kept.rename(tmp_path / "out.csv.parts")
    run(system, tmp_path)
    assert (tmp_path / "out.csv").read_bytes() == wanted and not (tmp_path / "out.csv.parts").exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(system, tmp_path):
    """200,000 sessions, a million clicks, below 300 MB above the model."""
    system.save(tmp_path / "model")
    random = np.random.default_rng(0)
    with (tmp_path / "in.csv").open("w") as file:
        file.write("visit,sku,at,who\n")
        for session in range(200_000):
            for at in range(5):
                file.write(f"visit {session},{random.choice(20)},{1e9 + session + at},u{session % 999}\n")
    script = """
        import sys
        import graphmeta as gm
        from benchmarks.timing import peak_mb
        import graphmeta.inference.bulk, pandas, pyarrow.parquet
        folder = sys.argv[1]
        system = gm.load(folder + "/model")
        system.recommend(["i1"], 3)
        before = peak_mb()
        file = gm.SessionFile(folder + "/in.csv", "sku", session="visit", time="at", user="who")
        gm.recommend_file(system, file, folder + "/out.parquet", 10)
        print(peak_mb() - before)
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert 0 < float(out.stdout) < 300  # MB
    assert pd.read_parquet(tmp_path / "out.parquet", columns=["session"])["session"].nunique() == 200_000


# on the command line


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    events = LOG.to_frame().assign(session=lambda f: "v" + f["session"].astype(str))
    events.to_csv(folder / "log.csv", index=False)
    brand = LOG.items.attributes["brand"]
    pd.DataFrame({"item": LOG.items.ids, "brand": brand.values[brand.codes]}).to_csv(folder / "items.csv", index=False)
    command = ["fit", str(folder / "log.csv"), "--item", "item", "--session", "session", "--time", "time"]
    command += ["--items", str(folder / "items.csv"), "--system", "sr_gnn", "--epochs", "1", "--width", "8"]
    assert main([*command, "--out", str(folder / "model")]) == 0
    return folder


def test_the_command_writes_a_file_in_the_columns_of_the_log_or_named_ones(fitted, tmp_path, capsys):
    (tmp_path / "stock.txt").write_text("i1\ni2\ni3\ni4\nmissing\n")
    brand = LOG.items.attributes["brand"]
    value = brand.values[brand.codes[LOG.items.ids.tolist().index("i1")]]
    of_brand = set(LOG.items.ids[brand.codes == brand.codes[LOG.items.ids.tolist().index("i1")]])
    model, out = str(fitted / "model"), tmp_path / "out.csv"
    command = ["recommend", model, "--in", str(fitted / "log.csv"), "--out", str(out), "-k", "2"]
    assert main([*command, "--among", str(tmp_path / "stock.txt"), "--among", f"brand={value}"]) == 0
    told = capsys.readouterr().err
    assert "1 of 5 ids unknown to this model, without effect, the first: 'missing'" in told
    assert f"written: {out}; 150 sessions: 150 by the model" in told
    assert set(read(out)["item"]) == {"i1", "i2", "i3", "i4"} & of_brand
    renamed = pd.read_csv(fitted / "log.csv").rename(columns={"item": "sku", "session": "visit"})
    renamed[["sku", "visit"]].to_csv(tmp_path / "in.tsv", sep="\t", index=False)
    names = ["--item-column", "sku", "--session-column", "visit"]
    assert main(["recommend", model, "--in", str(tmp_path / "in.tsv"), "--out", str(out), *names, "-k", "2"]) == 0
    assert read(out)["session"].nunique() == 150


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--in", "LOG"], "--in needs the file to write: --out"),
        (["--out", "x.csv"], "name sessions by --session .* or a file of them by --in"),
        (["--in", "LOG", "--out", "x.csv", "--session", "i1"], "one of both"),
        (["--in", "LOG", "--out", "x.csv", "--user", "u1"], "--user-column"),
        (["--session", "i1", "--out", "x.csv"], "--out is for the sessions of a file"),
        (
            ["--session", "i1", "--among", "nofile.txt"],
            "nofile.txt: no such file of item ids; name one, or COLUMN=VALUE",
        ),
        (["--session", "i1", "--exclude", "brand=nope"], "--exclude: no item has brand='nope'"),
        (["--in", "LOG", "--out", "x.csv", "--item-column", "sku"], "no column 'sku' for the item; the table has"),
        (["--in", "OTHER", "--out", "x.csv"], "no column 'item' for the item, .* has: sku, session; .* --item-column$"),
        (["--in", "LOG", "--out", "x.doc"], "are written as .csv"),
    ],
)
def test_errors_of_the_command_are_one_line(fitted, capsys, monkeypatch, tmp_path, options, message):
    monkeypatch.chdir(tmp_path)
    other = fitted / "other.csv"
    other.write_text("sku,session\ni1,v1\n")
    files = {"LOG": str(fitted / "log.csv"), "OTHER": str(other)}
    given = [files.get(one, one) for one in options]
    assert main(["recommend", str(fitted / "model"), *given]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith("error: ")
    assert pd.Series(told).str.contains(message).all() and not list(tmp_path.iterdir())


def test_similar_and_explain_on_the_command_line(fitted, capsys):
    model = str(fitted / "model")
    assert main(["similar", model, "i3", "-k", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == [vars(one) for one in gm.load(fitted / "model" / "model").similar("i3", 4)]
    assert main(["similar", model, "i3"]) == 0 and "cosine" in capsys.readouterr().out
    assert main(["explain", model, "--session", "i1,i2", "--item", "i5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(found["parts"].values()) == pytest.approx(found["score"])
    assert main(["explain", model, "--session", "i1,i2", "--item", "i5"]) == 0
    assert "by click, oldest first" in capsys.readouterr().out
    assert main(["similar", model, "i3", "--exclude-seen"]) == 2 and "--exclude-seen" in capsys.readouterr().err
    assert main(["explain", model, "--session", "i1", "--item", "x5"]) == 2
    assert "item 'x5' is not known to this model" in capsys.readouterr().err


@pytest.mark.parametrize("odd", ["i\x1b[2J", "i\x9b2J"])
def test_no_control_character_of_an_id_reaches_the_console(fitted, capsys, odd):
    command = ["recommend", str(fitted / "model"), "--session", odd, "--unknown", "ignore", "-k", "2"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    document = capsys.readouterr().out
    assert json.loads(document)[0]["session"] == [odd]
    assert not {"\x1b", "\x9b"} & set(shown + document) and ascii(odd)[1:-1] in shown


def test_a_file_without_the_sessions_of_users_gets_a_note(fitted, tmp_path, capsys):
    events = pd.read_csv(fitted / "log.csv").assign(
        user=lambda f: "u" + (f["session"].str[1:].astype(int) % 9).astype(str)
    )
    events.to_csv(tmp_path / "log.csv", index=False)
    log, model = str(tmp_path / "log.csv"), str(tmp_path / "model")
    columns = ["--item", "item", "--session", "session", "--time", "time", "--user", "user"]
    assert main(["fit", log, *columns, "--system", "personal_frequency", "--out", model]) == 0
    capsys.readouterr()
    command = ["recommend", model, "--in", log, "--out", str(tmp_path / "out.csv"), "-k", "2", "--quiet"]
    assert main(command) == 0 and "no --history, so no earlier session of a user is read" in capsys.readouterr().err
    assert main([*command, "--history", log]) == 0 and "--history" not in capsys.readouterr().err


def test_popular_items_of_an_unknown_session_are_marked(fitted, capsys):
    assert main(["recommend", str(fitted / "model"), "--session", "new", "--unknown", "ignore", "-k", "2"]) == 0
    assert "After new: nothing of it is known to this model; popular items" in capsys.readouterr().out


def test_two_writers_of_one_file_are_not_at_work_at_once(system, frame, tmp_path):
    frame.to_csv(tmp_path / "in.csv", index=False)
    source, out = SessionFile(tmp_path / "in.csv", item="sku", session="visit"), tmp_path / "out.csv"
    with locked(parts_folder(out)), pytest.raises(InputError, match="writes to it; wait until it has finished"):
        gm.recommend_file(system, source, out, 3)
    first = gm.recommend_file(system, source, out, 3)
    text = out.read_bytes()
    assert not parts_folder(out).exists() and first.out == out
    gm.recommend_file(system, source, out, 3)
    assert out.read_bytes() == text and not parts_folder(out).exists()


def test_a_missing_part_is_an_error_and_the_output_stays(system, tmp_path):
    parts = Parts(tmp_path / "out.csv", {}, whole=(False, False))
    (tmp_path / "out.csv").write_text("whole")
    with pytest.raises(InputError, match="2 of 2 parts were removed"):
        parts.join(2)
    assert (tmp_path / "out.csv").read_text() == "whole"


def test_the_input_is_not_overwritten(system, frame, tmp_path):
    frame.to_csv(tmp_path / "in.csv", index=False)
    before = (tmp_path / "in.csv").read_bytes()
    source = SessionFile(tmp_path / "in.csv", item="sku", session="visit")
    with pytest.raises(InputError, match="is read, so it cannot be written to"):
        gm.recommend_file(system, source, tmp_path / "in.csv", 3)
    assert (tmp_path / "in.csv").read_bytes() == before
