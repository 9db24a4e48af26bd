"""The command line: ``graphmeta run`` trains on the bundled dataset, ``fit`` on your log.

Torch and modules that need it are imported inside the commands, so that ``--help`` is fast. Results go to the standard
output, everything else (training progress, notes, errors) to the standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphmeta.cli import audit_commands, console, recommend_commands
from graphmeta.cli.flattened import flattened
from graphmeta.cli.given_model import GivenModel
from graphmeta.cli.options import (
    Events,
    FileOptions,
    Json,
    Limits,
    LogOptions,
    MaxLength,
    MaxSupport,
    Model,
    Printed,
    SplitOptions,
    versioned_folder,
)
from graphmeta.cli.ranks import ranks
from graphmeta.cli.serve_job import ServeOptions
from graphmeta.distributed.group import current
from graphmeta.errors import DivergedError, EndedByOther, InputError, LostProcess, counted

if TYPE_CHECKING:
    from graphmeta.cli.fit_job import Job, Outcome
    from graphmeta.data.events import EventLog
    from graphmeta.data.scan.log import ScannedLog
    from graphmeta.data.splits import Split
    from graphmeta.published.training_plan import Plan
    from graphmeta.training.recipes import TrainingRecipe

WIDTH = 64
RUN_SYSTEM = "personal_reranker"
STREAM_SYSTEMS = ["full_retrain", "fine_tune", "spmf", "sml"]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Meta-learned graph neural recommenders: which item comes next in a session?",
)

System = Annotated[str, typer.Option("--system", help="Which system; `graphmeta systems` lists them.")]
Epochs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Epochs, by the size of the log if not given; a meta-learner's encoder is trained for this many, then the "
        "whole system for half as many.",
    ),
]


class Recipe(StrEnum):
    """Training recipes by name."""

    auto = "auto"
    full = "full"

    def of(
        self,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        clicks: int | None = None,
    ) -> TrainingRecipe:
        """The recipe, with the settings that are given."""
        from graphmeta.training.recipes import FULL_OPTIMIZER, FULL_SOFTMAX, TrainingRecipe, adam_without_decay

        full = self is Recipe.full
        optimizer = None if lr is None else replace(FULL_OPTIMIZER, lr=lr) if full else adam_without_decay(lr)
        given = TrainingRecipe(epochs, batch_size, optimizer, clicks=clicks)
        return given.filled_from(FULL_SOFTMAX if full else None)


Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same weights.")]
Width = Annotated[int, typer.Option(min=1, help="Embedding width.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume an interrupted training in --out.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
Support = Annotated[int, typer.Option("--min-item-support", min=1, help="Leave out items with fewer events.")]
Length = Annotated[int, typer.Option("--min-session-length", min=1, help="Leave out sessions with fewer events.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. User errors print one line and return code 2."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    console.show()
    try:
        with console.notes(), ranks(next(iter(given), "")):
            code = app(args=given or ["--help"], prog_name="graphmeta", standalone_mode=False) or 0
        return console.fail("interrupted", 130) if code == 130 else code
    except EndedByOther:
        return 1
    except LostProcess as error:
        return console.fail(str(error), 1)
    except (InputError, DivergedError) as error:
        return console.fail(str(error))
    except (KeyboardInterrupt, typer.Abort, _Interrupted) as stop:
        return console.fail(str(stop) or "interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return console.fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's usage errors: an unknown option, a missing argument
            raise
        usage: Any = error
        return console.fail(usage.format_message())


class _Interrupted(Exception):
    """A training interrupted by the user; the message names the option to resume."""


@contextmanager
def _interruptible(place: Path, *, what: str = "epoch", mark: str = "training.json") -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if not any(place.rglob(mark)):
            raise _Interrupted(f"interrupted before the first {what} was finished; nothing is saved") from None
        raise _Interrupted(
            f"interrupted; {place} has the finished {what}s: repeat the command with --resume to continue"
        ) from None
    except LostProcess as error:
        if not any(place.rglob(mark)):
            raise LostProcess(f"{error}; no {what} was finished, so nothing is saved") from None
        raise LostProcess(
            f"{error}; {place} has the finished {what}s: repeat the command with --resume, in any number of processes"
        ) from None


@dataclass(frozen=True)
class Output(Printed):
    """What is done with the content of the output folder, and what is printed."""

    resume: Resume = False
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model of another system in --out; `rollback` restores it.")
    ] = False

    def end(self, folder: Path, next_step: str) -> None:
        """Print what was written and the next command, or the metrics as JSON."""
        from graphmeta.storage.reports import reports
        from graphmeta.storage.versions import current

        if self.as_json:
            typer.echo((folder / "metrics.json").read_text())
        written = sorted([folder / "model", *reports(folder / "model", current(folder / "model"))])
        console.say(f"written: {', '.join(map(str, written))}")
        console.say(f"next: {next_step}")


@app.command()
@flattened
def run(
    output: Output,
    system: System = RUN_SYSTEM,
    epochs: Epochs = None,
    seed: Seed = 0,
    out: Out = Path("out/run"),
    width: Width = WIDTH,
    max_support: MaxSupport = None,
    max_length: MaxLength = None,
) -> None:
    """Train, evaluate and recommend on the bundled dataset.

    Prints graph statistics, training progress, a comparison with baselines, and recommendations with item names.
    """
    from graphmeta.cli import fit_job as job
    from graphmeta.data.graph import build_graph
    from graphmeta.data.stored_columns import Columns
    from graphmeta.datasets.session_logs import complete_journey
    from graphmeta.evaluation.examples import examples
    from graphmeta.evaluation.protocol import Rules, cut
    from graphmeta.published.training_plan import Plan

    output.show()
    _ready(system, out, users=True, overwrite=output.overwrite)
    log, rules = complete_journey(), Rules(min_item_support=1)
    split = cut(log, rules)
    console.say("the bundled dataset: " + console.sizes(log, split, rules))
    console.statistics(build_graph(split.train), "The graph of the training part")
    recipe = replace(Recipe.auto.of(epochs=epochs), refit=False)
    plan = Plan(system, width, seed, recipe, max_support, max_length, device="auto")
    columns = Columns("product", "basket", "time", "household")
    work = job.Job(
        plan,
        columns,
        rules,
        "the bundled sample of The Complete Journey",
        out,
        output.resume,
    )
    outcome = _train(work, log, split)
    if outcome is not None and outcome.results is not None:
        console.examples(examples(outcome.system, split.test, history=split), outcome.system.num_items)
    if outcome is not None and outcome.results is not None:
        console.verdict(outcome.results, system)
    output.end(out, f"graphmeta serve {out}, or your own log: graphmeta fit --help")


@dataclass(frozen=True)
class TrainingOptions:
    """System and training settings of ``fit``."""

    system: Annotated[
        str | None,
        typer.Option(
            help="Which system, see `graphmeta systems`; by default personal_reranker with --user, else reranker."
        ),
    ] = None
    recipe: Annotated[
        Recipe,
        typer.Option("--recipe", help="auto: by the size of the log; full: full softmax, batches of 100."),
    ] = Recipe.auto
    epochs: Epochs = None
    seed: Seed = 0
    width: Width = WIDTH
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Samples or tasks per step.")] = None
    lr: Annotated[float | None, typer.Option("--lr", min=1e-12, help="Highest learning rate.")] = None
    clicks: Annotated[
        int | None,
        typer.Option("--clicks", min=1, help="Clicks per step, instead of a number of samples; the rate follows."),
    ] = None

    refit: Annotated[
        bool,
        typer.Option(
            "--refit/--no-refit",
            help="After the test, train the model again on all sessions; --no-refit keeps the one that was tested.",
        ),
    ] = True
    device: Annotated[str, typer.Option("--device", help="auto (a GPU if there is one), cpu or cuda.")] = "auto"
    shard_items: Annotated[
        bool,
        typer.Option("--shard-items", help="Under torchrun: each process holds a part of the item table."),
    ] = False

    def named(self, *, users: bool) -> str:
        """The system, by default the best one for a log with or without users."""
        from graphmeta.published.fit import default_system

        return default_system(users=users) if self.system is None else self.system

    def plan(self, limits: Limits, *, users: bool) -> Plan:
        """The training plan, for a log with or without users."""
        from graphmeta.published.training_plan import Plan, check_shards

        recipe = self.recipe.of(epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, clicks=self.clicks)
        name = self.named(users=users)
        if self.shard_items:
            check_shards(name)
        return Plan(
            name,
            self.width,
            self.seed,
            replace(recipe, refit=self.refit),
            limits.max_support,
            limits.max_length,
            device=self.device,
            shard_items=self.shard_items,
        )


@app.command()
@flattened
def fit(
    reading: LogOptions,
    files: FileOptions,
    out: Out,
    training: TrainingOptions,
    cut: SplitOptions,
    limits: Limits,
    output: Output,
    keep_histories: Annotated[
        bool,
        typer.Option("--keep-histories", help="Store the users' sessions with the model, for recommend --user."),
    ] = False,
) -> None:
    """Train and evaluate a system on your log.

    The last sessions are held out for a comparison with baselines, those before them for choosing the epoch. The model
    that is written is then trained again on all of them, with the same settings.
    """
    from graphmeta.cli import fit_job as job
    from graphmeta.evaluation.protocol import Rules
    from graphmeta.evaluation.protocol import cut as split_of
    from graphmeta.published.columns import warn_none_read

    output.show()
    users = reading.user is not None
    name_of_system = training.named(users=users)
    if keep_histories and not users:
        raise InputError("--keep-histories stores users' sessions, and the log has no user column; name it: --user")
    _ready(name_of_system, out, users=users, overwrite=output.overwrite)
    rules = Rules(cut.test, cut.valid, cut.min_item_support, cut.min_session_length)
    catalogue, name = reading.catalogue(files), reading.events.name
    log = reading.scanned(files, catalogue)
    if (note := console.on_disk(log)) is not None:
        console.say(note)
    if any((reading.attributes, reading.types, reading.several)):
        warn_none_read(name_of_system, log.items, users=log.users)
    split = split_of(log, rules)
    console.say(f"{name}: " + console.sizes(log, split, rules))
    whole = log if split.valid_from is None else log.before(split.valid_from)
    console.say("training part: " + console.left_out(whole, split.train, rules))
    plan = training.plan(limits, users=users)
    work = job.Job(plan, reading.columns(files), rules, name, out, output.resume, keep_histories, catalogue)
    outcome = _train(work, log, split)
    if outcome is not None and outcome.results is not None:
        console.verdict(outcome.results, name_of_system)
    output.end(out, f"graphmeta recommend {out} --session ITEM, or graphmeta serve {out}")


@app.command()
@flattened
def evaluate(
    folder: Model,
    events: Events,
    printed: Printed,
    history: Annotated[
        Path | None,
        typer.Option("--history", help="Log with the users' earlier sessions, in the columns that fit has read."),
    ] = None,
) -> None:
    """Evaluate a model on new sessions.

    These are the sessions of the log that begin after the model's training and validation sessions.
    """
    from graphmeta.cli.evaluate_job import score
    from graphmeta.evaluation.protocol import when
    from graphmeta.storage.versions import whole_version

    printed.show()
    scored = whole_version(
        versioned_folder(folder), lambda version: score(version, events, history=history, bar=console.bar)
    )
    if scored.counted == 0:
        console.say(
            "note: baselines that read users' earlier sessions are left out, since the model's folder has no sessions "
            "of users; to compare with them, name the log that it was fitted to: --history LOG"
        )
    elif scored.counted is not None:
        console.say(f"baselines of users are fitted on {scored.counted_sessions()}")
    if printed.as_json:
        typer.echo(json.dumps(scored.document, indent=1, allow_nan=False))
        return
    begin = when(scored.system.notes["cuts"])
    lost = f"; ignored clicks on unknown items: {scored.unknown:,}" if scored.unknown else ""
    console.say(
        f"sessions that begin after the training and validation of this model (from {begin} on): "
        f"{scored.sessions:,} of {scored.all_sessions:,}, {scored.document['samples']:,} of them scored{lost}"
    )
    console.results(scored.results, scored.document["system"])
    console.verdict(scored.results, scored.document["system"])
    console.say(f"next: graphmeta recommend {folder} --in {events} --out recommendations.csv")


app.command()(flattened(recommend_commands.recommend))
app.command()(flattened(recommend_commands.similar))
app.command()(flattened(recommend_commands.explain))
app.command()(flattened(audit_commands.audit))
app.command()(flattened(audit_commands.bench))


@app.command()
@flattened
def graph(
    reading: LogOptions,
    files: FileOptions,
    printed: Printed,
    out: Out,
    min_item_support: Support = 1,
    min_session_length: Length = 1,
    around: Annotated[str | None, typer.Option(help="Session to draw; one of medium length if not given.")] = None,
) -> None:
    """Build the graph of a log, print its statistics and draw it.

    Writes the graph as safetensors and JSON, and a figure of one session in it.
    """
    from graphmeta.cli.fit_job import check_folder
    from graphmeta.data.graph import build_graph
    from graphmeta.data.graph_files import node_names, save_graph, session_number
    from graphmeta.evaluation.protocol import Rules
    from graphmeta.plots.session_graph import neighbourhood

    printed.show()
    check_folder(out)
    whole = reading.log(files)
    log = whole.filter(min_item_support=min_item_support, min_session_length=min_session_length)
    if log is not whole:
        console.say(console.left_out(whole, log, Rules(0, 0, min_item_support, min_session_length)))
    centre = session_number(log, around)
    console.say(f"building the graph of {counted(log.num_events, 'event')}")
    built, picture = build_graph(log), out / "session.png"
    names = node_names(log)
    neighbourhood(built, ("session", centre), picture, names=lambda kind, row: str(names[kind][row]))
    save_graph(out, built)
    console.statistics(built, f"The graph of {reading.events.name}")
    if printed.as_json:
        console.say_json(console.numbers(built))
    written = f"{out}/graph.json, its safetensors, {picture} (session {log.sessions[centre]})"
    console.say(f"written: {written}; next: graphmeta fit with the same columns, and --out MODEL")


@dataclass(frozen=True)
class StreamOptions:
    """Systems and test protocol of ``stream``."""

    period: Annotated[str, typer.Option("--period", help="Length of a period: 7d, 12h, 90min, 2w, 30s or 5000events.")]
    system: Annotated[list[str], typer.Option("--system", help="A system; may be repeated.")] = field(
        default_factory=lambda: list(STREAM_SYSTEMS)
    )
    base: Annotated[str, typer.Option("--base", help="Base system of full_retrain, fine_tune, spmf and sml.")] = "mf"
    first: Annotated[
        int, typer.Option("--first", min=1, help="Number of pretraining periods; all later ones are tested on.")
    ] = 10
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Epochs of pretraining.")] = 10
    negatives: Annotated[
        int, typer.Option("--negatives", min=1, help="Sampled negatives per click, in addition to the full ranking.")
    ] = 999
    seed: Seed = 0
    width: Width = WIDTH


@dataclass(frozen=True)
class StreamOutput(Printed):
    """Whether an interrupted stream is continued, and what is printed."""

    resume: Resume = False


@app.command()
@flattened
def stream(
    reading: LogOptions,
    files: FileOptions,
    out: Out,
    service: StreamOptions,
    output: StreamOutput,
) -> None:
    """Retrain systems after every period of your log.

    Each is tested on a period before it is retrained on it; new users and items may appear in any period.
    """
    from graphmeta.cli import fit_job as job
    from graphmeta.cli import stream_job
    from graphmeta.plots import figures as plots
    from graphmeta.storage.lock import locked

    output.show()
    names = tuple(dict.fromkeys(service.system))
    stream_job.check_systems(names, service.base, users=reading.user is not None)
    job.check_folder(out)
    plots.figure(1, 1)
    work = stream_job.StreamJob(
        names, out, resume=output.resume, **{k: v for k, v in asdict(service).items() if k != "system"}
    )
    with locked(out), _interruptible(out, what="period", mark="stream.json"):
        console.periods(stream_job.run_stream(work, reading.log(files), say=console.say))
    if output.as_json:
        typer.echo((out / "metrics.json").read_text())
    console.say(f"written: {out}/metrics.json, {out}/periods.png, {', '.join(f'{out}/{name}/model' for name in names)}")
    console.say(f"next: look at {out}/periods.png, then graphmeta recommend {out}/{names[0]} --session ITEM")


@app.command()
def rollback(
    folder: Model,
    to: Annotated[
        int | None, typer.Option("--to", min=0, help="Number of the version; the one before if not given.")
    ] = None,
) -> None:
    """Make an earlier version of a model the current one.

    The last three versions are kept. A running `serve` changes to it within seconds.
    """
    from graphmeta.storage.reports import reports
    from graphmeta.storage.versions import current, pointer
    from graphmeta.storage.versions import rollback as roll_back

    place = versioned_folder(folder)
    before = pointer(place)
    number = roll_back(place, to)
    console.say(f"{place}: version {number} is current" + ("" if before is None else f", instead of {before.current}"))
    if found := reports(place, current(place)):
        console.say(f"of this version: {', '.join(map(str, found))}")


@app.command()
@flattened
def serve(folder: Model, options: ServeOptions, given: GivenModel) -> None:
    """Serve a model over HTTP, with a page to try it at /.

    A new version, written by `fit` into the same folder or restored by `rollback`, is loaded while the old one answers.
    """
    from graphmeta.cli.serve_job import serve as run_server

    run_server(versioned_folder(folder), options, given)


@app.command()
def systems(as_json: Json = False) -> None:
    """List all systems of the catalogue.

    Those of the kind `next item` can be fitted; the others are for Python.
    """
    from dataclasses import asdict

    from graphmeta.published.systems import systems as every

    rows = every()
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False))
        return
    keys = ("name", "kind", "paper", "equations", "adapts")
    console.table("Systems", keys, [[getattr(row, key) for key in keys] for row in rows], left=len(keys))


def _ready(system: str, out: Path, *, users: bool, overwrite: bool) -> None:
    """Validate the options before any data is read."""
    from graphmeta.cli import fit_job as job
    from graphmeta.plots import figures as plots
    from graphmeta.published.fit import check_system

    check_system(system, users=users)
    job.check_folder(out)
    job.check_model(out, system, overwrite=overwrite)
    plots.figure(1, 1)


def _train(work: Job, log: EventLog | ScannedLog, split: Split) -> Outcome | None:
    """Run the job and print the results."""
    from graphmeta.cli.fit_job import run_job
    from graphmeta.cli.model_card import titles
    from graphmeta.storage.lock import locked

    writes = current().rank == 0
    with locked(work.folder) if writes else nullcontext(), _interruptible(work.folder / "checkpoint"):
        outcome = run_job(work, log, split=split, say=console.say, bar=console.bar)
    if outcome is None:
        console.say(f"note: {work.folder} already has the result of this training; to train again, drop --resume")
    elif outcome.results is None:
        console.say("note: there is no test part (--test 0), so nothing is measured")
    else:
        console.results(outcome.results, work.plan.system)
        if outcome.last_sessions:
            names = titles(work.plan.system, outcome.last_sessions)
            console.known_sessions({name: outcome.results[name] for name in names}, outcome.last_sessions, names)
    return outcome
