"""From queries and answers to the responses of the HTTP interface, and the limits of requests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from graphmeta.errors import InputError, counted
from graphmeta.inference.recommend import WHY_NONE, none_for
from graphmeta.serving import schemas
from graphmeta.serving.query import Answer, Query
from graphmeta.serving.served import Served
from graphmeta.serving.settings import Settings
from graphmeta.system import Recommendation

_COMMAND_LINE = re.compile(r" \(--[^()]*\)")


def error_text(error: Exception) -> str:
    """The message of an error on one line, without options of the command line, which requests do not have."""
    return _COMMAND_LINE.sub("", " ".join(str(error).split()))


def clicks_of(ids: Iterable[Any], limits: Settings) -> int:
    """The number of ids.

    Raises:
        InputError: one that is too long.
    """
    number = 0
    for one in ids:
        number += 1
        if isinstance(one, str) and len(one) > limits.max_id:
            raise InputError(f"an id has {len(one)} characters, more than {limits.max_id}")
    return number


def too_large(queries: Sequence[Query], limits: Settings) -> None:
    """Raise an InputError if there are too many queries, or one has too many clicks or too long ids."""
    if len(queries) > limits.max_batch:
        raise InputError(f"the batch has {len(queries)} sessions, more than {limits.max_batch}; send several requests")
    for query in queries:
        clicks = clicks_of(query.session, limits) + sum(clicks_of(one, limits) for one in query.history or ())
        if clicks > limits.max_clicks:
            raise InputError(
                f"a session has {counted(clicks, 'click')} with its history, more than {limits.max_clicks:,}"
            )
        clicks_of([] if query.user is None else [query.user], limits)
    for chosen in (queries[0].among, queries[0].exclude):
        clicks_of(chosen or (), limits)


def scored(found: Sequence[Recommendation]) -> list[schemas.Scored]:
    """Recommendations as a response has them."""
    return [
        schemas.Scored(item=one.item, name=one.name, score=one.score, why=getattr(one, "why", None)) for one in found
    ]


def recommended(
    request: schemas.RecommendRequest, queries: Sequence[Query], results: Sequence[Answer | Exception], model: Served
) -> schemas.RecommendResponse:
    """The response to a request for one session or a batch; an error of one session of a batch is its result.

    Raises:
        InputError: the error of the only session.
    """
    version = next((one.version for one in results if isinstance(one, Answer)), model.version)
    if request.batch is None:
        (result,) = results
        if not isinstance(result, Answer):
            raise result
        return schemas.RecommendResponse(**_result(queries[0], result).model_dump(), version=version)
    return schemas.RecommendResponse(
        version=version, results=[_result(*pair) for pair in zip(queries, results, strict=True)]
    )


def _result(query: Query, result: Answer | Exception) -> schemas.Result:
    if not isinstance(result, Answer):
        return schemas.Result(error=error_text(result))
    model = result.model
    return schemas.Result(
        items=scored(result.items),
        reason=None if result.items else WHY_NONE[none_for(model.system, query.session)],
        unknown_items=len(model.unknown(query.session)),
        user_known=None if query.user is None else model.knows_user(query.user),
    )


def explained(model: Served, query: Query, item: Any) -> schemas.Explanation:
    """The explanation of a recommendation."""
    found, name = model.named(item)
    explanation = model.explain(query, found) | {"item": found, "name": name, "version": model.version}
    return schemas.Explanation.model_validate(explanation)
