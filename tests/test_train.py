"""Training: it learns, it is the same every time, and an interruption changes nothing."""

import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient
from graphmeta.data.splits import split_by_time
from graphmeta.errors import DivergedError, InputError
from graphmeta.evaluation.ranking import evaluate
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.features.tables import ItemFeatures, row_gradients
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.losses import AllPositions, SoftmaxLoss
from graphmeta.nn.readout import Last
from graphmeta.published.catalogue import build
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import last_clicks, whole_sessions
from graphmeta.sampling.session_batch import session_batch
from graphmeta.storage import state_hash
from graphmeta.system import System
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam
from graphmeta.training.run import Checkpoint
from graphmeta.training.settings import TrainOptions

SPLIT = split_by_time(fake_log(sessions=240))


def trained(name="sr_gnn", *, epochs=2, valid=True, checkpoint=None, stop_after=None, seed=0, lr=1e-2):
    torch.manual_seed(seed)
    system = build(name, SPLIT.train.items, width=8)
    reports = train(
        system,
        SPLIT.train,
        epochs=epochs,
        optimizer=Adam(lr=lr),
        batch_size=20,
        valid=SPLIT.valid if valid else None,
        seed=seed,
        options=TrainOptions(checkpoint=checkpoint),
    )
    history = []
    for report in reports:
        history.append(report)
        if len(history) == stop_after:
            break
    return system, history


@pytest.mark.parametrize(("name", "epochs"), [("sr_gnn", 4), ("if_san", 4), ("maml", 12)])
def test_the_known_answer_is_learned(name, epochs):
    system, history = trained(name, epochs=epochs, lr=3e-2)
    result = evaluate(system, last_clicks(SPLIT.test), ks=(1, 5))
    assert history[-1].loss < history[0].loss
    assert result.metrics["hit@1"] > 0.8


def test_the_best_epoch_is_put_back():
    system, history = trained(epochs=4, lr=0.3)
    best = max(history, key=lambda report: report.valid["mrr@20"])
    assert evaluate(system, last_clicks(SPLIT.valid), ks=(20,)).metrics["mrr@20"] == best.valid["mrr@20"]


@pytest.mark.parametrize("name", ["sr_gnn", "cbml"])
def test_resumed_is_uninterrupted(name, tmp_path):
    whole, straight = trained(name, epochs=2)
    trained(name, epochs=2, checkpoint=Checkpoint(tmp_path), stop_after=1)
    resumed, history = trained(name, epochs=2, checkpoint=Checkpoint(tmp_path, resume=True))
    assert state_hash(resumed) == state_hash(whole)
    assert [(r.loss, r.valid) for r in history] == [(r.loss, r.valid) for r in straight]


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    trained(epochs=3, checkpoint=Checkpoint(tmp_path), stop_after=1)
    with pytest.raises(InputError, match="another training.*seed"):
        trained(epochs=3, seed=1, checkpoint=Checkpoint(tmp_path, resume=True))


@pytest.mark.parametrize("name", ["sr_gnn", "cbml"])
def test_same_seed_same_weights_on_one_and_two_threads(name):
    log, found = fake_log(sessions=100, items=300), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            system = build(name, log.items, width=16)
            list(train(system, log, epochs=1, batch_size=50))
            found.append((torch.get_num_threads(), state_hash(system)))
    finally:
        torch.set_num_threads(before)
    assert [threads for threads, _ in found] == [1, 2, 2]
    assert len({weights for _, weights in found}) == 1


def test_another_seed_gives_other_weights():
    assert state_hash(trained()[0]) != state_hash(trained(seed=1)[0])


def test_training_leaves_the_callers_random_state():
    torch.manual_seed(3)
    system = build("if_san", SPLIT.train.items, width=8)
    before = torch.get_rng_state()
    list(train(system, SPLIT.train, epochs=1))
    assert torch.equal(before, torch.get_rng_state())


def test_row_gradients_are_the_dense_gradient():
    torch.manual_seed(0)
    system = build("if_san", SPLIT.train.items, width=8)
    batch = session_batch(last_clicks(SPLIT.train), num_items=SPLIT.train.num_items)
    system.eval().recommender(batch, system.loss).mean().backward()
    dense = [p.grad.clone() for p in system.parameters()]
    system.zero_grad()
    with row_gradients(system):
        system.recommender(batch, system.loss).mean().backward()
    for wanted, parameter in zip(dense, system.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, wanted)


