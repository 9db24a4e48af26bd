"""The HTTP interface: every endpoint, limits, the token, overload and new versions, through ASGI."""

import asyncio
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from graphmeta.cli.commands import main
from graphmeta.errors import InputError
from graphmeta.published.catalogue import build
from graphmeta.serving.app import Server, create_app
from graphmeta.serving.engine import Limits
from graphmeta.serving.guard import depth
from graphmeta.serving.served import Served
from graphmeta.serving.settings import Settings
from tests.serving.models import HOSTILE, LOG, SESSIONS, hostile, served, trained
from tests.serving.test_engine import Blocked, until

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef-token"


def settings(**given: Any) -> Settings:
    return Settings("nowhere", **given)


def with_client(
    use: Callable[[httpx.AsyncClient, Server], Coroutine[Any, Any, Any]], model: Served | None = None, **given: Any
) -> Any:
    """What ``use`` returns for a client of a server of this model."""
    app = create_app(settings(**given), model or served())

    async def run() -> Any:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await use(client, app.state.server)

    try:
        return asyncio.run(run())
    finally:
        app.state.server.stop()


def send(
    method: str, path: str, model: Served | None = None, *, given: dict | None = None, **request: Any
) -> httpx.Response:
    """The response to one request."""
    return with_client(lambda client, _: client.request(method, path, **request), model, **(given or {}))


def plain(found: list) -> list[dict[str, Any]]:
    return [
        {"item": one.item, "name": one.name, "score": pytest.approx(one.score, rel=1e-4, abs=1e-5)} for one in found
    ]


def listed(items: list[dict]) -> list[dict]:
    return [{name: one[name] for name in ("item", "name", "score")} for one in items]


def error(response: httpx.Response, status: int) -> str:
    """The one line of an error."""
    assert response.status_code == status, response.text
    found = response.json()
    assert found.keys() == {"error"} and "\n" not in found["error"] and found["error"]
    return found["error"]


# Endpoints


def test_recommendations_equal_those_of_the_system() -> None:
    body = {"session": SESSIONS[3], "k": 4}
    for options in ({}, {"adapt": False}, {"exclude_seen": True}):
        found = send("POST", "/recommend", json=body | options)
        own = {"steps": 0} if "adapt" in options else options
        assert found.status_code == 200 and found.json()["version"] == "1"
        assert listed(found.json()["items"]) == plain(trained("maml").recommend(SESSIONS[3], 4, **own))


def test_concurrent_requests_equal_serial_ones() -> None:
    async def ask(client: httpx.AsyncClient, _: Server) -> list[httpx.Response]:
        return await asyncio.gather(
            *(client.post("/recommend", json={"session": one, "k": 5}) for one in SESSIONS[:20])
        )

    for session, found in zip(SESSIONS, with_client(ask), strict=False):
        assert listed(found.json()["items"]) == plain(trained("maml").recommend(session, 5))


def test_a_batch_has_a_result_or_an_error_for_each_session() -> None:
    batch = [{"session": SESSIONS[0]}, {"session": []}, {"session": [*SESSIONS[1], "zz"]}]
    found = send("POST", "/recommend", json={"batch": batch, "k": 3}).json()
    first, second, third = found["results"]
    assert listed(first["items"]) == plain(trained("maml").recommend(SESSIONS[0], 3)) and first["unknown_items"] == 0
    assert second.get("error") or all(one["why"] == "popular" for one in second["items"])
    assert listed(third["items"]) == plain(trained("maml").recommend(SESSIONS[1], 3)) and third["unknown_items"] == 1
    assert "items" not in found
    for wrong in ({"batch": batch, "session": ["i1"]}, {"batch": []}, {"batch": batch * 40}):
        assert error(send("POST", "/recommend", json=wrong), 422)


