"""check_encoder passes sound encoders and names what is wrong with unsound ones."""

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATv2Conv

from graphmeta.batch import NEXT
from graphmeta.nn.attention import from_dense, to_dense
from graphmeta.testing import check_encoder, fake_log


class Sound(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = GATv2Conv(width, width)

    def forward(self, x, batch):
        return self.conv(x, batch[NEXT].edge_index)[batch["event"].item]


class Leaks(Sound):
    def forward(self, x, batch):
        return super().forward(x, batch) - x.mean(0)


class ItemRows(Sound):
    def forward(self, x, batch):
        return self.conv(x, batch[NEXT].edge_index)


class NotFinite(Sound):
    def forward(self, x, batch):
        return super().forward(x, batch) / 0


class Breaks(Sound):
    def forward(self, x, batch):
        return x @ torch.zeros(1, 1)


class UnknownOp(Sound):
    def __init__(self, width):
        super().__init__(width)
        self.weight = nn.Parameter(torch.randn(width, width))

    def forward(self, x, batch):
        return torch.einsum("ij,jk->ik", super().forward(x, batch), self.weight)


class TimeMajor(Sound):
    """Reorders rows across tasks: the same shape, but other tasks' weights."""

    def __init__(self, width):
        super().__init__(width)
        self.weight = nn.Parameter(torch.randn(width, width))

    def forward(self, x, batch):
        dense, _ = to_dense(x[batch["event"].item], batch)
        mixed = dense.transpose(0, 1).reshape(-1, dense.shape[2]) @ self.weight
        return from_dense(mixed.reshape(dense.shape[1], dense.shape[0], -1).transpose(0, 1), batch)


class FusedAttention(Sound):
    """torch's fused attention has no second derivative on the CPU."""

    def __init__(self, width):
        super().__init__(width)
        self.attention = nn.Linear(width, width)

    def forward(self, x, batch):
        q = self.attention(x[batch["event"].item])[None, None]
        same = (batch["event"].batch[:, None] == batch["event"].batch[None])[None, None]
        return nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=same)[0, 0]


def test_a_sound_encoder_passes():
    report = check_encoder(Sound)
    assert report.ok, str(report)
    assert "falls back" not in str(report)


@pytest.mark.parametrize(
    ("broken", "name", "found"),
    [
        (Leaks, "samples do not see each other", "difference"),
        (ItemRows, "shape", "14, 8) for 17 clicks"),
        (NotFinite, "shape", "finite"),
        (Breaks, "shape", "RuntimeError"),
        (TimeMajor, "stacked = loop", "difference"),
        (FusedAttention, "stacked", "not implemented"),
    ],
)
def test_what_is_broken_is_named(broken, name, found):
    report = check_encoder(broken)
    failed = {check.name: check.found for check in report.checks if not check.ok}
    assert not report.ok
    assert any(key.startswith(name) or name in key for key in failed), str(report)
    assert found in str(report)


def test_an_unknown_operation_is_named_but_allowed():
    report = check_encoder(UnknownOp)
    assert report.ok, str(report)
    assert "einsum" in str(report)


def test_the_default_dtype_and_the_random_state_come_back():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    check_encoder(Sound)
    assert torch.get_default_dtype() is torch.float32
    assert torch.equal(torch.rand(1), expected)


def test_fake_log_has_a_known_right_answer():
    log = fake_log(sessions=30)
    number = [int(name[1:]) for name in log.items.ids]
    for session in range(30):
        walk = [number[i] for i in log.item[log.session == session]]
        assert all((b - a) % 40 == 1 for a, b in zip(walk, walk[1:], strict=False))
