"""``graphmeta serve``: checks the settings and the model, then runs the HTTP server."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from graphmeta.cli.given_model import GivenModel
from graphmeta.errors import InputError


@dataclass(frozen=True)
class ServeOptions:
    """Address, processes and limits of ``serve``."""

    host: Annotated[str, typer.Option("--host", help="Address; with 0.0.0.0 (all) set a token too.")] = "127.0.0.1"
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port.")] = 8000
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes; each has the model in memory.")] = 1
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads per process that call the model.")] = 1
    queue: Annotated[int, typer.Option("--queue", min=1, help="Waiting queries per process; more are refused.")] = 256
    batch: Annotated[int, typer.Option("--batch", min=1, help="Queries that one call of the model takes.")] = 32
    reload: Annotated[
        float, typer.Option("--reload-seconds", min=0.1, help="How often a new version of the model is looked for.")
    ] = 1.0
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="File with the bearer token; if not given, GRAPHMETA_TOKEN."),
    ] = None


def serve(folder: Path, options: ServeOptions, given: GivenModel) -> None:
    """Serve the model in a folder until SIGTERM or SIGINT; then the requests in flight are answered first.

    Raises:
        InputError: the extra ``serve`` is missing, a model that cannot be served, or an unusable token.
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError:
        raise InputError("serve needs FastAPI and uvicorn; install them: pip install 'graphmeta[serve]'") from None
    from graphmeta.serving.app import worker_app
    from graphmeta.serving.engine import Limits
    from graphmeta.serving.served import Served
    from graphmeta.serving.settings import VARIABLE, Settings

    limits = Limits(queue=options.queue, batch=options.batch, threads=options.threads)
    token_file = None if options.token_file is None else str(options.token_file.absolute())
    source = given.source()
    settings = Settings(str(folder.absolute()), source, token_file, reload_every=options.reload, engine=limits)
    settings.token()
    model = Served.load(folder, source)  # an error is reported once, before the processes begin
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // (options.workers * options.threads))))
    with tempfile.TemporaryDirectory(prefix="graphmeta-") as counters:
        settings = replace(settings, counters=counters)
        os.environ[VARIABLE] = settings.to_text()
        alone = options.workers == 1
        uvicorn.run(
            worker_app(settings, model) if alone else "graphmeta.serving.app:from_environment",
            factory=not alone,
            host=options.host,
            port=options.port,
            workers=options.workers,
            log_config=None,
            access_log=False,  # it has the queries
            server_header=False,
            timeout_graceful_shutdown=30,
            timeout_worker_healthcheck=60,
        )