def test_one_version_answers_a_batch_also_if_a_new_one_comes_meanwhile() -> None:
    """A single request that was queued before the new version may get it."""
    old = Blocked.made()
    new = Served(trained("sr_gnn", 2), "2")
    batch = {"batch": [{"session": one} for one in SESSIONS[:7]], "k": 5}

    async def ask(client: httpx.AsyncClient, server: Server) -> list[httpx.Response]:
        first = asyncio.create_task(client.post("/recommend", json=batch))
        await asyncio.to_thread(until, lambda: old.sizes == [3])
        single = asyncio.create_task(client.post("/recommend", json={"session": SESSIONS[0], "k": 5}))
        await asyncio.to_thread(until, lambda: server.ready.waiting == 5)
        server.ready.replace(new)
        second = asyncio.create_task(client.post("/recommend", json=batch))
        await asyncio.to_thread(until, lambda: server.ready.waiting == 12)
        old.go.set()
        return [await first, await second, await single]

    first, second, single = with_client(ask, old, engine=Limits(batch=3))
    assert old.sizes == [3, 3, 1] and single.json()["version"] == "2"
    for found, version, seed in ((first, "1", 0), (second, "2", 2)):
        assert found.json()["version"] == version
        for session, result in zip(SESSIONS[:7], found.json()["results"], strict=True):
            assert listed(result["items"]) == plain(trained("sr_gnn", seed).recommend(session, 5))


def test_an_empty_result_has_its_reason() -> None:
    everything = LOG.items.ids.tolist()
    found = send("POST", "/recommend", json={"session": SESSIONS[0], "exclude": everything}).json()
    assert found["items"] == [] and found["reason"] == "no item is allowed that could be recommended"
    without_counts = Served(build("sr_gnn", LOG.items, width=4).eval(), "1")
    batch = [{"session": ["strange"]}, {"session": SESSIONS[0]}]
    first, second = send("POST", "/recommend", without_counts, json={"batch": batch}).json()["results"]
    assert "no known item" in first.get("reason", first.get("error")) and "reason" not in second


def test_filters_leave_only_chosen_items() -> None:
    ids = LOG.items.ids.tolist()
    body = {"session": SESSIONS[2], "k": 5, "among": ids[:9], "exclude": ids[:2]}
    found = send("POST", "/recommend", json=body).json()["items"]
    assert found and {one["item"] for one in found} <= set(ids[2:9])
    brand = str(LOG.items.attributes["brand"].values[1])
    found = send("POST", "/recommend", json={"session": SESSIONS[2], "k": 5, "among": {"brand": brand}}).json()["items"]
    wanted = trained("maml").recommend(SESSIONS[2], 5, among={"brand": brand})
    assert found and listed(found) == plain(wanted)
    assert "colour" in error(send("POST", "/recommend", json={"session": SESSIONS[2], "among": {"colour": "x"}}), 422)


def test_items_are_searched_and_similar_ones_listed() -> None:
    found = send("GET", "/items", params={"query": "i1", "limit": 3}).json()
    assert found["items"][0] == {"item": "i1", "name": "i1"} and len(found["items"]) == 3
    found = send("GET", "/items/i1/similar", params={"k": 4}).json()
    assert listed(found["items"]) == plain(trained("maml").similar("i1", 4))
    assert "'zz' is not known" in error(send("GET", "/items/zz/similar"), 422)
    assert error(send("GET", "/items"), 422) and error(send("GET", "/items", params={"query": "a", "limit": 0}), 422)


def test_an_explanation_adds_up_to_the_score() -> None:
    found = send("POST", "/explain", json={"session": SESSIONS[3], "item": "i2"}).json()
    wanted = trained("maml").explain(SESSIONS[3], "i2")
    assert found["score"] == pytest.approx(wanted.score, abs=1e-5) and found["item"] == "i2"
    assert sum(found["parts"].values()) == pytest.approx(found["score"], abs=1e-4)
    assert found["without_clicks"] + sum(one["value"] for one in found["clicks"]) == pytest.approx(
        found["score"], abs=1e-4
    )
    assert error(send("POST", "/explain", json={"session": SESSIONS[3], "item": "zz"}), 422)
    assert error(send("POST", "/explain", json={"session": SESSIONS[3]}), 422)


