"""check_encoder passes sound encoders and names what is wrong with unsound ones."""

from functools import cache

import pytest
import torch
from torch import nn
from torch_geometric.nn import EGConv, GATv2Conv

from graphmeta.errors import InputError
from graphmeta.nn.encoders.attention import from_dense, to_dense
from graphmeta.sampling.batch_rows import NEXT
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


class ReadsTheAnswer(Sound):
    def forward(self, x, batch):
        return super().forward(x, batch) + batch["sample"].target[batch["event"].batch, None]


class ReadsItInTraining(ReadsTheAnswer):
    """Teacher forcing: nothing is wrong until it is trained."""

    def forward(self, x, batch):
        return super().forward(x, batch) if self.training else Sound.forward(self, x, batch)


class BatchNorm(Sound):
    """In eval mode a sample is on its own, in training it is not."""

    def __init__(self, width):
        super().__init__(width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x, batch):
        return self.norm(super().forward(x, batch))


class CentredInTraining(Sound):
    """The same by hand: no module tells."""

    def forward(self, x, batch):
        states = super().forward(x, batch)
        return states - states.mean(0) if self.training else states


class Dropping(Sound):
    """Chance within a sample is no other sample."""

    def __init__(self, width):
        super().__init__(width)
        self.conv, self.drop = GATv2Conv(width, width, dropout=0.3), nn.Dropout(0.3)

    def forward(self, x, batch):
        return nn.functional.dropout(super().forward(self.drop(x), batch), 0.2, self.training)


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
        return super().forward(x, batch) @ torch.linalg.matrix_exp(self.weight)


class TimeMajor(Sound):
    """Has the rows of tasks in the second dimension for a while."""

    def __init__(self, width):
        super().__init__(width)
        self.weight = nn.Parameter(torch.randn(width, width))

    def forward(self, x, batch):
        dense, _ = to_dense(x[batch["event"].item], batch)
        mixed = dense.transpose(0, 1).reshape(-1, dense.shape[2]) @ self.weight
        return from_dense(mixed.reshape(dense.shape[1], dense.shape[0], -1).transpose(0, 1), batch)


class FusedAttention(Sound):
    """Attention over all rows at once, with a mask; torch's fused form has no second derivative on the CPU."""

    def __init__(self, width):
        super().__init__(width)
        self.attention = nn.Linear(width, width)

    def forward(self, x, batch):
        q = self.attention(x[batch["event"].item])[None, None]
        same = (batch["event"].batch[:, None] == batch["event"].batch[None])[None, None]
        return nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=same)[0, 0]


@cache
def report_of(factory):
    """The report on an encoder; the default dtype and the random state come back."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    report = check_encoder(factory)
    assert torch.get_default_dtype() is torch.float32
    assert torch.equal(torch.rand(1), expected)
    return report


@pytest.mark.parametrize("sound", [Sound, Dropping, pytest.param(FusedAttention, marks=pytest.mark.slow)])
def test_a_sound_encoder_passes(sound):
    report = report_of(sound)
    assert report.ok, str(report)
    assert ("falls back" in str(report)) == (sound is FusedAttention)  # attention across samples, masked


@pytest.mark.parametrize(
    ("broken", "name", "found"),
    [
        (Leaks, "samples are independent", "difference"),
        pytest.param(ReadsTheAnswer, "targets are not read", "difference 1.0e+00", marks=pytest.mark.slow),
        (ReadsItInTraining, "targets are not read", "difference 1.0e+00"),
        pytest.param(
            BatchNorm, "samples are independent in training", "gradient between samples", marks=pytest.mark.slow
        ),
        (CentredInTraining, "samples are independent in training", "gradient between samples"),
        (ItemRows, "shape", "15, 8) for 18 clicks"),
        (NotFinite, "shape", "finite"),
        (Breaks, "shape", "RuntimeError"),
    ],
)
def test_what_is_broken_is_named(broken, name, found):
    report = report_of(broken)
    failed = {check.name: check.found for check in report.checks if not check.ok}
    assert not report.ok
    assert any(key.startswith(name) or name in key for key in failed), str(report)
    assert found in str(report)


class OneClick(Sound):
    """PyG's EGConv counts the nodes of its self-loops by the edges, of which a session of one click has none."""

    def __init__(self, width):
        super().__init__(width)
        self.conv = EGConv(width, width, num_heads=2, num_bases=2, aggregators=["sum"])

    def forward(self, x, batch):
        return self.conv(x, batch[NEXT].edge_index)[batch["event"].item]


