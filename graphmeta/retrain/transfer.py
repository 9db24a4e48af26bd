"""Learned transfer (SML): a network combines a table's last rows with those retrained on the new period.

``f_Θ(W_{t-1}, Ŵ_t)`` is trained to perform well on period t + 1: Ŵ is trained on the past period (step 1, Θ fixed), Θ
on the period after it (step 2, Ŵ fixed).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch_geometric.data import HeteroData

from graphmeta.adapt.scope import Scope
from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.nn.features.tables import table_names
from graphmeta.nn.sharing import with_shared_weights
from graphmeta.protocols import SamplesSeenItems
from graphmeta.protocols.members import ReadsMembers
from graphmeta.recommender import Encoded, Recommender
from graphmeta.retrain.period import Period, State
from graphmeta.retrain.strategy import ADAM, exhaust, restricted_to
from graphmeta.retrain.transfer_net import TransferNet, TransferredTable
from graphmeta.sampling.samples import Samples
from graphmeta.system import System
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam, Factory, Optimizer, as_optimizer, build_optimizer

Tables = dict[str, Tensor]


class TransferWrapper(nn.Module):
    """A recommender whose tables are ``f_Θ(old, own)``; both steps compute their losses through it.

    Args:
        old: the tables of the last period, by name.
        nets: the transfer network of each.
        penalty: λ of ``½ λ Σ ŵ²`` over the rows in a batch, while Ŵ is trained.
    """

    def __init__(self, body: Recommender, old: Tables, nets: dict[str, nn.Module], *, penalty: float = 0.0) -> None:
        super().__init__()
        self.body, self.old, self.penalty = body, old, penalty
        self.nets = nn.ModuleDict({_key(name): net for name, net in nets.items()})

    def forward(self, batch: HeteroData, loss: nn.Module | None = None, encoded: Encoded | None = None) -> Tensor:
        """As the recommender's."""
        own = {name: self.body.get_parameter(name) for name in self.old}
        made = {name: TransferredTable(self.nets[_key(name)], self.old[name], new) for name, new in own.items()}
        found = functional_call(self.body, dict[str, Tensor](made), (batch, loss, encoded))
        if loss is not None and self.penalty and any(new.requires_grad for new in own.values()):
            touched = [own[name][rows].square().sum() for name, table in made.items() for rows in table.rows]
            found = found + 0.5 * self.penalty * torch.stack(touched).sum()
        return found

    def encode(self, batch: HeteroData) -> Encoded:
        """States and candidates of the recommender with its own tables; a loss checks on them that it is causal."""
        return self.body.encode(batch)

    @torch.no_grad()
    def served(self) -> Tables:
        """The tables to deploy: every row transferred."""
        return {name: self.nets[_key(name)](old, self.body.get_parameter(name)) for name, old in self.old.items()}

    def learn(self, *, nets: bool, tuned: tuple[str, ...] = ("",)) -> None:
        """Make either the networks trainable, or the tables and the other weights of the scope ``tuned``."""
        self.nets.requires_grad_(nets)
        for name, weight in self.body.named_parameters():
            weight.requires_grad_(not nets and (name in self.old or Scope(*tuned).holds(name)))


def _key(name: str) -> str:
    return name.replace(".", ":")


class _Learner(System):
    """The system that trains through the transfer networks; statistics are fitted by the system itself."""

    def __init__(self, like: System, wrapper: TransferWrapper, *, loss: nn.Module | None = None) -> None:
        super().__init__(
            wrapper,  # pyright: ignore[reportArgumentType]
            like.items,
            users=like.users,
            loss=loss or like.loss,
            batches=like.batches,
            limits={"max_length": like.max_length},
        )

    @property
    def wrapper(self) -> TransferWrapper:
        """Its recommender."""
        return self.recommender  # pyright: ignore[reportReturnType]

    def fit_statistics(self, log: EventLog) -> None:
        """Do nothing."""


class PersistentOptimizer:
    """An optimiser whose moments persist over several trainings."""

    def __init__(self, given: Optimizer | Factory) -> None:
        self.like, self.built = as_optimizer(given, ADAM), None

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of these parameters, created once."""
        return self.build_with_tables(parameters, ())

    def build_with_tables(self, parameters: Iterable[Tensor], tables: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of these parameters, created once."""
        if self.built is None:
            self.built = build_optimizer(self.like, parameters, tables)
        return self.built

    def rate(self, progress: float) -> float | None:
        """The learning rate at this training progress."""
        return self.like.rate(progress)


@runtime_checkable
class Restart(Protocol, metaclass=ReadsMembers):
    """Where a step 1 starts that follows a step 2."""

    def restart(self, wrapper: TransferWrapper) -> None:
        """Set the tables, in place."""
        ...


@dataclass(frozen=True)
class Retrained:
    """At the retrained tables Ŵ, as in the paper."""

    def restart(self, wrapper: TransferWrapper) -> None:
        """They are there already."""