def test_state_model_and_metrics() -> None:
    async def ask(client: httpx.AsyncClient, server: Server) -> list[httpx.Response]:
        await client.post("/recommend", json={"session": SESSIONS[0], "k": 3})
        await client.post("/recommend", json={"session": 3})
        found = [await client.get(path) for path in ("/health", "/ready", "/model", "/metrics", "/nowhere")]
        server.engine.stop()
        return [*found, await client.get("/ready"), await client.post("/recommend", json={"session": SESSIONS[0]})]

    health, ready, model, metrics, nowhere, stopping, refused = with_client(ask)
    assert health.json()["status"] == "ok" and ready.json() == {"status": "ok", "version": "1"}
    assert model.json() | {"columns": []} == {
        "version": "1", "system": "maml", "items": 23, "adapts": True, "reads_users": False, "reads_history": False,
        "columns": [], "card": "",
    }  # fmt: skip
    assert 'graphmeta_requests_total{endpoint="recommend",code="200"} 1' in metrics.text
    assert 'graphmeta_requests_total{endpoint="recommend",code="422"} 1' in metrics.text
    assert "graphmeta_recommend_seconds_count 2" in metrics.text and metrics.text.endswith("\n")
    assert error(nowhere, 404) == "Not Found"
    assert stopping.status_code == 503 and stopping.json()["status"] == "stopping"
    assert "stopping" in error(refused, 503) and int(refused.headers["retry-after"]) >= 1


def test_users_and_histories_are_read() -> None:
    system = trained("sr_gnn")
    found = send("POST", "/recommend", served("sr_gnn"), json={"session": SESSIONS[0], "user": "u1", "k": 3}).json()
    assert listed(found["items"]) == plain(system.recommend(SESSIONS[0], 3)) and "user_known" not in found
    wrong = {"session": SESSIONS[0], "history": [SESSIONS[1]], "k": 3}
    assert "reads no history" in error(send("POST", "/recommend", served("sr_gnn"), json=wrong), 422)


# Limits


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"session": ["x" * 201]}, "201 characters"),
        ({"session": ["i1"], "user": "x" * 201}, "201 characters"),
        ({"session": ["i1"] * 2001}, "2,001 clicks"),
        ({"session": ["i1"] * 1500, "history": [["i1"] * 501]}, "2,001 clicks"),
        ({"session": ["i1"], "exclude": ["x" * 201]}, "201 characters"),
        ({"session": ["i1"], "k": 0}, "body.k"), ({"session": ["i1"], "k": 1001}, "body.k"),
        ({"session": ["i1"], "k": True}, "body.k"),
        ({"session": ["i1"], "kk": 1}, "body.kk"), ({"session": "i1"}, "body.session"),
        ({"session": [None]}, "body.session.0"), ({"session": [1.5]}, "body.session.0"),
        ({"session": [2**63]}, "body.session.0"), ({"session": ["i1"], "unknown": "warn"}, "body.unknown"),
        ({"session": ["zz"], "unknown": "raise"}, "item 'zz' is not known"),
        ({"session": ["i1"], "times": ["x"]}, "body.times.0"),
    ],
)  # fmt: skip
def test_requests_beyond_a_limit_are_refused_with_the_place(body: dict, says: str) -> None:
    assert says in error(send("POST", "/recommend", json=body), 422)


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"session": NaN}', b'{"times": [NaN], "session": ["i1"]}', b"1" * 5000,
     b'{"session": [' + b"1" * 5000 + b"]}", b'{"\\ud800": 1}', b"\x00", b'"' * 3],
)  # fmt: skip
def test_texts_that_are_not_a_request_are_refused(content: bytes) -> None:
    response = send("POST", "/recommend", content=content, headers=JSON)
    assert error(response, response.status_code) and response.status_code in (400, 422)


