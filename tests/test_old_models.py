"""Models saved by the last version (format 3, which had other names) load, with the same scores."""

import json
from pathlib import Path

import pytest
import torch

from graphmeta.published.load import load
from graphmeta.sampling.samples import last_clicks
from graphmeta.testing import fake_log

SAVED = sorted((Path(__file__).parent / "saved" / "format3").iterdir())


@pytest.mark.parametrize("folder", SAVED, ids=lambda folder: folder.name)
def test_a_model_of_the_last_version_scores_as_it_did(folder, tmp_path):
    queries = last_clicks(fake_log(sessions=40, items=12)).take(slice(0, 3))
    wanted = torch.tensor(json.loads((folder / "scores.json").read_text()))
    system = load(folder)
    torch.testing.assert_close(system.scores(queries), wanted, rtol=1e-6, atol=1e-6)
    system.save(tmp_path)
    torch.testing.assert_close(load(tmp_path).scores(queries), system.scores(queries), rtol=0, atol=0)
