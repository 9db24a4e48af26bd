"""The HTTP interface of the serving engine; needs the extra ``serve``."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import warnings
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi import Query as Parameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

import graphmeta
from graphmeta.errors import InputError
from graphmeta.serving import schemas
from graphmeta.serving.counters import Counters
from graphmeta.serving.engine import Engine, Refused
from graphmeta.serving.guard import Guard
from graphmeta.serving.query import Answer, Query
from graphmeta.serving.reload import Reloader
from graphmeta.serving.results import clicks_of, error_text, explained, recommended, scored, too_large
from graphmeta.serving.served import Served
from graphmeta.serving.settings import VARIABLE, Settings

_LOG = logging.getLogger("graphmeta.serving")
_TYPES = {".html": "text/html", ".svg": "image/svg+xml", ".js": "text/javascript", ".css": "text/css"}
_ERRORS: dict[int | str, dict[str, Any]] = {code: {"model": schemas.Failure} for code in (400, 401, 413, 422, 500, 503)}


class AsciiJSON(JSONResponse):
    """JSON with escapes for all but ASCII, so that no name can act on a terminal."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class Server:
    """The engine of a worker process, and what watches its model.

    Args:
        model: the model, if it is loaded already; without, :meth:`start` loads it.
    """

    def __init__(self, settings: Settings, model: Served | None = None) -> None:
        self.settings, self.token = settings, settings.token()
        self.counters = Counters(None if settings.counters is None else Path(settings.counters))
        self.engine: Engine | None = None
        self.reloader: Reloader | None = None
        if model is not None:
            self.engine = Engine(model, settings.engine, self.counters)

    def start(self) -> None:
        """Load the model, if it is not loaded, and watch its folder."""
        if self.engine is None:
            self.engine = Engine(
                Served.load(self.settings.model, self.settings.source), self.settings.engine, self.counters
            )
        self.reloader = Reloader(
            self.engine, self.settings.model, source=self.settings.source, every=self.settings.reload_every
        )

    def stop(self) -> None:
        """Answer the requests that wait, then stop."""
        if self.engine is not None:
            self.engine.stop(wait=self.settings.engine.wait)
        if self.reloader is not None:
            self.reloader.stop()

    @property
    def ready(self) -> Engine:
        """The engine.

        Raises:
            Refused: no model is loaded yet.
        """
        if self.engine is None:
            raise Refused("the model is being loaded; try again", 1)
        return self.engine

    async def answers(self, queries: list[Query]) -> list[Answer | Exception]:
        """The answers to queries, or their errors."""
        found = [asyncio.wrap_future(one) for one in self.ready.submit(*queries)]
        results = await asyncio.gather(*found, return_exceptions=True)
        for result in results:
            if isinstance(result, Refused) or not isinstance(result, Answer | InputError):
                raise result
        return results  # pyright: ignore[reportReturnType]

    async def call(self, work: Callable[[Served], Any]) -> Any:
        """The result of a function of the model, computed by the engine."""
        future: Future[Any] = self.ready.call(work)
        return await asyncio.wrap_future(future)


def create_app(settings: Settings, model: Served | None = None) -> FastAPI:
    """The application for one worker process; its lifespan loads the model, watches it, and stops the engine.

    Args:
        model: a loaded model, for tests and for embedding the application.
    """
    server = Server(settings, model)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(server.start)
        yield
        await asyncio.to_thread(server.stop)

    app = FastAPI(
        title="graphmeta", version=graphmeta.__version__, lifespan=lifespan, default_response_class=AsciiJSON,
        docs_url=None, redoc_url=None, responses=_ERRORS,
    )  # fmt: skip
    app.state.server = server
    app.add_middleware(Guard, settings=settings, counters=server.counters, token=server.token)
    _errors(app)
    _recommending(app, server)
    _items(app, server)
    _state(app, server)
    _page(app)
    return app


def worker_app(settings: Settings, model: Served | None = None) -> FastAPI:
    """The application with the logging, warnings and threads of a process that only serves."""
    import torch

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s", force=True)
    warnings.simplefilter("ignore")  # those of `recommend` have ids of requests
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return create_app(settings, model)


def from_environment() -> FastAPI:
    """The application of one of several worker processes of ``graphmeta serve``."""
    return worker_app(Settings.from_text(os.environ[VARIABLE]))


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return AsciiJSON({"error": " ".join(message.split())}, status, headers)


