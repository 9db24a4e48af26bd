"""Requests and responses of the HTTP interface."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from graphmeta.serving.query import Query

Id = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | StrictStr
Ids = list[Id]
Chosen = Ids | dict[StrictStr, Id | Ids]
Seconds = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    """A request: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class Wanted(_Strict):
    """Options of the recommendations, for one session or for each of a batch."""

    k: Annotated[StrictInt, Field(ge=1, le=1000, description="Number of items.")] = 10
    unknown: Annotated[
        Literal["raise", "ignore"], Field(description="Unknown item ids are errors, or are left out.")
    ] = "ignore"
    exclude_seen: Annotated[StrictBool, Field(description="Leave out the items of the session.")] = False
    adapt: Annotated[StrictBool, Field(description="False: the model before it adapts to the session or user.")] = True
    among: Annotated[
        Chosen | None, Field(description='Only these item ids, or items by columns: {"brand": ["X", "Y"]}.')
    ] = None
    exclude: Annotated[Chosen | None, Field(description="None of these, in the same forms.")] = None


class Session(_Strict):
    """A session, with what is known of its user."""

    session: Annotated[Ids, Field(description="Item ids, oldest first.")] = []
    user: Annotated[Id | None, Field(description="User id.")] = None
    history: Annotated[
        list[Ids] | None, Field(description="Earlier sessions of the user, oldest first, for models that read them.")
    ] = None
    times: Annotated[
        list[Seconds] | None, Field(description="Time of each click in seconds, for models with dwell times.")
    ] = None


class RecommendRequest(Session, Wanted):
    """One session, or a batch of sessions with the same options."""

    batch: Annotated[list[Session] | None, Field(description="Several sessions, instead of one.", min_length=1)] = None

    def queries(self) -> list[Query]:
        """The queries of the request."""
        options = {name: getattr(self, name) for name in Wanted.model_fields}
        sessions: list[Session] = [self] if self.batch is None else self.batch
        return [Query(one.session, user=one.user, history=one.history, times=one.times, **options) for one in sessions]


class ExplainRequest(Session):
    """A session and the item whose recommendation is to be explained."""

    item: Id


class Item(BaseModel):
    """An item."""

    item: Id
    name: str


class Scored(Item):
    """A recommended or similar item."""

    score: float
    why: Annotated[str | None, Field(description="Where the recommendation comes from.")] = None


class Result(BaseModel):
    """The recommendations for one session, or why there are none."""

    items: list[Scored] | None = None
    reason: Annotated[str | None, Field(description="Why there are no items.")] = None
    unknown_items: Annotated[int | None, Field(description="Clicks on items unknown to the model.")] = None
    user_known: Annotated[bool | None, Field(description="Whether the user is known to the model.")] = None
    error: str | None = None


class RecommendResponse(Result):
    """The result of one session, or ``results`` for a batch; ``version`` of the model."""

    version: str
    results: list[Result] | None = None


class Found(BaseModel):
    """Items and the version of the model."""

    items: list[Item]
    version: str


class Similar(BaseModel):
    """Similar items and the version of the model."""

    items: list[Scored]
    version: str


class Share(BaseModel):
    """What a click or an earlier session adds to the score; ``parts``: the same by part of the model."""

    id: Any
    name: str
    value: float
    parts: dict[str, float] = {}


class Neighbour(BaseModel):
    """A session, item or user of the training log that voted for the item."""

    kind: Literal["session", "item", "user"]
    id: Any
    name: str
    value: float


class Explanation(Item):
    """The score of an item in a session, as sums: over parts of the model; over ``without_clicks`` and the clicks; over
    ``without_history`` and the user's earlier sessions.
    """

    score: float
    parts: dict[str, float]
    attributes: dict[str, float]
    without_clicks: float
    clicks: list[Share]
    without_history: float | None = None
    sessions: list[Share] = []
    sampled: Annotated[bool, Field(description="The shares of clicks are means over random orders.")] = False
    neighbours: Annotated[list[Neighbour], Field(description="Of systems of neighbours: who voted for the item.")] = []
    version: str


class ModelResponse(BaseModel):
    """The model: its card in Markdown, and what requests may have."""

    version: str
    system: str
    items: int
    adapts: bool
    reads_users: bool
    reads_history: bool
    columns: Annotated[list[str], Field(description="Columns of items for among and exclude.")]
    card: str


class Failure(BaseModel):
    """One line of error."""

    error: str


class Status(BaseModel):
    """The state of the server."""

    status: Literal["ok", "loading", "stopping", "reload failed"]
    version: str | None = None
