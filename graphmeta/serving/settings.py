"""Settings of the HTTP server, passed to its worker processes in the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from graphmeta.errors import InputError
from graphmeta.published.source import Source
from graphmeta.serving.engine import Limits

VARIABLE, TOKEN = "GRAPHMETA_SERVING", "GRAPHMETA_TOKEN"
_SHORTEST = 16  # characters of a token


@dataclass(frozen=True)
class Settings:
    """Settings of one worker process.

    Args:
        model: the model folder.
        source: what the model reads beside it.
        token_file: a file with the bearer token; without, that of the variable GRAPHMETA_TOKEN, or none.
        counters: the folder in which the worker processes share their counters.
        reload_every: seconds after which the model's pointer is read again.
        max_body: bytes of a request.
        max_depth: nested lists and objects in its JSON.
        max_batch: queries per request.
        max_clicks: item ids of a query, its history included.
        max_id: characters of an id.
    """

    model: str
    source: Source = field(default_factory=Source)
    token_file: str | None = None
    counters: str | None = None
    reload_every: float = 1.0
    max_body: int = 1_000_000
    max_depth: int = 8
    max_batch: int = 100
    max_clicks: int = 2000
    max_id: int = 200
    engine: Limits = field(default_factory=Limits)

    def to_text(self) -> str:
        """The settings as JSON; the token is not part of them."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Settings:
        """The settings of :meth:`to_text`."""
        found = json.loads(text)
        return cls(**{**found, "engine": Limits(**found["engine"]), "source": Source(**found["source"])})

    def token(self, environment: Mapping[str, str] = os.environ) -> bytes | None:
        """The bearer token that requests need; None if they need none.

        Raises:
            InputError: a file that cannot be read, or a token that is short or has blanks.
        """
        place, found = TOKEN, environment.get(TOKEN)
        if self.token_file is not None:
            place = self.token_file
            try:
                found = Path(self.token_file).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError):
                raise InputError(f"{place}: cannot be read; name a text file with the token") from None
        if found is None:
            return None
        if len(found) < _SHORTEST or any(not "!" <= letter <= "~" for letter in found):
            raise InputError(
                f"{place}: the token must be {_SHORTEST} or more ASCII characters without blanks; make one with "
                f"`openssl rand -hex 32`"
            )
        return found.encode()