@pytest.mark.parametrize("name", ["maml", "cbml"])
def test_row_gradients_go_through_the_inner_loop(name):
    torch.manual_seed(0)
    system = build(name, SPLIT.train.items, width=8, order=2).eval()
    samples = system.training_samples(SPLIT.train).take(slice(0, 20))
    system.losses(samples).mean().backward()
    dense = [p.grad.clone() for p in system.parameters()]
    system.zero_grad()
    with row_gradients(system):
        system.losses(samples).mean().backward()
    for wanted, parameter in zip(dense, system.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-7)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path):
    torch.manual_seed(0)
    system = build("sr_gnn", SPLIT.train.items, width=8)
    reports = train(system, SPLIT.train, epochs=3, options=TrainOptions(checkpoint=Checkpoint(tmp_path)))
    next(reports)
    with torch.no_grad():
        system.recommender.features.item.weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match="batch 0.*lower the learning rate"):
        next(reports)
    again = build("sr_gnn", SPLIT.train.items, width=8)
    assert (
        next(
            train(again, SPLIT.train, epochs=3, options=TrainOptions(checkpoint=Checkpoint(tmp_path, resume=True)))
        ).epoch
        == 0
    )


def test_sessions_too_short_to_learn_from():
    log = fake_log(sessions=10, length=2)
    with pytest.raises(InputError, match="three for meta-training"):
        next(train(build("maml", log.items, width=8), log))


@pytest.mark.parametrize(("measure", "values", "best"), [("mae", [3, 1, 2], 1), ("hit@5", [3, 1, 2], 0)])
def test_a_function_chooses_the_epoch_and_less_error_is_better(measure, values, best):
    """The numbers are made up, so that only the rule decides."""
    left = iter(values)
    system = build("sr_gnn", SPLIT.train.items, width=8)
    states, reports = [], []
    for report in train(system, SPLIT.train, epochs=3, valid=lambda _: {measure: float(next(left)), "other": 0.0}):
        states.append(state_hash(system))
        reports.append(report)
    assert max(n for n, report in enumerate(reports) if report.best) == best
    assert state_hash(system) == states[best] != states[-1]


def test_patience_ends_a_training_that_no_longer_improves_and_resumes_equally(tmp_path):
    def run(epochs, **options):
        torch.manual_seed(0)
        system = build("sr_gnn", SPLIT.train.items, width=8)
        optimizer, valid = Adam(lr=0.0, weight_decay=0.0), options.pop("valid", None)
        chosen = TrainOptions(**options)
        return list(train(system, SPLIT.train, epochs=epochs, optimizer=optimizer, valid=valid, options=chosen))

    # Nothing is learned at rate 0, so the first epoch stays the best.
    history = run(9, valid=SPLIT.valid, patience=2, checkpoint=Checkpoint(tmp_path))
    assert [report.best for report in history] == [True, False, False]
    assert len(run(9, valid=SPLIT.valid, patience=2, checkpoint=Checkpoint(tmp_path, resume=True))) == 3
    assert len(run(9, valid=last_clicks(SPLIT.valid), patience=4, checkpoint=Checkpoint(tmp_path, resume=True))) == 5
    with pytest.raises(InputError, match="patience.*pass valid"):
        run(9, patience=2)


def test_a_log_numbered_otherwise_is_refused():
    log = fake_log(sessions=60)
    other = log.of_sessions(np.arange(60) >= 20)
    system = build("bpr_mf", log.items, users=log.users, width=4)
    with pytest.raises(InputError, match="training log's items"):
        next(train(system, other.aligned_to(other.items, log.users)))
    with pytest.raises(InputError, match="validation log's users"):
        next(train(system, log, valid=other.aligned_to(log.items)))


def test_an_encoder_that_reads_later_clicks_is_not_trained_on_all_positions():
    log = fake_log(sessions=60)
    parts = ItemFeatures(log.num_items, 6), GatedSessionGraph(6), Dot(Last())
    system = System(Recommender(*parts), log.items, loss=AllPositions(SoftmaxLoss()), samples=whole_sessions)
    with pytest.raises(InputError, match="looks ahead"):
        next(train(system, log))
    with pytest.raises(InputError, match="one per task"):
        adaptation = Adaptation(Scope("encoder"), step=Gradient(0.1))
        System(Recommender(*parts), log.items, loss=AllPositions(SoftmaxLoss()), adaptation=adaptation)


def test_bf16_trains_and_is_refused_where_it_would_do_nothing():
    log = fake_log(sessions=60)
    torch.manual_seed(0)
    system = build("sr_gnn", log.items, width=8)
    history = list(train(system, log, epochs=3, optimizer=Adam(lr=1e-2), options=TrainOptions(precision="bf16")))
    assert history[-1].loss < history[0].loss
    with pytest.raises(InputError, match="has no effect"):
        next(train(build("tagnn", log.items, width=8), log, options=TrainOptions(precision="bf16")))


