"""Models saved by earlier versions (formats 3 and 4, which had other names) load, with the same scores."""

import json
from pathlib import Path

import pytest
import torch

from graphmeta.errors import InputError
from graphmeta.published.load import load
from graphmeta.sampling.samples import last_clicks
from graphmeta.testing import fake_log

FOLDER = Path(__file__).parent / "saved"
SAVED = sorted(FOLDER.glob("format*/*"))


@pytest.mark.parametrize("folder", SAVED, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_a_model_of_an_earlier_version_scores_as_it_did(folder, tmp_path):
    queries = last_clicks(fake_log(sessions=40, items=12)).take(slice(0, 3))
    wanted = torch.tensor(json.loads((folder / "scores.json").read_text()))
    system = load(folder)
    torch.testing.assert_close(system.scores(queries), wanted, rtol=1e-6, atol=1e-6)
    system.save(tmp_path)
    torch.testing.assert_close(load(tmp_path).scores(queries), system.scores(queries), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["global_gnn", "wavenet"])  # the second is wrapped by cbml
def test_systems_that_were_other_models_are_refused_with_their_reason(name):
    reason = f"saved by an earlier version of the library, whose {name} was another model; fit it again"
    with pytest.raises(InputError, match=reason):
        load(FOLDER / "refused" / name)