@dataclass(frozen=True)
class Transferred:
    """At the transferred tables, as in the public code."""

    def restart(self, wrapper: TransferWrapper) -> None:
        """Transfer every row."""
        _assign(wrapper.body, wrapper.served())


RESTARTS: dict[str, Restart] = {"retrained": Retrained(), "transferred": Transferred()}  # their names in build specs


@dataclass(frozen=True)
class Transfer:
    """SML: ``W_t = f_Θ(W_{t-1}, Ŵ_t)`` for every embedding table, one network per table; other weights are fine-tuned.

    After the test on period t + 1, ``rounds`` times: train Θ on t + 1 with Ŵ_t fixed (step 2), then Ŵ_t on t with Θ
    fixed (step 1); then train Θ again, recompute ``W_t = f_Θ(W_{t-1}, Ŵ_t)``, train Ŵ_{t+1} on t + 1 from W_t, and
    deploy ``W_{t+1} = f_Θ(W_t, Ŵ_{t+1})``. That is the online algorithm. The offline one has ``rounds`` times step 1
    then step 2; as Ŵ_t had its first step 1 in period t, it omits the last steps 1 and 2 of the online one.

    Args:
        tables: prefixes of the names of transferred tables, as a :class:`~graphmeta.adapt.scope.Scope` takes them.
        tuned: prefixes of the names of other weights that step 1 trains. All others keep their pretrained values.
        net: builds the transfer network of a table from its width.
        rounds: steps 2 and 1 per period.
        epochs: of each step.
        offline: number of first periods that use the offline algorithm.
        warm_up: epochs of step 2 before the stream, on the data before it, with ``Ŵ = W``. With periods of a few
            thousand events, a randomly initialised Θ learns only item popularity; the warm-up first teaches it to
            preserve rows.
        restart_from: step 1 starts at Ŵ (``Retrained()``), or at the transferred table (``Transferred()``), as the
            public code does.
        weights, theta: the optimisers of Ŵ and Θ.
        batch_sizes: of steps 1 and 2.
        penalty: λ_1, on the rows in a batch; that on Θ is the optimiser's.

    Adam's moments of Ŵ and Θ persist within a period; between periods only weights are kept. Rows of users and items
    without events are transferred like all others: step 2 includes them once they appear, so that Θ learns to
    initialise them. In step 2 a loss that samples by :class:`~graphmeta.nn.losses.negatives.UniformSeen` uses the new
    period's items.

    Source: Zhang et al. 2020, algorithms 1 and 2; rates and sizes are the public code's.
    Differs: a network for each table of any recommender; the public code keeps its moments over the whole stream and
    samples the negatives of step 1 before it, here each epoch samples its own; the warm-up is ours.
    """

    tables: tuple[str, ...] = ("",)
    tuned: tuple[str, ...] = ("",)
    net: Callable[[int], nn.Module] = TransferNet
    rounds: int = 10
    epochs: int = 1
    offline: int = 0
    warm_up: int = 0
    restart_from: Restart = Retrained()
    weights: Optimizer | Factory = ADAM
    theta: Optimizer | Factory = Adam(lr=1e-3, weight_decay=1e-4, final=1.0)
    batch_sizes: tuple[int, int] = (1024, 256)
    penalty: float = 1e-6

    def __post_init__(self) -> None:
        if not isinstance(self.restart_from, Restart):
            raise InputError(f"restart_from={self.restart_from!r} must be Retrained() or Transferred()")

    def begin(self, system: System, period: Period) -> State:
        """Networks, untrained or warmed up; no retrained tables yet."""
        if system.adaptation is not None:
            raise InputError("transfer does not support systems with an adaptation; use the base system")
        with torch.random.fork_rng():
            torch.manual_seed(period.seed_for(2))
            nets = {name: self.net(system.recommender.get_parameter(name).shape[1]) for name in self._names(system)}
        state = _packed(nets) | {"taken in": torch.tensor(0)}
        return state | (self._warm_up(system, state, replace(period, begin=-np.inf)) if self.warm_up else {})

    def retrain(self, system: System, state: State, period: Period) -> State:
        """Train the networks on the new period, then retrain and transfer the tables."""
        system.fit_statistics(period.past)
        learner, every = self._learner(system, state), period.samples(system)
        wrapper, body = learner.wrapper, learner.wrapper.body
        new = every.take(period.is_new(every).nonzero()[0])
        taken_in = int(state["taken in"])
        if "began" in state:
            _assign(body, _with_prefix(state, "retrained/"))
            before = every.take(period.is_new(every, float(state["began"]), period.begin).nonzero()[0])
            online = taken_in >= self.offline
            self._alternate(learner, (before, new), period, kinds=[True, False] * (self.rounds - 1 + online) + [True])
            _assign(body, wrapper.served())
        wrapper.old = _tables(body, wrapper.old)
        self._step(learner, new, period, optimizer=PersistentOptimizer(self.weights), nets=False, number=0)
        retrained = _tables(body, wrapper.old)
        _assign(body, wrapper.served())
        tables = {f"old/{name}": table for name, table in wrapper.old.items()}
        tables |= {f"retrained/{name}": table for name, table in retrained.items()}
        counts = {"began": torch.tensor(period.begin, dtype=torch.float64), "taken in": torch.tensor(taken_in + 1)}
        nets = {name: wrapper.nets[_key(name)] for name in wrapper.old}
        return _packed(nets) | tables | counts

    def _warm_up(self, system: System, state: State, period: Period) -> State:
        """The networks after a warm-up on all past samples, with Ŵ = W."""
        system.fit_statistics(period.past)
        learner, warm_up = self._learner(system, state), replace(self, epochs=self.warm_up)
        samples, theta = period.samples(system), PersistentOptimizer(self.theta)
        warm_up._step(learner, samples, period, optimizer=theta, nets=True, number=0)
        return _packed({name: learner.wrapper.nets[_key(name)] for name in learner.wrapper.old})

    def _names(self, system: System) -> list[str]:
        body, scope = system.recommender, Scope(*self.tables)
        every = sorted(table_names(body) | {f"features.{name}" for name in _embeddings(body.features)})
        names = [name for name in every if scope.holds(name)]
        if not names:
            there = (
                f"its tables are {', '.join(every)}" if every else "it has none (graphmeta.protocols.EmbeddingTable)"
            )
            raise InputError(f"the recommender has no embedding table in the scope {self.tables}; {there}")
        return names

    def _learner(self, system: System, state: State) -> _Learner:
        old, nets = _with_prefix(state, "old/"), {}
        for name in self._names(system):
            old.setdefault(name, system.recommender.get_parameter(name).detach().clone())
            nets[name] = self.net(old[name].shape[1]).to(old[name])
            nets[name].load_state_dict(_with_prefix(state, f"net/{name}/"))
        body = with_shared_weights(system.recommender)  # its own requires_grad
        return _Learner(system, TransferWrapper(body, old, nets, penalty=self.penalty))

    def _alternate(
        self, learner: _Learner, samples: tuple[Samples, Samples], period: Period, *, kinds: list[bool]
    ) -> None:
        """Run steps in this order: networks on the new samples, tables on the earlier ones."""
        optimizers = PersistentOptimizer(self.weights), PersistentOptimizer(self.theta)
        for number, nets in enumerate(kinds, 1):
            if not nets:
                self.restart_from.restart(learner.wrapper)
            self._step(learner, samples[nets], period, optimizer=optimizers[nets], nets=nets, number=number)

    def _step(
        self, learner: _Learner, samples: Samples, period: Period, *, optimizer: Optimizer, nets: bool, number: int
    ) -> None:
        """Run the epochs of one of the two steps."""
        if len(samples) == 0:
            return
        learner.wrapper.learn(nets=nets, tuned=self.tuned)
        if nets:
            learner = _Learner(learner, learner.wrapper, loss=_with_new_negatives(learner.loss, period))
        seed = period.seed_for(3, number)
        options = {"epochs": self.epochs, "batch_size": self.batch_sizes[nets], "optimizer": optimizer}
        exhaust(train(restricted_to(learner, samples, learner.batches), period.past, seed=seed, **options))