def _errors(app: FastAPI) -> None:
    """Every error is one line of JSON; texts of unexpected ones stay in the log."""

    @app.exception_handler(InputError)
    async def invalid(_: Request, error: InputError) -> Response:
        return _error(422, error_text(error))

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return _error(503, str(error), {"Retry-After": str(error.retry_after)})

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if isinstance(part, int | str))[:120]
        return _error(422, f"{place}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return _error(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        return _error(500, f"internal error ({type(error).__name__}); the server's log has its place")


def _recommending(app: FastAPI, server: Server) -> None:
    limits = server.settings

    @app.post("/recommend", response_model_exclude_none=True)
    async def recommend(request: schemas.RecommendRequest) -> schemas.RecommendResponse:
        """The k best next items of a session, or of each session of a batch."""
        if request.batch is not None and (
            request.session or request.user is not None or request.history or request.times
        ):
            raise InputError("give a session or a batch of sessions, not both")
        queries = request.queries()
        too_large(queries, limits)
        results = await server.answers(queries)
        return recommended(request, queries, results, server.ready.model)

    @app.post("/explain")
    async def explain(request: schemas.ExplainRequest) -> schemas.Explanation:
        """Why an item is recommended in a session."""
        query = Query(request.session, user=request.user, history=request.history, times=request.times)
        too_large([query], limits)
        clicks_of([request.item], limits)
        return await server.call(lambda model: explained(model, query, request.item))


def _items(app: FastAPI, server: Server) -> None:
    @app.get("/items")
    async def items(
        query: Annotated[str, Parameter(max_length=200, description="Words of the name, or an id.")],
        limit: Annotated[int, Parameter(ge=1, le=100)] = 20,
    ) -> schemas.Found:
        """Items by name."""
        model = server.ready.model
        found = await asyncio.to_thread(model.search, query, limit)
        return schemas.Found(items=[schemas.Item(item=i, name=n) for i, n in found], version=model.version)

    @app.get("/items/{item:path}/similar", response_model_exclude_none=True)
    async def similar(item: str, k: Annotated[int, Parameter(ge=1, le=1000)] = 10) -> schemas.Similar:
        """Items similar to an item."""
        clicks_of([item], server.settings)

        def work(model: Served) -> schemas.Similar:
            return schemas.Similar(items=scored(model.system.similar(model.named(item)[0], k)), version=model.version)

        return await server.call(work)


def _state(app: FastAPI, server: Server) -> None:
    began = time.time()

    @app.get("/health")
    async def health() -> schemas.Status:
        """Whether the process runs."""
        return schemas.Status(status="ok")

    @app.get("/ready", responses={503: {"model": schemas.Status}})
    async def ready(response: Response) -> schemas.Status:
        """Whether requests are answered; 503 while the first model is loaded, and while the server stops."""
        engine, reloader = server.engine, server.reloader
        if engine is None or not engine.running:
            response.status_code = 503
            return schemas.Status(status="loading" if engine is None else "stopping")
        failed = reloader is not None and reloader.failed is not None
        return schemas.Status(status="reload failed" if failed else "ok", version=engine.model.version)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counters of all worker processes in the text format of Prometheus."""
        engine = server.engine
        version = "" if engine is None else engine.model.version
        gauges = {
            "queue_length": ("Requests that wait in this process.", 0.0 if engine is None else float(engine.waiting)),
            "model_version": ("Number of the version in this process.", float(version) if version.isdecimal() else 0.0),
            "start_time_seconds": ("When this process began.", began),
        }
        return PlainTextResponse(server.counters.text(gauges), media_type="text/plain; version=0.0.4")

    @app.get("/model")
    async def model() -> schemas.ModelResponse:
        """The model card, and what requests may have."""
        served = server.ready.model
        system = served.system
        name = system.notes.get("system") or (system.spec.name if system.spec else "custom")
        return schemas.ModelResponse(
            version=served.version, system=str(name), items=system.num_items, card=served.card,
            adapts=system.adapts, reads_users=system.users is not None, reads_history=system.reads_history,
            columns=list(system.items.categories),
        )  # fmt: skip


def _page(app: FastAPI) -> None:
    """The page at ``/``; its files are read once."""
    folder = files("graphmeta.serving") / "page"
    contents = {one.name: one.read_bytes() for one in folder.iterdir() if Path(one.name).suffix in _TYPES}

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(contents["index.html"], media_type=_TYPES[".html"])

    @app.get("/page/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in contents:
            raise HTTPException(404, "no such file")
        return Response(contents[name], media_type=_TYPES[Path(name).suffix])
