"""What holds for every row of the catalogue: the encoder contract, learning, saving, scores without batch-mates."""

import numpy as np
import pytest
import torch

from graphmeta.data.splits import split_by_time
from graphmeta.datasets.session_logs import complete_journey
from graphmeta.published.catalogue import CATALOGUE, RANKING, TRAINED, build
from graphmeta.published.load import load
from graphmeta.sampling.samples import Samples, last_clicks
from graphmeta.system import System
from graphmeta.testing import check_encoder, fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam
from tests.catalogue import sized

WIDTH = 8
FAKE = fake_log(sessions=60)


@pytest.fixture(scope="module")
def baskets():
    """The last 130 sessions of the bundled dataset, cut in time."""
    log = complete_journey()
    return split_by_time(log.of_sessions(np.arange(log.num_sessions) >= log.num_sessions - 130))


def untrained(name: str, log=FAKE) -> System:
    torch.manual_seed(0)
    return build(name, log.items, users=log.users, **sized(name, WIDTH))


@pytest.mark.slow  # tests/nn checks the encoders; here they are as the systems have them
@pytest.mark.parametrize("name", [name for name in TRAINED if CATALOGUE[name].encoder is None])  # the others wrap these
def test_its_encoder_keeps_the_contract(name):
    system = untrained(name).requires_grad_()
    x, _ = system.recommender.features(torch.arange(3))
    report = check_encoder(lambda width: system.recommender.encoder, width=x.shape[1])
    assert report.ok, report


def training_loss(system: System, samples: Samples) -> float:
    torch.manual_seed(1)
    return float(system.eval().losses(samples).detach().mean())


@pytest.mark.filterwarnings("ignore:.*next click")
@pytest.mark.filterwarnings("ignore:.*statistics_log=")
@pytest.mark.filterwarnings("ignore:personal_reranker ignores item columns")  # department and brand
@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.by_kind
def test_it_learns_on_the_bundled_dataset(name, baskets):
    system = untrained(name, baskets.train)
    samples = system.training_samples(baskets.train).take(slice(0, 100))
    system.fit_statistics(baskets.train)
    before = training_loss(system, samples)
    epochs = 2 if name == "dropout_net" else 1  # half of its training samples have no item vectors
    list(train(system, baskets.train, epochs=epochs, optimizer=Adam(lr=1e-2), batch_size=32))
    assert training_loss(system, samples) < before


@pytest.mark.filterwarnings("ignore:.*next click")
@pytest.mark.parametrize("name", RANKING)
def test_scores_do_not_depend_on_the_batch_and_survive_saving(name, tmp_path):
    system = untrained(name).eval()
    system.fit_statistics(FAKE)
    samples = last_clicks(FAKE).take(slice(0, 4))
    together = system.scores(samples)
    alone = torch.cat([system.scores(samples.take(slice(s, s + 1))) for s in range(len(samples))])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    system.save(tmp_path)
    torch.testing.assert_close(load(tmp_path).eval().scores(samples), together, rtol=0, atol=0)
