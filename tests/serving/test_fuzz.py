"""Requests that the OpenAPI document allows, and many that it does not: never an internal error."""

import asyncio
import json
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphmeta.serving.app import create_app
from graphmeta.serving.settings import Settings
from tests.serving.models import LOG, served

IDS = LOG.items.ids.tolist()
TEXTS = st.sampled_from([*IDS, "", "zz", "brand", "category", "\x00", "<b>", "日本"]) | st.text(max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
ANYTHING = st.recursive(
    SCALARS, lambda one: st.lists(one, max_size=4) | st.dictionaries(TEXTS, one, max_size=4), max_leaves=9
)


# A process that serves ignores warnings, which have ids of requests.
pytestmark = pytest.mark.filterwarnings("ignore")


@cache
def application() -> Any:
    return create_app(Settings("nowhere"), served())


@cache
def document() -> dict[str, Any]:
    return application().openapi()


def of_schema(schema: dict[str, Any]) -> st.SearchStrategy:
    """Values of a JSON schema."""
    if "$ref" in schema:
        return of_schema(document()["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    if "anyOf" in schema:
        return st.one_of([of_schema(one) for one in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return st.lists(of_schema(schema["items"]), min_size=schema.get("minItems", 0), max_size=5)
    if kind == "object" and "properties" in schema:
        fields = {name: of_schema(one) for name, one in schema["properties"].items()}
        needed = {name: fields.pop(name) for name in schema.get("required", ())}
        return st.fixed_dictionaries(needed, optional=fields)
    if kind == "object":
        return st.dictionaries(TEXTS, of_schema(schema["additionalProperties"]), max_size=2)
    whole = st.integers(schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1))
    simple = {
        "string": TEXTS, "integer": st.integers(1, 22) | whole, "boolean": st.booleans(), "null": st.none(),
        "number": st.floats(allow_nan=False, allow_infinity=False),
    }  # fmt: skip
    return simple[str(kind)]


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """A request by the document, with some parts replaced by anything."""
    path = draw(st.sampled_from(sorted(document()["paths"])))
    method = draw(st.sampled_from(sorted(document()["paths"][path])))
    described, query, strange = document()["paths"][path][method], {}, st.integers(0, 9).map(lambda n: n == 0)
    for parameter in described.get("parameters", ()):
        value = draw(TEXTS if draw(strange) else of_schema(parameter["schema"]).map(str))
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", quote(value, safe=""))
        elif not draw(strange):
            query[parameter["name"]] = value
    made: dict[str, Any] = {"method": method.upper(), "url": f"http://server{path}?{urlencode(query)}"}
    body = described.get("requestBody")
    if body is not None:
        schema = of_schema(body["content"]["application/json"]["schema"])
        value = draw(ANYTHING if draw(strange) else schema)
        if isinstance(value, dict) and draw(strange):
            value = value | draw(st.dictionaries(st.sampled_from(sorted(value) or ["a"]), ANYTHING, max_size=2))
        made["content"] = draw(st.binary(max_size=30)) if draw(strange) else text_of(value)
        made["headers"] = {"Content-Type": "application/json"}
    return made


def text_of(value: Any) -> bytes:
    """JSON, with NaN and lone surrogates as Python writes them."""
    return json.dumps(value).encode()


async def answer(made: dict[str, Any]) -> httpx.Response:
    transport = httpx.ASGITransport(app=application(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport) as client:
        return await client.request(**made)


def check(made: dict[str, Any]) -> None:
    response = asyncio.run(answer(made))
    assert response.status_code < 500, (made, response.text)
    assert response.content.isascii()
    if response.status_code >= 400:
        assert response.json().keys() == {"error"} and "\n" not in response.json()["error"]


@settings(max_examples=200)
@given(requests())
def test_no_request_is_an_internal_error(made: dict[str, Any]) -> None:
    check(made)


@pytest.mark.slow
@settings(max_examples=2000)
@given(requests())
def test_no_request_of_many_is_an_internal_error(made: dict[str, Any]) -> None:
    check(made)
