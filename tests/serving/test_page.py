"""The page: its functions in Node, and the page itself in a browser, if there are any."""

import json
import math
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphmeta.serving.app import create_app
from graphmeta.serving.served import Served
from graphmeta.serving.settings import Settings
from tests.serving.models import HOSTILE, LOG, hostile, served
from tests.serving.test_process import free_port

LOGIC = Path(__file__).parents[2] / "graphmeta" / "serving" / "page" / "logic.js"
NODE = shutil.which("node")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def in_node(expression: str) -> Any:
    """The value of an expression over the functions of logic.js."""
    program = f"import * as page from {json.dumps(LOGIC.as_uri())}; console.log(JSON.stringify({expression}))"
    done = subprocess.run(
        [str(NODE), "--input-type=module", "-e", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(NODE is None, reason="needs Node")
def test_functions_of_the_page() -> None:
    clicks = [{"item": one, "name": f"n{one}"} for one in ("a", "b", "a", "b", "b", 1, "1")]
    expressions = {
        "graph": f"page.sessionGraph({json.dumps(clicks)})",
        "circle": "page.circle(4, 200, 100, 10)", "alone": "page.circle(1, 200, 100, 10)",
        "arrow": "page.arrow({x: 0, y: 0}, {x: 100, y: 0}, 8)", "loop": "page.arrow({x: 5, y: 5}, {x: 5, y: 5}, 8)",
        "moves": 'page.moves(["a", "b", 1].map(item => ({item})), ["b", "c", "1", "a"].map(item => ({item})))',
        "words": "[null, 0, 1, -2].map(page.inWords)", "short": 'page.shortened("😀".repeat(5), 3)',
        "request": 'page.request([{item: "<b>", name: "x"}], "", true, 3)',
        "user": 'page.request([], "u", false, 3)',
        "tables": "page.tables({without_clicks: -2, clicks: [{name: 'a', value: 1}], parts: {product: -1}, "
        "attributes: {}, without_history: null, sessions: []})",
    }  # fmt: skip
    found = in_node("{" + ", ".join(f"{name}: {text}" for name, text in expressions.items()) + "}")
    assert [(n["item"], n["clicks"]) for n in found["graph"]["nodes"]] == [("a", 2), ("b", 3), (1, 1), ("1", 1)]
    edges = {(e["from"], e["to"]): e["count"] for e in found["graph"]["edges"]}
    assert edges == {(0, 1): 2, (1, 0): 1, (1, 1): 1, (1, 2): 1, (2, 3): 1}
    assert all(math.hypot(p["x"] - 100, p["y"] - 50) == pytest.approx(40) for p in found["circle"])
    assert found["circle"][0] == {"x": pytest.approx(100), "y": pytest.approx(10)} and found["alone"] == [
        {"x": 100, "y": 50}
    ]
    assert (
        found["arrow"].startswith("M 8.0 0.0 Q") and found["arrow"].endswith("87.0 0.0") and "NaN" not in found["loop"]
    )
    assert found["moves"] == [1, None, None, -3]
    assert found["words"] == ["new in the list", "same place", "1 place up", "2 places down"]
    assert found["short"] == "😀😀…"
    assert found["request"] == {"session": ["<b>"], "k": 3, "adapt": True, "exclude_seen": True}
    assert found["user"]["user"] == "u" and found["user"]["adapt"] is False
    assert [table["title"] for table in found["tables"]] == ["By click, oldest first", "By part of the model"]
    assert [row["share"] for row in found["tables"][0]["rows"]] == [1, 0.5]


@pytest.fixture
def site() -> Iterator[Any]:
    """A function that serves a model and gives its address."""
    import uvicorn

    running = []

    def serve(model: Served) -> str:
        port = free_port()
        app = create_app(Settings("nowhere"), model)
        app.router.lifespan_context = lambda _: _Nothing()  # the model has no folder to watch
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        running.append((server, thread, app))
        return f"http://127.0.0.1:{port}/"

    yield serve
    for server, thread, app in running:
        server.should_exit = True
        thread.join(20)
        app.state.server.stop()


class _Nothing:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


@pytest.fixture
def page() -> Iterator[Any]:
    """A page of a browser on a phone; fails the test at any error in its console."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if BROWSER is None:
        pytest.skip("needs chromium")
    problems: list[str] = []
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 360, "height": 740})
        view.on("console", lambda one: problems.append(one.text) if one.type in ("error", "warning") else None)
        view.on("pageerror", lambda one: problems.append(str(one)))
        view.on("dialog", lambda one: problems.append(f"dialog {one.message}"))
        yield view
        browser.close()
    assert problems == []


@pytest.mark.slow
def test_a_session_is_built_and_explained_with_the_keyboard(site: Any, page: Any) -> None:
    page.goto(site(served("maml")))
    page.wait_for_function("document.getElementById('model').textContent.includes('maml')")
    for item in LOG.items.ids.tolist()[:3]:
        page.get_by_label("Words of an item's name, or its id").fill(item)
        add = page.get_by_role("button", name=f"Add {item} to the session").first
        add.wait_for()
        add.focus()
        page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('#after li').length === 10")
    assert page.locator("#session li").count() == 3 and page.locator("#before li").count() == 10
    assert page.locator("#graph circle").count() == 3 and page.locator("#graph path.arrow").count() == 2
    assert page.locator("#graph svg").get_attribute("role") == "img"
    page.get_by_role("button", name="Why").first.press("Enter")
    page.wait_for_selector("#why:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "why"
    assert page.locator("#shares table").first.locator("tr").count() == 4  # without clicks, and three clicks
    page.get_by_role("button", name="Remove click 1,").press("Enter")
    page.wait_for_function("document.querySelectorAll('#session li').length === 2")
    assert page.evaluate("document.activeElement.textContent") == "Remove"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")  # readable on a phone
    unlabelled = "[...document.querySelectorAll('input')].filter(one => !one.labels.length).length"
    assert (
        page.evaluate(unlabelled) == 0 and page.evaluate("document.querySelectorAll('button:not([type])').length") == 0
    )


@pytest.mark.slow
def test_markup_in_ids_and_names_is_text(site: Any, page: Any) -> None:
    page.goto(site(hostile()))
    page.wait_for_function("document.getElementById('model').textContent.includes('sr_gnn')")
    for item, name in list(HOSTILE.items())[:3]:
        page.get_by_label("Words of an item's name, or its id").fill(item)
        page.wait_for_function(
            "name => document.querySelector('#found .name')?.textContent === name", arg=f"{name} [{item}]"
        )
        page.locator("#found button").first.click()
    page.wait_for_function("document.querySelectorAll('#after li').length > 3")
    assert page.locator("#session li").count() == 3
    assert page.evaluate("document.querySelectorAll('img, script:not([src]), iframe').length") == 0
    names = page.locator("#session .name").all_text_contents()
    assert names == [f"{name} [{item}]" for item, name in list(HOSTILE.items())[:3]]