def _with_new_negatives(loss: nn.Module, period: Period) -> nn.Module:
    """A copy of the loss that samples negatives among the items of the new period instead of all items seen so far.

    It shares weights and buffers with the loss; a loss that samples otherwise is returned unchanged.
    """
    samplers = {
        id(part): part.seen_since(period.begin) for part in loss.modules() if isinstance(part, SamplesSeenItems)
    }
    for sampler in samplers.values():
        sampler.fit_statistics(period.past)
    shared = {id(tensor): tensor for tensor in (*loss.parameters(), *loss.buffers())}
    return copy.deepcopy(loss, {**shared, **samplers}) if samplers else loss


def _embeddings(features: nn.Module) -> list[str]:
    """Names of the weights of plain ``nn.Embedding`` tables."""
    return [f"{name}.weight" for name, part in features.named_modules() if isinstance(part, nn.Embedding)]


def _tables(body: Recommender, names: Tables) -> Tables:
    return {name: body.get_parameter(name).detach().clone() for name in names}


@torch.no_grad()
def _assign(body: Recommender, tables: Tables) -> None:
    for name, table in tables.items():
        body.get_parameter(name).copy_(table)


def _packed(nets: dict[str, nn.Module]) -> State:
    return {
        f"net/{name}/{key}": w.detach().clone() for name, net in nets.items() for key, w in net.state_dict().items()
    }


def _with_prefix(state: State, prefix: str) -> State:
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
