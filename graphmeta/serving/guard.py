"""The outermost layer of the HTTP server: limits of a request's body, the bearer token, headers, counters and the log.

Nothing of a request but its endpoint, status and duration is logged.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from graphmeta.errors import counted
from graphmeta.serving.counters import ENDPOINTS, Counters
from graphmeta.serving.settings import Settings

_LOG = logging.getLogger("graphmeta.serving")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
OPEN = ("/health", "/ready", "/")  # without a token; so is the page's folder, which has no data
PAGE = "/page/"
_STRING, _BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL), re.compile(rb"[\[\]{}]")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src "
    "'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware around the application."""

    def __init__(self, app: Any, *, settings: Settings, counters: Counters, token: bytes | None) -> None:
        self.app, self.settings, self.counters, self.token = app, settings, counters, token

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Check and count one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        try:
            await self._checked(scope, receive, answered)
        finally:
            took, endpoint = time.monotonic() - began, endpoint_of(scope["path"])
            self.counters.request(endpoint, status, took)
            _LOG.info("%s %s %d %.1f ms", scope["method"], endpoint, status, 1000 * took)

    async def _checked(self, scope: Message, receive: Receive, send: Send) -> None:
        if not self._allowed(scope):
            await refuse(send, 401, "a bearer token is needed: Authorization: Bearer …", {"WWW-Authenticate": "Bearer"})
            return
        body = await self._body(receive)
        if body is None:
            most = counted(self.settings.max_body, "byte")
            await refuse(send, 413, f"the body has more than {most}", {"Connection": "close"})
            return
        if depth(body) > self.settings.max_depth:
            await refuse(send, 422, f"the JSON is nested more than {self.settings.max_depth} levels deep")
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    def _allowed(self, scope: Message) -> bool:
        path = scope["path"]
        if self.token is None or path in OPEN or path.startswith(PAGE):
            return True
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, token = given.partition(b" ")
        return hmac.compare_digest(token.strip(), self.token) and kind.lower() == b"bearer"

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body; None if it is too long."""
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return b"".join(parts)  # the client has gone
            part = message.get("body", b"")
            parts.append(part)
            size += len(part)
            if size > self.settings.max_body:
                return None
            if not message.get("more_body", False):
                return b"".join(parts)


def endpoint_of(path: str) -> str:
    """The endpoint of a path, without its ids.

    >>> endpoint_of("/items/17/similar"), endpoint_of("/items"), endpoint_of("/health")
    ('similar', 'items', 'other')
    """
    first, _, rest = path.strip("/").partition("/")
    if first == "items" and rest:
        return "similar"
    return first if first in ENDPOINTS else "other"


def depth(body: bytes) -> int:
    """How deep lists and objects of a JSON text are nested.

    >>> depth(b'{"a": [[1], "[[[["]}'), depth(b'"')
    (3, 0)
    """
    deepest = level = 0
    for mark in _BRACKET.findall(_STRING.sub(b"", body)):
        level += 1 if mark in b"[{" else -1
        deepest = max(deepest, level)
    return deepest


async def refuse(send: Send, status: int, message: str, headers: dict[str, str] | None = None) -> None:
    """Answer with one line of error in JSON."""
    body = json.dumps({"error": message}).encode()
    own = {"content-type": "application/json", "content-length": str(len(body))} | (headers or {})
    found = [(name.lower().encode(), value.encode()) for name, value in own.items()]
    await send({"type": "http.response.start", "status": status, "headers": found})
    await send({"type": "http.response.body", "body": body})