def test_deep_json_is_refused_before_it_is_parsed() -> None:
    for content in (b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000):
        assert "nested more than 8" in error(send("POST", "/recommend", content=content, headers=JSON), 422)
    assert depth(json.dumps({"a": "[[[[", "b": ['\\"[', {"c": "}"}]}).encode()) == 3


def test_long_bodies_are_refused_also_without_a_length() -> None:
    async def parts():
        for _ in range(20):
            yield b" " * 100

    for content in (b" " * 1001, parts()):
        response = send("POST", "/recommend", given={"max_body": 1000}, content=content, headers=JSON)
        assert "more than 1,000 bytes" in error(response, 413)


def test_beyond_the_queue_requests_are_refused_with_a_time() -> None:
    model = Blocked.made()

    async def ask(client: httpx.AsyncClient, server: Server) -> list[httpx.Response]:
        first = asyncio.create_task(client.post("/recommend", json={"session": SESSIONS[0], "k": 3}))
        await asyncio.to_thread(until, lambda: model.sizes == [1])
        waiting = [
            asyncio.create_task(client.post("/recommend", json={"session": one, "k": 3})) for one in SESSIONS[:3]
        ]
        await asyncio.to_thread(until, lambda: server.ready.waiting == 3)
        refused = await client.post("/recommend", json={"session": SESSIONS[0], "k": 3})
        model.go.set()
        return [refused, await first, *(await asyncio.gather(*waiting))]

    refused, *answered = with_client(ask, model, engine=Limits(queue=3))
    assert "queue of 3" in error(refused, 503) and 1 <= int(refused.headers["retry-after"]) <= 60
    assert [one.status_code for one in answered] == [200] * 4


def test_a_new_version_under_load_loses_no_request(tmp_path: Path) -> None:
    trained("sr_gnn", 1).save(tmp_path)
    app = create_app(Settings(str(tmp_path), reload_every=0.02))
    server: Server = app.state.server

    async def run() -> list[httpx.Response]:
        transport, found = httpx.ASGITransport(app=app), []
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            loading = await client.post("/recommend", json={"session": SESSIONS[0]})
            assert "being loaded" in error(loading, 503) and (await client.get("/ready")).status_code == 503
            await asyncio.to_thread(server.start)
            threading.Timer(0.2, lambda: trained("sr_gnn", 2).save(tmp_path)).start()
            while not found or found[-1].json()["version"] == "1":
                assert len(found) < 5000
                found += await asyncio.gather(
                    *(client.post("/recommend", json={"session": one, "k": 5}) for one in SESSIONS[:8])
                )
        return found

    try:
        found = asyncio.run(run())
    finally:
        server.stop()
    assert {one.status_code for one in found} == {200} and {one.json()["version"] for one in found} == {"1", "2"}
    for number, one in enumerate(found):
        version = int(one.json()["version"])
        assert listed(one.json()["items"]) == plain(trained("sr_gnn", version).recommend(SESSIONS[number % 8], 5))


# The token, and what is shown and logged


def test_a_token_guards_all_but_health_and_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHMETA_TOKEN", TOKEN)
    wrong = [b"", b"Bearer", f"Bearer {TOKEN}x".encode(), f"Bearer {TOKEN[:-1]}".encode(), f"Basic {TOKEN}".encode()]
    wrong += [TOKEN.encode(), b"Bearer \xff"]

    async def ask(client: httpx.AsyncClient, _: Server) -> None:
        for path in ("/health", "/ready", "/", "/page/page.js"):
            assert (await client.get(path)).status_code == 200
        for path in ("/model", "/metrics", "/items?query=a", "/openapi.json", "/nowhere"):
            for headers in ([], *([(b"authorization", one)] for one in wrong)):
                response = await client.get(path, headers=headers)
                assert "bearer token" in error(response, 401) and response.headers["www-authenticate"] == "Bearer"
            right = await client.get(path, headers={"Authorization": f"Bearer {TOKEN}"})
            assert right.status_code in (200, 404)
        assert (await client.post("/recommend", json={"session": SESSIONS[0]})).status_code == 401

    with_client(ask)
    assert TOKEN not in settings().to_text() and Settings.from_text(settings().to_text()) == settings()