def test_other_times_are_another_training(tmp_path):
    log = fake_log(sessions=60)
    for factor in (1.0, 37.0):
        system = build("asars_time_cat", log.items, width=4, hidden=5, time_width=2)
        run = train(
            system,
            replace(log, time=log.time * factor),
            epochs=2,
            options=TrainOptions(checkpoint=Checkpoint(tmp_path, resume=factor > 1)),
        )
        if factor > 1:
            with pytest.raises(InputError, match="another training.*samples"):
                next(run)
        else:
            next(run)


def test_a_training_that_is_never_iterated_warns():
    system = build("sr_gnn", SPLIT.train.items, width=4)
    with pytest.warns(UserWarning, match=r"nothing was trained.*for report in train"):
        train(system, SPLIT.train)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(train(system, SPLIT.train, epochs=1, batch_size=50))


def test_a_split_is_trained_on_its_training_part_and_validated_on_its_own():
    torch.manual_seed(0)
    system = build("sr_gnn", SPLIT.train.items, width=8)
    settings = {"epochs": 2, "optimizer": Adam(lr=1e-2), "batch_size": 20}
    history = list(train(system, SPLIT, **settings))
    straight, reports = trained(epochs=2)
    assert state_hash(system) == state_hash(straight)
    assert [r.valid for r in history] == [r.valid for r in reports]


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.Adam,
        torch.optim.AdamW,
        torch.optim.RAdam,
        torch.optim.Adagrad,
        torch.optim.RMSprop,
        partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        lambda weights: torch.optim.SGD(weights, lr=0.5),
        lambda weights: torch.optim.Adam([{"params": weights[:1], "lr": 1e-2}, {"params": weights[1:], "lr": 1e-3}]),
    ],
)
def test_any_factory_of_torch_optim_trains_and_resumes(optimizer, tmp_path):
    def run(checkpoint=None):
        torch.manual_seed(0)
        system, options = build("sr_gnn", SPLIT.train.items, width=4), TrainOptions(checkpoint=checkpoint)
        reports = train(system, SPLIT.train, epochs=2, optimizer=optimizer, batch_size=50, options=options)
        return system, reports

    system, reports = run()
    losses = [report.loss for report in reports]
    assert losses[1] < losses[0]
    next(run(checkpoint=Checkpoint(tmp_path))[1])
    resumed, reports = run(checkpoint=Checkpoint(tmp_path, resume=True))
    assert [report.loss for report in reports] == losses and state_hash(resumed) == state_hash(system)


def test_a_factory_keeps_its_own_rate_and_ours_is_a_schedule():
    system = build("sr_gnn", SPLIT.train.items, width=4)
    before = {name: weight.clone() for name, weight in system.named_parameters()}
    list(train(system, SPLIT.train, epochs=1, optimizer=partial(torch.optim.SGD, lr=0.0), batch_size=50))
    assert all(torch.equal(weight, before[name]) for name, weight in system.named_parameters())


def test_another_optimizer_is_another_training(tmp_path):
    def run(lr, checkpoint):
        system, options = build("sr_gnn", SPLIT.train.items, width=4), TrainOptions(checkpoint=checkpoint)
        optimizer = partial(torch.optim.SGD, lr=lr)
        return train(system, SPLIT.train, epochs=2, optimizer=optimizer, batch_size=50, options=options)

    next(run(0.1, checkpoint=Checkpoint(tmp_path)))
    with pytest.raises(InputError, match="another training.*optimizer options"):
        next(run(0.2, checkpoint=Checkpoint(tmp_path, resume=True)))


def test_what_is_no_optimizer_is_refused_in_one_line():
    system = build("sr_gnn", SPLIT.train.items, width=4)
    built = torch.optim.Adam(system.parameters())
    with pytest.raises(InputError, match=r"Adam\(…\) is already bound.*pass a factory: optimizer=torch.optim.Adam, or"):
        train(system, SPLIT.train, optimizer=built)
    for wrong in ("adam", 0.1, Adam):
        with pytest.raises(InputError, match=r"does not make an optimizer; pass graphmeta.Adam\(lr=…\)"):
            train(system, SPLIT.train, optimizer=wrong)
    with pytest.raises(InputError, match="optimizer= made a list"):
        next(train(system, SPLIT.train, optimizer=list))


def test_an_unknown_setting_is_an_error_at_once():
    with pytest.raises(TypeError, match="pacience"):
        train(build("sr_gnn", SPLIT.train.items, width=4), SPLIT.train, pacience=2)
