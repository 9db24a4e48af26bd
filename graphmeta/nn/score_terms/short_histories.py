"""Training on shortened histories of users, so that few earlier sessions, or none, are among what a model has seen."""

from __future__ import annotations

from copy import copy

import torch
from torch_geometric.data import HeteroData

KNOWN = (0, 1, 2, 4, 8, 16)  # sessions that a shortened history has at most, each as likely


def with_short_histories(batch: HeteroData, share: float) -> HeteroData:
    """The batch with a random ``share`` of its samples' histories shortened to their last sessions (``KNOWN``).

    The choice is stored in the batch (``sample.read_sessions``): every call with it reads the same events.

    Source: ours; dropout of the input (Srivastava et al. 2014), of preferences for cold start (DropoutNet, Volkovs et
    al. 2017).
    """
    if "history" not in batch.node_types or not share:
        return batch
    sample, past = batch["sample"], batch["history"]
    if "read_sessions" not in sample:
        number, device = sample.num_nodes, past.n_id.device
        most = torch.tensor(KNOWN, device=device)[torch.randint(len(KNOWN), (number,), device=device)]
        short = torch.rand(number, device=device) < share
        sample.read_sessions = torch.where(short, most, torch.iinfo(torch.int64).max)
    kept = (past.age <= sample.read_sessions[past.batch]).nonzero().squeeze(1)
    shortened = copy(batch)
    for name in ("n_id", "batch", "age", "days"):
        shortened["history"][name] = past[name].index_select(0, kept)
    return shortened
