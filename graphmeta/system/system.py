"""System: a recommender with its adaptation and vocabulary, to train, save, load and get recommendations from."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from graphmeta.build_spec import FORMAT
from graphmeta.data.tables import EntityTable, same_ids
from graphmeta.errors import DivergedError, InputError
from graphmeta.nn.extending import extend_items, extend_users
from graphmeta.sampling.stored_histories import save_histories
from graphmeta.storage import not_finite, save_state
from graphmeta.storage.versions import new_version
from graphmeta.system.serving import SystemServing


class System(SystemServing):
    """A trainable recommender system: ``System(recommender, items, adaptation=…)``.

    Args:
        recommender: the model, which training updates in place.
        items: the vocabulary, with attributes and labels.
        users: the known users, if the system has users.
        adaptation: how a session's own clicks change the weights; none if not given.
        loss: from head and states to one loss per sample; full softmax if not given.
        samples: the training samples, ``(log, max_length=…) -> Samples``; all prefixes if not given, or for
            meta-training the last click of each session.
        batches: the batch sampler, ``(samples, batch_size=…, seed=…, epoch=…) -> rows of each batch``; random if not
            given, of blocks of users where tasks share support (:class:`~graphmeta.sampling.order.UserBlocks`).
        limits: ``{"max_length": 50, "max_support": 10}`` if not given: the last clicks of a session that are read, and
            the last support samples of a task.

    Raises:
        InputError: a loss per position for meta-training, or a scope that selects no trainable parameter.
    """

    def load_matching(self, other: System, *, frozen_only: bool = False) -> list[str]:
        """Warm start: copy every weight with the same name from another system, and return their names; with
        ``frozen_only``, only frozen weights (``requires_grad`` is off).

        If a weight is larger here (a layer that also reads a cluster), the other's fills the leading block and the rest
        is zero, so that before training the scores are close to the other system's (a gate still scales them).

        Raises:
            InputError: other items or users, a weight that is larger there, or nothing to copy; nothing is changed.
        """
        users = same_ids(self.users, other.users)
        if not users or not same_ids(self.items, other.items):
            what = "items" if users else "users"
            raise InputError(f"the other system has other {what}; build both from one log, or from a log aligned to it")
        return self.recommender.load_matching(other.recommender, frozen_only=frozen_only)

    def extended(self, items: EntityTable | None = None, *, users: EntityTable | None = None) -> System:
        """A copy with further items and users, to score and recommend before they have a click; this system is not
        modified.

        Old ones keep their indices, weights and scores. The vectors of new items are composed of their attributes
        (:class:`~graphmeta.protocols.ComposesItems`), those of new users too if the system reads user columns;
        attribute values that are new too count as not seen in training. In a user table new users have zero vectors:
        they get the ranking of an unknown user until the copy is trained on a log with them.

        Args:
            items, users: the new ones, with the columns that the system reads; unknown in those that they lack.

        Raises:
            InputError: an item or user that is known, users for a system without, or a part that has numbers for each
                item or user and cannot make those of new ones, such as a plain item table; names it and the remedy.
        """
        if users is not None and self.users is None:
            raise InputError(
                "the system has no users, so it serves new ones as any other; if it reads their earlier sessions, pass "
                "them: recommend(session, history=…)"
            )
        shared = {id(table): table for table in (self.items, self.users) if table is not None}
        system = copy.deepcopy(self, shared)
        if items is not None:
            system._extend_items(items)
        if users is not None and self.users is not None:
            system.users = self.users.joined(users)
            extend_users(system, system.users, before=len(self.users), of_items=system.recommender.features)
        if self.sampler is not None:
            system.sampler = self.sampler.extended(items, users)
        return system

    def _extend_items(self, items: EntityTable) -> None:
        """Add items to this copy."""
        joined = self.items.joined(items)
        self._extend_parts(joined)
        self.items = joined
        if self.histories is not None:
            self.histories = replace(self.histories, items=joined)
        if self.events is not None:
            self.events = np.concatenate([self.events, np.zeros(len(items), dtype=np.int64)])

    def _extend_parts(self, items: EntityTable) -> None:
        """Add rows for the items after its own to the parts that have a row for each."""
        if self.adaptation is not None and self.adaptation.tables:
            raise InputError(
                f"the adaptation changes {min(self.adaptation.tables)}, which has no rows for new items; leave "
                f"tables out of its scope, or fit again on a log with the new items"
            )
        extend_items(self, items, before=len(self.items))

    def notes_to_save(self, *, keep_histories: bool) -> dict[str, Any]:
        """The notes that a model folder holds."""
        return self.notes

    def save(self, folder: str | Path, *, keep_histories: bool = False) -> None:
        """Write weights, vocabulary and notes as the new version of the model in a folder: safetensors and JSON with
        checksums.

        Readers get the old version or the new one, never parts of both; the last three are kept, see
        :mod:`graphmeta.storage.versions`.

        Args:
            keep_histories: also write the users' sessions (``histories``), which are personal data; the loaded system
                then reads them in ``recommend(user=…)``.

        Raises:
            DivergedError: a weight that is not finite; nothing is written.
            InputError: another writer, or a folder that cannot be written to.
        """
        self.check_finite()
        with new_version(folder) as place:
            self.write_files(place, keep_histories=keep_histories)

    def check_finite(self) -> None:
        """Raise a DivergedError if a weight is not finite."""
        if (name := not_finite(self)) is not None:
            raise DivergedError(f"{name} is not finite, so nothing is saved; lower the learning rate and train again")

    def write_files(self, place: Path, *, keep_histories: bool = False) -> None:
        """Write the files of one version, see :meth:`save`, to its folder."""
        document = {
            "format": FORMAT,
            "spec": None if self.spec is None else vars(self.spec),
            "limits": self.limits,
            "notes": self.notes_to_save(keep_histories=keep_histories),
            "items": self.items.to_json(),
            "users": None if self.users is None else self.users.to_json(),
            "events": None if self.events is None else self.events.tolist(),
        }
        save_histories(place, self.histories if keep_histories else None)
        save_state(place, "model", self.state_dict(), document)
