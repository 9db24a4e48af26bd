"""A training plan and its stages: the base encoder is trained first, then the system that wraps it.

The checkpoint of a finished stage is kept until all stages are done, so an interrupted plan can resume.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from graphmeta.data.events import EventLog
from graphmeta.data.merging import merged
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.scan.pairs import parts_of
from graphmeta.data.splits import Split, last_sessions
from graphmeta.distributed.first import on_first
from graphmeta.distributed.group import current
from graphmeta.errors import InputError, counted, duration
from graphmeta.evaluation.lists import lengths
from graphmeta.nn.features.sharded import shard_items, whole_items
from graphmeta.protocols import Bar
from graphmeta.published.blending import Blended, choose_blend
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.published.columns import skeleton, warn_unread
from graphmeta.published.plan_checkpoint import BASE, BASE_REFITTED, REFIT, can_resume, drop, within
from graphmeta.storage import save_state
from graphmeta.system import System
from graphmeta.training.devices import device_of
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam, DividedRate, as_optimizer, settings_of
from graphmeta.training.recipes import BY_SIZE, TrainingRecipe
from graphmeta.training.run import Checkpoint, Report
from graphmeta.training.settings import TrainOptions

Say = Callable[[str], None]
OnEpoch = Callable[[str, Report], None]


def ignore(name: str, report: Report) -> None:
    """Do nothing with the report of an epoch."""


@dataclass(frozen=True)
class Plan:
    """One training: system, width, seed and recipe.

    Args:
        recipe: values that are None are those of the system's catalogue entry, then those for the log; a meta-learner
            is trained with a tenth of its encoder's learning rate.
        max_support, max_length: see :class:`~graphmeta.system.System`; None keeps the system's own limit.
        options: further options of the system, as :func:`~graphmeta.published.catalogue.build` takes them.
        device: see :func:`~graphmeta.training.devices.device_of`.
        shard_items: divide the item table over the processes of the training; see :func:`check_shards`.
    """

    system: str
    width: int = 64
    seed: int = 0
    recipe: TrainingRecipe = BY_SIZE
    max_support: int | None = None
    max_length: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    shard_items: bool = False

    def for_log(self, log: EventLog | ScannedLog) -> Plan:
        """The plan with a complete recipe, by the number of the system's training samples."""
        untrained = skeleton(self.system, log.items, users=log.users)
        samples = log.num_events - log.num_sessions
        if untrained is not None:
            samples = sum(len(untrained.training_samples(part)) for part in parts_of(log))
        recipe = self.recipe.filled_from(CATALOGUE[self.system].recipe)
        return replace(self, recipe=recipe.for_size(samples, log.num_items))

    def settings(self) -> dict[str, Any]:
        """All settings as JSON values at one level, without those that are not set or have no effect on results."""
        named = {} if self.recipe.optimizer is None else settings_of(self.recipe.optimizer)
        flat = {**named, **vars(self.recipe), **vars(self), "optimizer": named.get("optimizer")}
        flat |= {"options": dict(self.options) or None}
        left_out = ("recipe", "device", "shard_items")
        return {name: value for name, value in flat.items() if value is not None and name not in left_out}


@dataclass(frozen=True)
class TrainedPlan:
    """Result of a plan: the trained system, its separately trained base model (if any), the reports of all trainings by
    name, the system's own under its name, and the system's own plan, with a complete recipe.

    ``best`` holds the complete recipe of each system, by name, with its best number of epochs; ``blend`` the baseline
    that was chosen on validation, for a system that can blend one in.
    """

    plan: Plan
    system: System
    base: System | None
    histories: dict[str, list[Report]]
    best: dict[str, TrainingRecipe]
    blend: Blended | None = None


