"""A client of ``graphmeta serve`` with nothing but the standard library: recommendations, filters, and a full server.

    graphmeta serve out/run &
    GRAPHMETA_URL=http://127.0.0.1:8000 GRAPHMETA_TOKEN=… GRAPHMETA_WORD=milk python examples/client.py

GRAPHMETA_WORD is a word in the name of an item. Without GRAPHMETA_URL it trains a small model on the bundled dataset
and serves it itself.
"""

import json
import os
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import quote

import graphmeta as gm


class Client:
    """Sends requests; a request is repeated if the server is full (503), after the time that it names."""

    def __init__(self, url, token=None, tries=5):
        self.url, self.tries = url.rstrip("/"), tries
        self.headers = {"Content-Type": "application/json"}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"

    def send(self, path, body=None):
        """The JSON of the response to GET, or with a body to POST."""
        content = None if body is None else json.dumps(body).encode()
        for attempt in range(self.tries):
            request = urllib.request.Request(self.url + path, content, self.headers)
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                if error.code != 503 or attempt == self.tries - 1:
                    raise RuntimeError(json.load(error)["error"]) from None
                time.sleep(float(error.headers.get("Retry-After", 1)))


def own_server(port=8123):
    """Train a small model, save it, and serve it in a thread; the address, and a function that stops it."""
    import uvicorn

    from graphmeta.serving.app import create_app
    from graphmeta.serving.settings import Settings

    log = gm.datasets.complete_journey()
    split = gm.split_by_time(log.before(float(log.starts[1_500])))
    gm.fit(split, "sr_gnn", width=16, epochs=1).save("served")
    server = uvicorn.Server(uvicorn.Config(create_app(Settings("served")), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.05)

    def stop():
        server.should_exit = True
        thread.join()

    return f"http://127.0.0.1:{port}", stop


if __name__ == "__main__":
    given = os.environ.get("GRAPHMETA_URL")
    url, stop = (given, lambda: None) if given else own_server()
    try:
        client = Client(url, os.environ.get("GRAPHMETA_TOKEN"))
        found = client.send("/items?query=" + quote(os.environ.get("GRAPHMETA_WORD", "milk")))["items"]
        if not found:
            raise SystemExit("no item has the word in its name or id; choose another: GRAPHMETA_WORD=…")
        print("in the basket:", found[0]["name"])
        request = {"session": [found[0]["item"]], "k": 3, "exclude_seen": True}
        for offered in client.send("/recommend", request)["items"]:
            print(f"recommended:   {offered['name']} ({offered['score']:.2f})")
    finally:
        stop()