class StopGradient(Sound):
    def forward(self, x, batch):
        states = super().forward(x, batch)
        return states + torch.tanh(states.detach())


class Padded(Sound):
    """A table whose row 0 is not learned, though it is read."""

    def __init__(self, width):
        super().__init__(width)
        self.position = nn.Embedding(9, width, padding_idx=0)
        nn.init.ones_(self.position.weight)

    def forward(self, x, batch):
        return super().forward(x, batch) + self.position(batch["event"].order)


class WeightNorm(Sound):
    """torch's weight_norm has a wrong second derivative."""

    def __init__(self, width):
        super().__init__(width)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(width, width))

    def forward(self, x, batch):
        return self.normed(super().forward(x, batch))


KEPT = {}


class Remembers(Sound):
    """Keeps what it has seen in a place that all calls share."""

    def forward(self, x, batch):
        states = super().forward(x, batch)
        KEPT["calls"] = KEPT.get("calls", 0) + 1
        return states + KEPT["calls"]


class Global(Sound):
    """Reads a weight around the module."""

    def __init__(self, width):
        super().__init__(width)
        self.beside = nn.Linear(width, width)
        KEPT["layer"] = self.beside

    def forward(self, x, batch):
        return KEPT["layer"](super().forward(x, batch))


@pytest.mark.parametrize("odd", [pytest.param(StopGradient, marks=pytest.mark.slow), Padded])
def test_what_may_be_on_purpose_is_a_note(odd):
    report = report_of(odd)
    assert report.ok, str(report)
    (note,) = [check for check in report.checks if check.on_purpose]
    assert note.name == "second order" and "stop-gradient, straight-through or padding" in note.found
    assert str(report).count("note ") == 1


def test_dropout_is_a_note():
    (note,) = [check for check in report_of(Dropping).checks if check.on_purpose]
    assert note.name == "training and eval" and "dropout" in note.found


@pytest.mark.parametrize(
    ("wrong", "name", "cause"),
    [
        (OneClick, "samples are independent", "the states of a session of 1 click differ"),
        (WeightNorm, "second order", "double backward is wrong"),
        (Global, "weights are read from their modules", "encoder.beside.weight"),
        (Remembers, "threads", "stores state between calls"),
    ],
)
def test_the_cause_is_named(wrong, name, cause):
    report = report_of(wrong)
    found = {check.name: check.found for check in report.checks if not check.ok}
    assert not report.ok and cause in found[name] and "\n" not in found[name], str(report)


@pytest.mark.slow  # as below, in more steps of the loop
def test_an_unknown_operation_is_named_but_allowed():
    report = report_of(UnknownOp)
    assert report.ok, str(report)
    assert "matrix_exp" in str(report)


@pytest.mark.parametrize("odd", [TimeMajor])
def test_rows_that_cannot_be_followed_are_left_to_the_loop(odd):
    report = report_of(odd)
    assert report.ok, str(report)
    assert "the rows of tasks" in str(report) and "falls back" in str(report)


@pytest.mark.parametrize(
    "trap", [ReadsItInTraining, pytest.param(BatchNorm, marks=pytest.mark.slow), CentredInTraining]
)
def test_what_shows_in_training_alone_fails_no_other_check(trap):
    failed = [check.name for check in report_of(trap).checks if not check.ok and not check.on_purpose]
    assert len(failed) == 1, failed


def test_the_encoder_is_left_in_eval_mode():
    encoder = BatchNorm(8)
    check_encoder(lambda width: encoder)
    assert not any(part.training for part in encoder.modules())


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        (lambda: Sound(8), "TypeError: .*takes 0 positional arguments"),
        (lambda width: GATv2Conv(width, 1 // 0), "ZeroDivisionError: integer division"),
        (lambda width: None, "but NoneType"),
        (lambda width: Sound, "but type"),
    ],
)
def test_a_factory_that_makes_no_encoder_is_an_error(factory, told):
    with pytest.raises(InputError, match=rf"no encoder of width 8.*{told}.*; a factory takes the width") as raised:
        check_encoder(factory)
    assert "\n" not in str(raised.value)


def test_fake_log_has_a_known_right_answer():
    log = fake_log(sessions=30)
    number = [int(name[1:]) for name in log.items.ids]
    for session in range(30):
        walk = [number[i] for i in log.item[log.session == session]]
        assert all((b - a) % 40 == 1 for a, b in zip(walk, walk[1:], strict=False))
