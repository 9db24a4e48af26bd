"""MetaCF and its rivals against formulas written out: what a step is, what a start is, what never moves."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from graphmeta.adapt.starts.generated import Generated
from graphmeta.errors import InputError
from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.published.models.cold_user import PAPER, user_only_samples
from graphmeta.sampling.few_shot import sampled_tasks, support_from_clicks
from graphmeta.sampling.samples import sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam, Sgd

LOG = fake_log(sessions=60)
META = [row.name for row in CATALOGUE.values() if row.encoder == "bpr_fold_in"]
FAMILY = ["bpr_fold_in", *META]
PEOPLE = [[3], [1, 2, 7, 9, 4], [4, 8, 0]]

pytestmark = pytest.mark.usefixtures("float64")


def made(name, **arguments):
    torch.manual_seed(0)
    users = {"users": LOG.users} if name == "bpr_fold_in" else {}
    return build(name, LOG.items, width=5, **users, **arguments).eval()


def samples(people=PEOPLE):
    return sessions_without_target([np.array(items) for items in people])


def table(system):
    return system.recommender.features.item.weight.detach().numpy()


def test_without_steps_the_constant_start_ranks_equally_for_all():
    system = made("meta_cf_g", steps=0)
    scores = system.scores(samples()).numpy()
    assert (scores.argsort(1) == scores[0].argsort()).all()
    wanted = np.tile(table(system) @ system.recommender.head.vector.detach().numpy(), (len(PEOPLE), 1))
    np.testing.assert_allclose(scores, wanted, atol=1e-12)
    assert np.abs(made("meta_cf_g", steps=1).scores(samples()).numpy() - scores).max(1).min() > 1e-3


def test_without_steps_the_identity_scores_by_the_mean_of_the_items():
    system, q = made("meta_cf_linear", steps=0), table(made("meta_cf_linear"))
    torch.nn.init.eye_(system.adaptation.start.generator.weight)
    wanted = [np.mean([[q[known] @ one for one in q] for known in items], 0) for items in PEOPLE]
    np.testing.assert_allclose(system.scores(samples()).numpy(), wanted, atol=1e-12)


def test_without_steps_the_neural_start_is_two_layers():
    for residual in (False, True):
        system = made("meta_cf_neural", steps=0, residual=residual)
        layers = system.adaptation.start.generator
        w1, b1, w2, b2 = (
            p.detach().numpy() for p in (layers.inner.weight, layers.inner.bias, layers.outer.weight, layers.outer.bias)
        )
        mean = np.stack([table(system)[items].mean(0) for items in PEOPLE])
        vectors = np.maximum(mean @ w1.T + b1, 0) @ w2.T + b2 + (mean if residual else 0)
        np.testing.assert_allclose(system.scores(samples()).numpy(), vectors @ table(system).T, atol=1e-12)


@pytest.mark.parametrize("sums", [False, True])
def test_the_steps_are_gradient_descent_by_hand(sums):
    system = made("meta_cf_g", steps=3, lr=0.3, sums=sums)
    q, support = table(system), support_from_clicks(samples()).batch(num_items=LOG.num_items).support
    items, counts = (part.numpy() for part in system.loss.sample(support, LOG.num_items))
    found, real = system.scores(samples()).numpy(), support["sample"].real.numpy()
    assert counts[real].all()
    for task, known in enumerate(PEOPLE):
        rows = real[real // support.rows["sample"] == task]
        p = system.recommender.head.vector.detach().numpy().copy()
        for _ in range(3):
            slope = np.zeros(5)
            for row in rows:
                target = q[int(support["sample"].target[row])]
                slope -= target / (1 + np.exp(p @ target))
                for negative in q[items[row]]:
                    slope += negative / (1 + np.exp(-p @ negative))
            p -= 0.3 * slope / (1 if sums else len(known))
        np.testing.assert_allclose(found[task], q @ p, atol=1e-12)


def test_melu_without_content_adapts_a_network_of_factor_and_noise():
    system = made("melu_id", steps=0)
    scores = system.scores(samples()).numpy()
    first, last = system.recommender.head.layers[0], system.recommender.head.layers[2]
    w, b, v, c = (p.detach().numpy() for p in (first.weight, first.bias, last.weight, last.bias))
    batch = support_from_clicks(samples()).batch(num_items=LOG.num_items).query
    noise = system.recommender.summary(batch).numpy()
    for task in range(len(PEOPLE)):
        pairs = np.concatenate([table(system), np.tile(noise[task], (LOG.num_items, 1))], 1)
        np.testing.assert_allclose(scores[task], np.maximum(pairs @ w.T + b, 0) @ v[0] + c, atol=1e-12)
    system.adaptation.steps = 2
    assert system.adaptation.names == [f"head.layers.{n}.{p}" for n in (0, 2) for p in ("weight", "bias")]
    assert not np.allclose(system.scores(samples()).numpy(), scores)


def answers(system, tasks):
    losses = system.losses(tasks)
    trained = [p for p in system.parameters() if p.requires_grad]
    return [losses.detach(), *torch.autograd.grad(losses.sum() if system.sums_losses else losses.mean(), trained)]


@pytest.mark.covering
@pytest.mark.parametrize("name", META)
@pytest.mark.parametrize("order", [1, 2])
def test_all_users_stacked_give_what_the_loop_gives(name, order):
    system, tasks = made(name, steps=2, lr=0.5, order=order), sampled_tasks(LOG).take(slice(0, 7))
    for training in (False, True):
        system.train(training)
        together = answers(system, tasks)
        assert not system.adaptation.fell_back
        system.adaptation.stacked = False
        alone = answers(system, tasks)
        system.adaptation.stacked = True
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", META)
def test_second_order_gradients_are_those_of_finite_differences(name):
    system, tasks = made(name, steps=2, lr=0.5, order=2), sampled_tasks(LOG).take(slice(0, 7))
    trained = [p for p in system.parameters() if p.requires_grad]
    _, *slopes = answers(system, tasks)
    assert all(slope.abs().sum() > 0 for slope in slopes)
    random = torch.Generator().manual_seed(1)
    direction = [torch.randn(p.shape, generator=random) for p in trained]
    analytic = sum((slope * d).sum() for slope, d in zip(slopes, direction, strict=True))
    values, small = [], 1e-6
    for sign in (1, -2):
        with torch.no_grad():
            for p, d in zip(trained, direction, strict=True):
                p.add_(sign * small * d)
            values.append(system.losses(tasks).mean())
    torch.testing.assert_close((values[0] - values[1]) / (2 * small), analytic, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", FAMILY)
def test_factors_stay_as_they_are_and_all_else_learns(name):
    system = made(name)
    before = {n: p.detach().clone() for n, p in system.named_parameters()}
    list(train(system, LOG, epochs=2, optimizer=Adam(lr=1e-2), batch_size=30))
    same = {n for n, p in system.named_parameters() if torch.equal(before[n], p)}
    frozen = {"recommender.features.item.weight"} if name != "bpr_fold_in" else set()
    unused = {"recommender.head.vector"} if name in ("meta_cf_linear", "meta_cf_neural") else set()
    assert same == frozen | unused | ({"recommender.head.identity"} if name == "melu_id" else set())


@pytest.mark.parametrize("name", META)
def test_factors_come_from_matrix_factors_of_others(name):
    factors, system = made("bpr_fold_in"), made(name)
    torch.nn.init.normal_(factors.recommender.features.item.weight)
    copied = system.load_matching(factors)
    assert "features.item.weight" in copied
    assert torch.equal(system.recommender.features.item.weight, factors.recommender.features.item.weight)
    if name == "meta_cf_g":
        assert torch.equal(system.recommender.head.vector, factors.recommender.head.vector)


def test_matrix_factors_are_learned_from_every_click():
    system = made("bpr_fold_in", negatives=2, penalty=0.1)
    system.fit_statistics(LOG)
    losses = system.losses(user_only_samples(LOG)).detach().numpy()
    q, head = table(system), system.recommender.head
    user = LOG.session_user[LOG.session]
    vectors = (head.vector + head.users.user.weight).detach().numpy()
    assert len(losses) == LOG.num_events
    items, counts = system.loss.sample(session_batch(user_only_samples(LOG), num_items=LOG.num_items), LOG.num_items)
    for row in range(0, LOG.num_events, 17):
        p = vectors[user[row]]
        wanted = np.log1p(np.exp(-p @ q[LOG.item[row]])) + 0.1 * (p @ p + q[LOG.item[row]] @ q[LOG.item[row]])
        wanted += sum(np.log1p(np.exp(p @ q[item])) + 0.1 * q[item] @ q[item] for item in items[row][counts[row]])
        np.testing.assert_allclose(losses[row], wanted, atol=1e-12)


def test_folding_in_is_descent_on_the_users_loss_and_l2_term():
    """Eq 3: of the L2 term of eq 2 only the user's part is left, because factors are frozen."""
    system = made("bpr_fold_in", negatives=2, penalty=0.1, steps=3, lr=0.3)
    torch.nn.init.normal_(system.recommender.features.item.weight)
    q, support = table(system), support_from_clicks(samples()).batch(num_items=LOG.num_items).support
    items, counts = (part.numpy() for part in system.loss.sample(support, LOG.num_items))
    real, query = support["sample"].real.numpy(), support_from_clicks(samples()).batch(num_items=LOG.num_items).query
    starts, found = system.recommender.summary(query).detach().numpy(), system.scores(samples()).numpy()
    assert counts[real].all()
    for task, known in enumerate(PEOPLE):
        rows, p = real[real // support.rows["sample"] == task], starts[task].copy()
        for _ in range(3):
            slope = 0.2 * len(known) * p
            for row in rows:
                target = q[int(support["sample"].target[row])]
                slope -= target / (1 + np.exp(p @ target))
                for negative in q[items[row]]:
                    slope += negative / (1 + np.exp(-p @ negative))
            p -= 0.3 * slope / len(known)
        np.testing.assert_allclose(found[task], q @ p, atol=1e-12)


def test_negatives_of_a_step_are_independent_of_the_query_and_those_of_the_query_exclude_both():
    system = made("meta_cf_g", negatives=8)
    tasks = sampled_tasks(LOG)
    number = np.arange(len(tasks.query))
    other = replace(tasks, query=replace(tasks.query, target=(tasks.query.target + 7 + number) % LOG.num_items))
    batch, changed = (one.batch(num_items=LOG.num_items) for one in (tasks, other))
    steps, same = (system.loss.sample(one.support, LOG.num_items)[0] for one in (batch, changed))
    assert torch.equal(steps, same)
    asked, real = system.loss.sample(batch.query, LOG.num_items)[0], batch.query["sample"].real.tolist()
    chosen, shared = batch.support["sample"].real.tolist(), 0
    for task in range(len(tasks)):
        known, wanted = (
            set(part.target[a:b].tolist())
            for part, (a, b) in (
                (tasks.support, tasks.support_ptr[task : task + 2]),
                (tasks.query, tasks.query_ptr[task : task + 2]),
            )
        )
        of_steps = {i for row in chosen if row // batch.support.rows["sample"] == task for i in steps[row].tolist()}
        of_query = {i for row in real if row // batch.query.rows["sample"] == task for i in asked[row].tolist()}
        assert not known & of_steps and not (known | wanted) & of_query
        shared += len(wanted & of_steps)
    assert shared > 0  # as documented


def test_a_new_user_is_folded_in_from_deterministic_noise():
    system = made("bpr_fold_in")
    torch.nn.init.normal_(system.recommender.head.users.user.weight)
    anybody = system.scores(samples())
    known = sessions_without_target([np.array(items) for items in PEOPLE], users=np.array([0, 5, -1]))
    assert torch.equal(system.scores(known), anybody)
    assert (anybody[0] - system.scores(samples([[3]]))[0]).abs().max() < 1e-12
    system.adaptation.steps = 0
    start = system.scores(samples())
    assert not torch.allclose(start[0], start[1]) and not torch.allclose(start, anybody)


@pytest.mark.filterwarnings("ignore:.* does not read")
def test_the_papers_preset_descends_on_sums():
    name = "meta_cf_linear"
    preset = PAPER[name]
    assert preset.optimizer == Sgd(lr=1e-6) and preset.lr == 2e-3
    summed, meant = (made(name, lr=0.1, sums=sums, steps=0).train() for sums in (True, False))
    tasks = sampled_tasks(LOG)
    torch.manual_seed(4)
    total = answers(summed, tasks)
    alone = answers(meant, tasks)
    torch.testing.assert_close(total[0].sum(), alone[0].sum())
    torch.testing.assert_close(total[1], alone[1] * len(alone[0]))
    weight = summed.adaptation.start.generator.weight
    before = weight.detach().clone()
    torch.manual_seed(1_000_003 * 0 + 0)
    slope = answers(summed, sampled_tasks(LOG, seed=0))[1]
    list(train(summed, LOG, epochs=1, optimizer=preset.optimizer, batch_size=1000, seed=0))
    torch.testing.assert_close(weight.detach(), before - 1e-6 * slope, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_preset_has_the_printed_start(name):
    system = made(name, **PAPER[name].arguments())
    system.adaptation.steps = 0
    q, mean = table(system), np.stack([table(system)[items].mean(0) for items in PEOPLE])
    if name == "meta_cf_g":
        starts = np.tile(system.recommender.head.vector.detach().numpy(), (len(PEOPLE), 1))
    elif name == "meta_cf_linear":
        starts = mean @ system.adaptation.start.generator.weight.detach().numpy().T
    else:
        w1, b1, w2, b2 = (p.detach().numpy() for p in system.adaptation.start.generator.parameters())
        starts = np.maximum(mean @ w1.T + b1, 0) @ w2.T + b2
    np.testing.assert_allclose(system.scores(samples()).numpy(), starts @ q.T, atol=1e-12)


@pytest.mark.parametrize("name", FAMILY)
def test_one_known_item_is_enough(name):
    system = made(name)
    assert len(system.recommend([LOG.items.ids[3]], k=5, exclude_seen=True)) == 5


def test_generating_what_does_not_exist_is_refused():
    system = made("meta_cf_linear")
    with pytest.raises(InputError, match=r"no parameter is called 'head.vektor'; there are: features.item.weight, "):
        Generated("head.vektor", torch.nn.Identity()).bind(system.recommender)


@pytest.mark.parametrize("sums", [False, True])
def test_users_in_chunks_train_as_all_at_once(sums):
    def learned(task_chunk):
        system = made("meta_cf_g", steps=1, lr=0.1, sums=sums)
        system.adaptation.task_chunk = task_chunk
        torch.manual_seed(0)
        losses = [report.loss for report in train(system, LOG, epochs=2, optimizer=Adam(lr=0.01), batch_size=1000)]
        return losses, [p.detach() for p in system.parameters() if p.requires_grad]

    torch.testing.assert_close(learned(3), learned(None))
