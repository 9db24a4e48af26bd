"""What is saved is read back whole, or not at all; and never is anything run."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from graphmeta.errors import InputError
from graphmeta.storage import load_state, save_state, state_hash, write_bytes, write_json

TENSORS = {
    "weight": torch.arange(6.0).reshape(2, 3).t(),  # not contiguous
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "step": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "none": torch.zeros(0, 4),
    "ä/ö.ü": torch.tensor([float("nan"), float("inf")], dtype=torch.float64),
}
DOCUMENT = {"epochs": 3, "name": "日本\n", "rate": 0.1, "deep": {"list": [1, None, True, {"x": []}]}}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name].nan_to_num(), tensor.nan_to_num())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_state(tmp_path, "model", TENSORS, DOCUMENT)
    return tmp_path


def tensors_file(folder: Path) -> Path:
    (file,) = folder.glob("*.safetensors")
    return file


def forge(folder: Path, change: Any) -> None:
    """Rewrite the JSON with a change and a checksum that fits, as somebody who knows the format would."""
    body = json.loads((folder / "model.json").read_text())
    del body["sha256"]
    change(body)
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    (folder / "model.json").write_text(json.dumps(body | {"sha256": digest}))


def refused(folder: Path, says: str = "", name: str = "model") -> None:
    with pytest.raises(InputError, match=says) as error:
        load_state(folder, name)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


# Whole


def test_what_is_saved_is_read_back(saved: Path) -> None:
    tensors, document = load_state(saved, "model")
    assert_same(tensors, TENSORS)
    assert document == DOCUMENT


def test_nothing_else_is_left_in_the_folder(saved: Path) -> None:
    for step in range(3):
        save_state(saved, "model", {"step": torch.tensor(step)}, {"step": step})
    assert {path.name for path in saved.iterdir()} == {"model.json", tensors_file(saved).name}
    assert load_state(saved, "model")[1] == {"step": 2}


def test_states_side_by_side_leave_each_other_alone(tmp_path: Path) -> None:
    names = ["model", "model-best", "best-model", "mo*el", "[m]odel"]
    for round_ in range(2):
        for number, name in enumerate(names):
            save_state(tmp_path, name, {"x": torch.tensor([number, round_])}, {"name": name})
    for number, name in enumerate(names):
        assert load_state(tmp_path, name)[0]["x"].tolist() == [number, 1]
    assert len(list(tmp_path.iterdir())) == 2 * len(names)


def test_tensors_that_share_memory_are_saved_each(tmp_path: Path) -> None:
    table = torch.arange(4.0)
    save_state(tmp_path, "model", {"a": table, "b": table, "c": table[1:3]}, {})
    tensors, _ = load_state(tmp_path, "model")
    assert_same(tensors, {"a": table, "b": table, "c": table[1:3]})
    tensors["a"][0] = 9
    assert tensors["b"][0] == 0


def test_a_state_without_tensors_and_with_gradients(tmp_path: Path) -> None:
    save_state(tmp_path, "empty", {}, {})
    assert load_state(tmp_path, "empty") == ({}, {})
    weight = torch.ones(2, requires_grad=True)
    save_state(tmp_path, "model", {"w": weight}, {})
    assert not load_state(tmp_path, "model")[0]["w"].requires_grad


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(0, 20), inner, max_size=12),
    max_leaves=15,
)


@settings(max_examples=30)
@given(st.dictionaries(st.text() | st.integers(0, 20), JSON, max_size=12))
def test_any_document_that_json_holds(tmp_path_factory: pytest.TempPathFactory, document: dict) -> None:
    """Keys that are numbers come back as text, as JSON has it, and in whatever order do not break the checksum."""
    folder = tmp_path_factory.getbasetemp() / "documents"
    save_state(folder, "model", {}, document)
    assert load_state(folder, "model")[1] == json.loads(json.dumps(document))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), object(), {1, 2}, Path("x"), torch.ones(1)])
def test_a_document_that_json_cannot_hold_leaves_the_old_state(saved: Path, bad: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        save_state(saved, "model", {"x": torch.ones(1)}, {"bad": bad})
    assert load_state(saved, "model")[1] == DOCUMENT


# Damaged


def test_a_file_cut_short_anywhere_is_refused(saved: Path) -> None:
    for path in (saved / "model.json", tensors_file(saved)):
        whole = path.read_bytes()
        for size in {0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 2}:
            path.write_bytes(whole[:size])
            refused(saved, "restore it from a copy")
        path.write_bytes(whole)
    load_state(saved, "model")


@settings(max_examples=40)
@given(st.data())
def test_a_flipped_bit_anywhere_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "flipped"
    save_state(folder, "model", TENSORS, DOCUMENT)
    path = data.draw(st.sampled_from([folder / "model.json", tensors_file(folder)]))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        tensors, document = load_state(folder, "model")
    except InputError:
        return
    assert_same(tensors, TENSORS)  # white space between the words of the JSON says nothing
    assert document == DOCUMENT and path.suffix == ".json"


@pytest.mark.parametrize("change", [{"epochs": 4}, {"new": 1}, {"deep": None}])
def test_a_changed_document_is_refused(saved: Path, change: dict) -> None:
    body = json.loads((saved / "model.json").read_text())
    body["document"] |= change
    (saved / "model.json").write_text(json.dumps(body))
    refused(saved, r"model.json: changed since it was written \(its SHA-256 differs\)")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", '"x"', "{}", '{"sha256": "x"}', "NaN", "\x00", "\udcff", "[" * 100_000,
     '{"sha256": "x", "document": {}, "tensors": {"file": "f", "sha256": "s"}, "more": NaN}',
     '{"sha256": "x", "document": {}, "tensors": "f"}', '{"sha256": "x", "document": {}, "tensors": {"file": 3}}',
     '{"sha256": "x", "document": ' + "1" * 5000 + "}"],
)  # fmt: skip
def test_any_other_text_in_place_of_the_json_is_refused(saved: Path, text: str) -> None:
    (saved / "model.json").write_bytes(text.encode(errors="surrogateescape"))
    refused(saved, "cut short or not a graphmeta file")


def test_missing_files_are_named(saved: Path) -> None:
    refused(saved, "nowhere.json: no such file; is .* a folder that graphmeta wrote", name="nowhere")
    refused(saved / "nowhere", "no such file")
    tensors_file(saved).unlink()
    refused(saved, "safetensors: no such file; the model is incomplete")


def test_the_tensors_of_another_state_are_refused(saved: Path, tmp_path: Path) -> None:
    save_state(tmp_path / "other", "model", {"x": torch.zeros(3)}, {})
    tensors_file(saved).write_bytes(tensors_file(tmp_path / "other").read_bytes())
    refused(saved, "damaged or changed")


# Hostile


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


def test_the_payload_would_work(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("forged", [False, True])
@pytest.mark.parametrize("writer", ["pickle", "torch", "torch-legacy"])
def test_a_pickle_in_place_of_the_tensors_is_not_run(saved: Path, forged: bool, writer: str) -> None:
    marker, path = saved / "marker", tensors_file(saved)
    if writer == "pickle":
        path.write_bytes(pickle.dumps(Payload(marker)))
    else:
        torch.save({"x": Payload(marker)}, path, _use_new_zipfile_serialization=writer == "torch")
    if forged:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        forge(saved, lambda body: body["tensors"].update(sha256=digest))
    refused(saved, "not a readable safetensors file" if forged else "damaged or changed")
    (saved / "model.json").write_bytes(pickle.dumps(Payload(marker)))
    refused(saved, "cut short or not a graphmeta file")
    assert not marker.exists()


def test_a_forged_json_reaches_no_file_outside_the_folder(saved: Path) -> None:
    outside = saved.parent / "outside.safetensors"
    outside.write_bytes(save({"secret": torch.ones(1)}))
    digest = hashlib.sha256(outside.read_bytes()).hexdigest()
    for name in (f"../{outside.name}", str(outside)):
        forge(saved, lambda body, name=name: body["tensors"].update(file=name, sha256=digest))
        refused(saved, "outside.safetensors: no such file")


@pytest.mark.parametrize("tensors", [None, [], {}, {"file": None, "sha256": "x"}, {"file": "", "sha256": "x"}, "x"])
def test_a_forged_json_without_tensors_is_refused(saved: Path, tensors: Any) -> None:
    forge(saved, lambda body: body.update(tensors=tensors))
    refused(saved, "restore it from a copy")


def header(text: str, size: int | None = None) -> bytes:
    return (len(text) if size is None else size).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"", header("{}", 2**63), header("{}", 10**9), header("[]"), header("x"),
        header('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'),
        header('{"a": {"dtype": "F32", "shape": [1099511627776], "data_offsets": [0, 4398046511104]}}') + bytes(8),
        header('{"a": {"dtype": "XYZ", "shape": [2], "data_offsets": [0, 8]}}') + bytes(8),
        header('{"a": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}}') + bytes(8),
        header('{"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}') + bytes(8),
        header('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}') + bytes(8),
    ],
)  # fmt: skip
def test_a_broken_tensor_file_with_a_fitting_checksum_is_refused(saved: Path, content: bytes) -> None:
    tensors_file(saved).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    forge(saved, lambda body: body["tensors"].update(sha256=digest))
    refused(saved, "not a readable safetensors file")


# Interrupted


SAVER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from graphmeta.storage import load_state, save_state

folder, chance = Path(sys.argv[1]), random.Random(5)

def save(number):
    save_state(folder, "model", {"x": torch.full((100_000,), float(number))}, {"number": number})

save(0)
for _ in range(8):
    child = os.fork()
    if not child:
        number = load_state(folder, "model")[1]["number"]
        while True:
            number += 1
            save(number)
    time.sleep(chance.uniform(0.005, 0.15))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    tensors, document = load_state(folder, "model")
    assert (tensors["x"] == document["number"]).all() and len(tensors["x"]) == 100_000
    print(document["number"], flush=True)
save(-1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_process_killed_while_it_saves_leaves_a_readable_state(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SAVER, str(tmp_path)],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ".", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[1], check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    numbers = [int(line) for line in done.stdout.split()]
    assert len(numbers) == 8 and numbers == sorted(numbers) and numbers[-1] > 0
    assert load_state(tmp_path, "model")[1] == {"number": -1}
    assert len(list(tmp_path.iterdir())) == 2  # what the killed left behind is cleared away


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "a.txt", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"a.txt: cannot be written \(No space left on device\)"):
        write_bytes(tmp_path / "a.txt", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"old"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.json", tmp_path / "file" / "b" / "a.json"):
        with pytest.raises(InputError, match="a.json: cannot be written"):
            write_json(path, {})


def test_json_is_readable_and_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "a.json", {"x": [1.5]})
    assert (tmp_path / "deep" / "a.json").read_text() == '{\n "x": [\n  1.5\n ]\n}\n'
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


# Hashes


def test_the_hash_of_weights_depends_on_every_bit() -> None:
    def module(weight: torch.Tensor) -> torch.nn.Module:
        found = torch.nn.Module()
        found.register_buffer("weight", weight)
        return found

    plain = torch.tensor([[1.0, 0.0], [2.0, 3.0]])
    same = [plain, plain.clone(), plain.t().contiguous().t()]
    assert len({state_hash(module(weight)) for weight in same}) == 1
    others = [
        plain, -plain * -1 + torch.tensor([[0, -0.0], [0, 1e-6]]), plain.reshape(4), plain.double(),
        plain.bfloat16(), plain * torch.tensor([[1.0, -1.0], [1.0, 1.0]]), plain.view(torch.int32),
        torch.tensor(1.0),
    ]  # fmt: skip
    assert len({state_hash(module(weight)) for weight in others}) == len(others)
    first, second = torch.nn.Module(), torch.nn.Module()
    first.register_buffer("a", plain)
    second.register_buffer("b", plain)
    assert state_hash(first) != state_hash(second)