def train_plan(
    plan: Plan,
    split: Split,
    checkpoint: Checkpoint,
    *,
    say: Say,
    bar: Bar,
    on_epoch: OnEpoch = ignore,
    recipes: Mapping[str, TrainingRecipe] = MappingProxyType({}),
    blend: Blended | None = None,
) -> TrainedPlan:
    """Run all trainings of a plan, each with its own checkpoint.

    A re-ranker must learn how reliable co-occurrence counts are on sessions that were not counted. The base and the
    counts are fitted on the first 90 % of training sessions (75 % with users' histories), the re-ranker on the others;
    afterwards base and counts are refitted on all sessions before the test, validation included, the base for as many
    epochs as were best at first (stacked generalisation: Wolpert 1992).

    Args:
        say: called with each log line.
        bar: ``(batches, name) -> batches``, shows progress.
        on_epoch: called with the name of the training, as in ``histories``, and the report of each epoch.
        recipes: complete recipes of systems by name, instead of those of the plan.
        blend: the baseline to blend in, see :mod:`graphmeta.published.blending`; if not given, it is chosen on the
            validation sessions, with base and counts of the training sessions.
    """
    if not checkpoint.resume:
        on_first(lambda: drop(checkpoint.folder))
    untrained = skeleton(plan.system, split.train.items, users=split.train.users)
    if untrained is not None and not recipes:  # a second training of a plan does not warn again
        warn_unread(untrained, stacklevel=5)
    earlier, later = _data_of_stages(plan, split)
    first, last = (
        one and replace(one, recipe=recipes.get(one.system, one.recipe))
        for one in stages(plan, earlier.train, later.train)
    )
    assert last is not None
    histories: dict[str, list[Report]] = {}
    chosen: dict[str, TrainingRecipe] = {}

    def train_stage(name: str, *given: Any, **named: Any) -> System:
        made, histories[name] = _train_stage(*given, say=say, bar=bar, on_epoch=partial(on_epoch, name), **named)
        return made

    base = None
    if first is not None:
        say(f"training the base model ({first.system}):")
        base = train_stage(name := f"{first.system} (base)", first, earlier, within(checkpoint, BASE))
        chosen[first.system] = _best(first.recipe, histories[name])
        say(f"training {last.system}, initialised from the base model:")
    system = train_stage(last.system, last, later, checkpoint, begin=base, statistics_log=earlier.train)
    chosen[last.system] = _best(last.recipe, histories[last.system])
    blend = _blended(system, split, blend, say)
    if first is not None and later is not earlier:
        whole = replace(first, recipe=chosen[first.system])
        known = merged(split.train, split.valid)
        every = replace(split, train=known, valid=_nothing_of(split.valid))
        epochs = counted(whole.recipe.epochs or 0, "epoch")
        which = "all sessions before the test" if split.test.num_events else "all sessions"
        say(f"refitting the base model ({first.system}) on {which}, {epochs}:")
        base = train_stage(f"{first.system} (refitted)", whole, every, within(checkpoint, BASE_REFITTED))
        system.load_matching(base, frozen_only=True)
        system.fit_statistics(known)
    return TrainedPlan(last, system, base, histories, chosen, blend)


def _blended(system: System, split: Split, blend: Blended | None, say: Say) -> Blended | None:
    """Choose a baseline to blend in, or take the given choice; its counts are fitted with the system's statistics."""
    if system.blend is None:
        return None
    if isinstance(split.train, ScannedLog):
        say("no baseline is blended in: the log stays on disk, and a baseline counts all of its events at once")
        return None
    if blend is not None:
        system.blend.choose(blend.baseline, blend.weight)
        system.blend.fit_statistics(split.train)
    elif split.valid.num_events:
        system.fit_statistics(split.train)
        blend = choose_blend(system, split.valid, split.train)
        say("no validation session can be scored" if blend is None else blend.line())
    if blend is not None:
        system.notes["blend"] = asdict(blend)
    return blend


def refit(
    plan: Plan,
    made: TrainedPlan,
    log: EventLog | ScannedLog,
    checkpoint: Checkpoint,
    *,
    say: Say,
    bar: Bar,
    on_epoch: OnEpoch = ignore,
) -> TrainedPlan:
    """Train a plan again from the start on a whole log: with the same recipes, and for each system as many epochs as
    were best on validation.

    Args:
        made: the result of the plan on a part of the log; the others as in :func:`train_plan`.
    """
    nothing = _nothing_of(log)
    rest = checkpoint.folder / REFIT
    counts = CATALOGUE[plan.system].counts
    how, end = ("counting", ":") if counts else ("training", ", for the best numbers of epochs:")
    say(f"{how} again on all {counted(log.num_sessions, 'session')}{end}")
    again = train_plan(
        plan,
        Split(log, nothing, nothing),
        replace(checkpoint, folder=rest),
        say=say,
        bar=bar,
        on_epoch=lambda name, report: on_epoch(f"{name}, all sessions", report),
        recipes=made.best,
        blend=made.blend,
    )
    named = {f"{name}, all sessions": reports for name, reports in again.histories.items()}
    return replace(again, histories={**made.histories, **named})


def _nothing_of(log: EventLog | ScannedLog) -> EventLog | ScannedLog:
    """A log with the items and users of another, without events."""
    return log.of_sessions(np.zeros(log.num_sessions, dtype=bool)).aligned_to(log.items, log.users)


def _best(recipe: TrainingRecipe, reports: Sequence[Report]) -> TrainingRecipe:
    """The recipe with the best number of epochs, and without early stopping."""
    return replace(recipe, epochs=max(report.epoch for report in reports if report.best) + 1, patience=None)


def stages(plan: Plan, earlier: EventLog | ScannedLog, later: EventLog | ScannedLog) -> tuple[Plan | None, Plan]:
    """The base model's plan (None if there is none) and the system's plan, with complete recipes for their logs.

    A meta-learner starts from its encoder, trained without adaptation: meta-training has one query per session, the
    encoder has one target per click and so learns faster. The encoder is also the baseline for adaptation. A re-ranker
    starts from its base likewise.
    """
    entry = CATALOGUE[plan.system]
    if entry.encoder is None:
        return None, plan.for_log(later)
    base = plan.options.get("base", entry.encoder)
    first = replace(plan, system=base, options=plan.options.get("options") or {}).for_log(earlier)
    if entry.held_out:
        return first, plan.for_log(later)
    return first, _meta_plan(replace(first, system=plan.system, options=plan.options))


