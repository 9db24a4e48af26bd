"""Protocols of what evaluation scores with: systems, baselines and wrappers around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypedDict, runtime_checkable

from torch import Tensor

from graphmeta.protocols.members import ReadsMembers

if TYPE_CHECKING:
    import numpy as np

    from graphmeta.data.tables import EntityTable
    from graphmeta.sampling.samples import Samples
    from graphmeta.sampling.user_histories import UserHistories


@runtime_checkable
class Scorer(Protocol, metaclass=ReadsMembers):
    """Anything that scores all items for samples: a :class:`~graphmeta.system.System`, a baseline or a wrapper.

    Evaluation also reads, where a scorer has them, the members of :class:`HasItems`, :class:`HasUsers`,
    :class:`LimitsLength`, :class:`Adapts`, :class:`ReadsTasks` and :class:`ReportsMissingUsers`.
    """

    @property
    def num_items(self) -> int:
        """Number of candidates."""
        ...

    def scores(self, samples: Any) -> Tensor:
        """``[S, num_items]`` for :class:`~graphmeta.sampling.samples.Samples`; for
        :class:`~graphmeta.sampling.tasks.Tasks`, one row per query.
        """
        ...


@runtime_checkable
class HasItems(Protocol, metaclass=ReadsMembers):
    """A scorer with item ids: logs are aligned to them, and samples with other item indices are refused."""

    @property
    def items(self) -> EntityTable | None:
        """The item table; None if it is unknown."""
        ...


@runtime_checkable
class HasUsers(Protocol, metaclass=ReadsMembers):
    """A scorer with user ids, as :class:`HasItems`."""

    @property
    def users(self) -> EntityTable | None:
        """The user table; None for a scorer without users."""
        ...


@runtime_checkable
class LimitsLength(Protocol, metaclass=ReadsMembers):
    """A scorer that reads only the last ``max_length`` clicks of a session."""

    @property
    def max_length(self) -> int:
        """Number of clicks; 0 if it reads none."""
        ...


@runtime_checkable
class Adapts(Protocol, metaclass=ReadsMembers):
    """A scorer whose ``scores`` take ``steps`` and ``max_support``, if ``adapts`` is true."""

    @property
    def adapts(self) -> bool:
        """Whether it adapts."""
        ...


@runtime_checkable
class ReadsTasks(Protocol, metaclass=ReadsMembers):
    """A scorer that states whether its ``scores`` take tasks; without this member they must.

    With ``reads_tasks = False``, a scorer of sessions gets the tasks' first queries, whose clicks are the support.
    """

    @property
    def reads_tasks(self) -> bool:
        """Whether ``scores`` take :class:`~graphmeta.sampling.tasks.Tasks`."""
        ...


@runtime_checkable
class ReadsHistory(Protocol, metaclass=ReadsMembers):
    """A scorer, or a part of a system, that reads the earlier sessions of a sample's user (``Samples.earlier``)."""

    @property
    def reads_history(self) -> bool:
        """Whether it reads them."""
        ...


@runtime_checkable
class KeepsHistories(Protocol, metaclass=ReadsMembers):
    """A scorer that holds users' sessions, such as those it was trained on."""

    @property
    def histories(self) -> UserHistories | None:
        """The sessions; None if it holds none."""
        ...


@runtime_checkable
class ReportsMissingUsers(Protocol, metaclass=ReadsMembers):
    """A scorer that reports which samples have no user known to it, if it reads nothing but the user."""

    def without_user(self, samples: Samples) -> np.ndarray:
        """Mask ``[S]`` of the samples that all get the same ranking."""
        ...


class Adapting(TypedDict, total=False):
    """Adaptation options of one call, see :meth:`System.scores <graphmeta.system.System.scores>`; None: the default."""

    steps: int | None
    max_support: int | None
