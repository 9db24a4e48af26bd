"""Hot reload: watches a model folder and gives each new version to the engine once it is loaded and warmed up."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from graphmeta.errors import InputError
from graphmeta.published.source import ALONE, Source
from graphmeta.serving.engine import Engine
from graphmeta.serving.served import Served
from graphmeta.storage.versions import identity

_LOG = logging.getLogger("graphmeta.serving")
_AGAIN = 30.0  # seconds until a version that could not be loaded is tried again


class Reloader:
    """A thread that loads each new version of a model folder; requests meanwhile get the old one.

    A version that cannot be loaded is logged and counted, and the old one stays.

    Args:
        source: what the model reads beside its folder, which is read again for each version.
        every: seconds after which the folder's pointer is read again.
    """

    def __init__(self, engine: Engine, folder: str | Path, *, source: Source = ALONE, every: float = 1.0) -> None:
        self.engine, self.folder, self.source, self.every = engine, Path(folder), source, every
        self.failed: str | None = None  # the error of the newest version, if it could not be loaded
        self._bad: tuple[str | None, float] = (None, 0.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="graphmeta-reload", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; waits for a version that is being loaded."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self.every):
            self.check()

    def check(self) -> bool:
        """Load the current version if it is not the engine's; whether the engine has changed to it."""
        found = None
        try:
            found = identity(self.folder)
            if found is None or found == self.engine.model.version:
                self.failed = None if found is not None else self.failed
                return False
            if found == self._bad[0] and time.monotonic() - self._bad[1] < _AGAIN:
                return False
            began = time.monotonic()
            self.engine.replace(Served.load(self.folder, self.source))
        except Exception as error:  # whatever a new version does, the old one goes on
            self.failed = str(error) if isinstance(error, InputError) else type(error).__name__
            self._bad = (found, time.monotonic())
            self.engine.counters.count("reload_failures")
            _LOG.error("version %s could not be loaded, so %s stays: %s", found, self.engine.model.version, self.failed)
            return False
        self.failed = None
        self.engine.counters.count("reloads")
        _LOG.info("version %s is served, loaded in %.1f s", self.engine.model.version, time.monotonic() - began)
        return True