def _meta_plan(plan: Plan) -> Plan:
    """Half the epochs, a quarter of the batch size (a task is several samples) and a tenth of the learning rate."""
    recipe = plan.recipe
    assert recipe.epochs is not None and recipe.batch_size is not None
    epochs, batch_size = max(1, recipe.epochs // 2), max(1, recipe.batch_size // 4)
    optimizer = DividedRate(as_optimizer(recipe.optimizer, Adam()), by=10)
    return replace(plan, recipe=replace(recipe, epochs=epochs, batch_size=batch_size, optimizer=optimizer))


def _data_of_stages(plan: Plan, split: Split) -> tuple[Split, Split]:
    """Data of the base and of the system: both all sessions, or for a re-ranker the first and the last ones."""
    share = CATALOGUE[plan.system].held_out
    if not share:
        return split, split
    if split.train.num_sessions < 2:
        raise InputError(
            f"{plan.system} needs separate sessions for counting and for training, and there is only one; provide more"
        )
    logs = last_sessions(split.train, max(int(split.train.num_sessions * share), 1))
    earlier, later = (replace(split, train=log) for log in logs)
    return earlier, later


def _train_stage(
    plan: Plan,
    split: Split,
    checkpoint: Checkpoint,
    *,
    say: Say,
    bar: Bar,
    on_epoch: Callable[[Report], None],
    begin: System | None = None,
    statistics_log: EventLog | ScannedLog | None = None,
) -> tuple[System, list[Report]]:
    """Train one system from ``begin`` (if given); returns it with its best epoch's weights, and the report of each
    epoch.
    """
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        limits = {"max_support": plan.max_support, "max_length": plan.max_length}
        width = {} if CATALOGUE[plan.system].counts else {"width": plan.width}
        options = {**width, **limits, **plan.options}
        system = CATALOGUE[plan.system].build(split.train.items, users=split.train.users, **options)
    system.to(device_of(plan.device))
    if begin is not None:
        system.load_matching(begin)
    if plan.shard_items:
        shard_items(system.recommender.features, system.num_items, current())
    samples = system.training_samples(next(parts_of(split.train)))
    if len(samples) == 0 and system.has_weights:
        clicks = "three" if system.episodic else "two"
        raise InputError(f"no training session is long enough for {plan.system}; it needs {clicks} clicks in one")
    recipe = plan.recipe
    assert recipe.epochs is not None and recipe.batch_size is not None
    if system.adaptation is not None and system.episodic:
        say(system.memory_estimate(samples, recipe.batch_size))
    valid = split.valid if split.valid.num_events else None
    request, folder = request_of(plan, split), checkpoint.folder
    resume = on_first(lambda: can_resume(checkpoint, request))
    history: list[Report] = []
    reports = train(
        system,
        split.train,
        epochs=recipe.epochs,
        optimizer=recipe.optimizer,
        batch_size=recipe.batch_size,
        valid=valid,
        seed=plan.seed,
        options=TrainOptions(
            statistics_log=statistics_log,
            patience=None if valid is None else recipe.patience,
            loss=recipe.loss(system),
            clicks=recipe.clicks,
            checkpoint=Checkpoint(folder, resume),
            progress=lambda batches: bar(batches, f"epoch {len(history) + 1}/{recipe.epochs}"),
        ),
    )
    for report in reports:
        history.append(report)
        on_epoch(report)
        if len(history) == 1:
            on_first(lambda: save_state(folder, "request", {}, request))
        say(_line(report, recipe.epochs if system.has_weights else None))
    whole_items(system)
    return system, history


def check_shards(name: str) -> None:
    """Check, before any training, that the item table of a system can be divided over processes.

    Raises:
        InputError: a system without weights, or one that adapts or re-ranks: it needs all scores in one process.
    """
    if CATALOGUE[name].counts or CATALOGUE[name].encoder is not None:
        raise InputError(
            f"{name} cannot be trained with shard_items (--shard-items); use a system that scores by products, such as "
            f"sr_gnn or niser"
        )


def _line(report: Report, epochs: int | None) -> str:
    parts = ["counted"] if epochs is None else [f"epoch {report.epoch + 1}/{epochs}", f"loss {report.loss:.4f}"]
    if report.valid:
        k = max(lengths(report.valid), default=0)
        shown = {f"Hit@{k}": f"hit@{k}", f"MRR@{k}": f"mrr@{k}"}
        found = (f"{name} {100 * report.valid[key]:.2f} %" for name, key in shown.items() if key in report.valid)
        parts += ["validation " + ", ".join(found)]
    left = 0 if epochs is None else epochs - report.epoch - 1
    parts += [f"{report.seconds:.0f} s" + (f", about {duration(left * report.seconds)} left" if left else "")]
    return "   ".join(parts) + ("   best so far" if report.best and report.valid and epochs is not None else "")


def request_of(plan: Plan, split: Split) -> dict[str, Any]:
    """Everything that a training depends on: its plan and fingerprints of the data."""
    data = "-".join(log.fingerprint() for log in (split.train, split.valid, split.test))
    return {**plan.settings(), "data": data}