def test_a_token_is_read_from_a_file_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    assert settings(token_file=str(file)).token({}) == TOKEN.encode() and settings().token({}) is None
    for text in ("short", "with blanks " * 3, "ü" * 20):
        file.write_text(text)
        with pytest.raises(InputError, match="16 or more ASCII characters") as told:
            settings(token_file=str(file)).token({})
        assert text.strip() not in str(told.value)
    with pytest.raises(InputError, match="cannot be read"):
        settings(token_file=str(tmp_path / "none")).token({})


def test_ids_and_names_with_markup_and_escapes_are_data() -> None:
    """JSON of ASCII characters alone, never markup, with headers that keep browsers from guessing."""
    model = hostile()
    for id_, name in HOSTILE.items():
        for response in (
            send("POST", "/recommend", model, json={"session": [id_], "k": 10}),
            send("GET", f"/items/{quote(id_, safe='')}/similar", model),
            send("GET", "/items", model, params={"query": id_}),
            send("POST", "/recommend", model, json={"session": [id_ + "?"], "unknown": "raise"}),
        ):
            assert response.content.isascii() and not any(byte < 32 for byte in response.content.rstrip(b"\n"))
            assert response.headers["content-type"] == "application/json"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert "script-src 'self'" in response.headers["content-security-policy"]
        found = send("GET", "/items", model, params={"query": id_}).json()["items"]
        assert found[0] == {"item": id_, "name": f"{name} [{id_}]"}


def test_nothing_of_a_request_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    send("POST", "/recommend", json={"session": ["secret1", SESSIONS[0][0]], "user": "secret2"})
    send("GET", "/items", params={"query": "secret3"})
    send("GET", "/items/secret4/similar")
    send("GET", "/secret5", headers={"Authorization": "Bearer secret6"})
    own = [record.getMessage() for record in caplog.records if record.name.startswith("graphmeta")]
    assert len(own) == 4 and own[0].startswith("POST recommend 200") and "secret" not in " ".join(own)


# The page


def test_the_page_has_no_foreign_or_inline_resources() -> None:
    page = send("GET", "/")
    assert (
        page.headers["content-type"].startswith("text/html")
        and "'unsafe" not in page.headers["content-security-policy"]
    )
    assert "<script>" not in page.text and " style=" not in page.text and not re.search(r"\son\w+=", page.text)
    for name in ("page.js", "logic.js", "style.css", "icon.svg"):
        file = send("GET", f"/page/{name}")
        assert file.status_code == 200 and "innerHTML" not in file.text and "insertAdjacentHTML" not in file.text
        assert "http" not in file.text.replace("http://www.w3.org/2000/svg", "")
    for name in ("nothing.js", "..%2fapp.py", "__init__.py"):
        assert send("GET", f"/page/{name}").status_code == 404


# The command


def test_serving_without_the_extra_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve", "nowhere"]) == 2
    assert "pip install 'graphmeta[serve]'" in capsys.readouterr().err


def test_serving_no_model_is_an_error_of_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["serve", str(tmp_path)]) == 2
    assert "model.json: no such file" in capsys.readouterr().err


def test_the_library_is_imported_without_the_server() -> None:
    program = (
        "import sys, graphmeta, graphmeta.serving.engine\n"
        "print([m for m in ('fastapi', 'uvicorn', 'pydantic', 'starlette') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True).strip() == "[]"


@pytest.mark.parametrize("batch", [False, True])
def test_an_error_names_no_option_of_the_command_line(batch: bool) -> None:
    wanted = {"session": ["nowhere"]}
    body = {"unknown": "raise"} | ({"batch": [wanted]} if batch else wanted)
    response = send("POST", "/recommend", json=body)
    told = response.json()["results"][0]["error"] if batch else error(response, 422)
    assert "not known to this model" in told and "unknown='ignore'" in told and "--" not in told
