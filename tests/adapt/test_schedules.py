"""Schedules of the inner loop in training: they go by epoch and batch, resume bit for bit, and no answer knows them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from graphmeta.data.splits import split_by_time
from graphmeta.errors import InputError
from graphmeta.evaluation.adaptation_curves import by_steps
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import last_clicks
from graphmeta.storage import state_hash
from graphmeta.system import System
from graphmeta.testing import fake_log
from graphmeta.training import loop as training
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam
from graphmeta.training.run import Checkpoint
from graphmeta.training.settings import TrainOptions

SPLIT = split_by_time(fake_log(sessions=120))
INNER = {"clip": 0.5, "proximal": 0.1, "multi_step": 0.75, "first_order": 0.5}


def made(name="maml", *, inner=INNER, order=2, **arguments):
    torch.manual_seed(0)
    options = {"learned": "per group", "steps": 2, "order": order, "lr": 0.1, "inner": inner, **arguments}
    return build(name, SPLIT.train.items, width=8, **options)


def trained(name="maml", *, epochs=4, checkpoint=None, stop_after=None, **arguments):
    system, history = made(name, **arguments), []
    for report in train(
        system,
        SPLIT.train,
        epochs=epochs,
        optimizer=Adam(lr=1e-2),
        batch_size=40,
        options=TrainOptions(checkpoint=checkpoint),
    ):
        history.append(report.loss)
        if len(history) == stop_after:
            break
    return system, history


@pytest.mark.parametrize("name", ["maml", pytest.param("cbml", marks=pytest.mark.slow)])
@pytest.mark.parametrize("stop_after", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_resumed_is_uninterrupted(name, stop_after, tmp_path):
    whole, straight = trained(name)
    trained(name, checkpoint=Checkpoint(tmp_path), stop_after=stop_after)
    resumed, history = trained(name, checkpoint=Checkpoint(tmp_path, resume=True))
    assert state_hash(resumed) == state_hash(whole) and history == straight


def test_a_checkpoint_of_another_inner_loop_is_refused(tmp_path):
    trained(checkpoint=Checkpoint(tmp_path), stop_after=1)
    for other in (None, {**INNER, "clip": 0.4}):
        with pytest.raises(InputError, match="another training.*system"):
            trained(checkpoint=Checkpoint(tmp_path, resume=True), inner=other)


def test_the_adaptation_reads_the_training_progress(monkeypatch):
    found, own = [], System.losses

    def noted(self, samples, *, objective=None, progress=1.0):
        found.append(progress)
        return own(self, samples, objective=objective, progress=progress)

    monkeypatch.setattr(System, "losses", noted)
    trained(epochs=2)
    count = len(found)
    assert found == pytest.approx([number / count for number in range(count)], abs=1e-12) and count > 3


def test_the_schedules_are_what_training_without_them_is_made_of():
    """Until half of the training, it is that of order 1; a training of two epochs has its second one in order 2."""
    schedule, first = ({"first_order": 0.5}, 2), (None, 1)
    (one, other) = (trained(inner=inner, order=order, epochs=2)[1] for inner, order in (schedule, first))
    assert one[0] == other[0] and one[1] != other[1]


def test_it_learns_with_all_of_them():
    system, history = trained(epochs=6)
    assert history[-1] < history[0]
    rates = [float(p.detach().abs().max()) for p in system.adaptation.step.parameters()]
    assert max(rates) > 1e-3
    assert all(float(system.adaptation.step.rate(n, 0).detach()) > 0 for n in system.adaptation.names)


def test_threads_that_score_while_one_trains_get_the_same_scores():
    system = made().eval()
    queries = last_clicks(SPLIT.test).take(slice(0, 6))
    wanted = system.scores(queries)
    samples = system.training_samples(SPLIT.train).take(slice(0, 12))
    with ThreadPoolExecutor(4) as pool:
        train_too = pool.submit(lambda: [training.gradients(system, samples, progress=p)[0] for p in (0.0, 0.4, 0.9)])
        found = [pool.submit(system.scores, queries) for _ in range(8)]
        assert all(torch.equal(one.result(), wanted) for one in found)
        assert len({round(loss, 6) for loss in train_too.result()}) == 3  # each its own loss


@pytest.mark.parametrize("order", [1, 2])
def test_memory_is_measured_where_a_batch_takes_the_most(order):
    """With all steps' queries, where the last one alone would be less."""
    samples, found = made().training_samples(SPLIT.train).take(slice(0, 12)), []
    for inner in (None, {"multi_step": 0.75}):
        system = made(inner=inner, order=order, steps=3)
        system.parts(samples)
        (measured,) = system.adaptation.activations.values()
        found.append(measured.each)
    assert found[1] > 1.05 * found[0]


def test_a_curve_ends_where_the_rates_do():
    system, samples = made().eval(), last_clicks(SPLIT.test)
    assert list(by_steps(system, samples, steps=range(3)).results) == [0, 1, 2]
    with pytest.raises(InputError, match="rates for 2 steps, not for 3"):
        by_steps(system, samples, steps=[3])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"inner": {"clipp": 1.0}}, "the inner loop takes no 'clipp'; it takes clip"),
        ({"inner": {"clip": "1"}}, "inner\\['clip'\\] must be a number"),
        ({"inner": {"first_order": 0.5}, "order": 1}, "pass order=2 with it"),
        ({"learned": "groups"}, "learned='groups' must be"),
        ({"learned": "per group", "lr": 0.0}, "cannot start at 0"),
    ],
)
def test_options_that_there_are_none_of(arguments, told):
    with pytest.raises(InputError, match=told):
        made(**arguments)


def test_number_is_what_true_is():
    one, other = (made(learned=learned, inner=None) for learned in (True, "per entry"))
    assert one.state_dict().keys() == other.state_dict().keys()
