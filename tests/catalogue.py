"""Any system of the catalogue, small and with its statistics fitted, and what it is trained on."""

import warnings

import torch

from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.published.parts import with_score_terms
from graphmeta.sampling.samples import last_clicks
from graphmeta.testing import fake_log, fake_ratings

LOG, RATINGS = fake_log(sessions=40, items=12), fake_ratings(users=6)


def sized(name, width):
    """The width of a system, as arguments; none for a system that only counts."""
    return {} if CATALOGUE[name].counts else {"width": width}


def made(name, arguments, score_terms=()):
    """The system, untrained, and five samples of it (of a rating system: five users)."""
    torch.manual_seed(0)
    log = RATINGS if CATALOGUE[name].predicts_ratings else LOG
    system = build(name, log.items, users=log.users, **sized(name, 8), **arguments)
    if score_terms:
        with_score_terms(system, score_terms)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        system.fit_statistics(log)
    every = system.training_samples(log) if CATALOGUE[name].predicts_ratings else last_clicks(log)
    return system, every.take(slice(0, 5))
