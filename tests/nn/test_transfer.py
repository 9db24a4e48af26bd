"""The transfer net against its formula, at weights set by hand, and at rows of zeros; the table that is made lazily."""

import pytest
import torch
import torch.nn.functional as F

from graphmeta.retrain.transfer_net import TransferNet, TransferredTable


def by_loops(net: TransferNet, old, new):
    """The formula of one row, dimension by dimension."""

    def gelu(x):
        return x * torch.sigmoid(1.702 * x)

    dot = old * new / (old.norm() + 1e-8)
    columns = []
    for m in range(len(old)):
        three = torch.stack([old[m], new[m], dot[m]])
        h1 = [gelu(row @ three + net.first.bias[j]) for j, row in enumerate(net.first.weight)]
        columns.append([gelu(row @ torch.stack(h1) + net.second.bias[j]) for j, row in enumerate(net.second.weight)])
    flat = torch.stack([column[j] for j in range(len(columns[0])) for column in columns])
    return net.out.weight @ gelu(net.full.weight @ flat + net.full.bias) + net.out.bias


@pytest.fixture
def rows(float64):
    torch.manual_seed(0)
    return torch.randn(5, 6), torch.randn(5, 6)


def test_each_row_is_the_formula(rows):
    net = TransferNet(6, hidden=7)
    expected = torch.stack([by_loops(net, old, new) for old, new in zip(*rows, strict=True)])
    torch.testing.assert_close(net(*rows), expected)


def test_the_paper_counts_so_many_weights():
    assert sum(weight.numel() for weight in TransferNet(64).parameters()) == 197_279


def test_weights_set_by_hand_return_the_new_row(rows):
    # G(x) − G(−x) = x, so a pair of filters with opposite signs carries a value through G unharmed.
    net = TransferNet(6, hidden=12)
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
        net.first.weight[0, 1], net.first.weight[1, 1] = 1, -1
        net.second.weight[0, :2] = torch.tensor([1.0, -1.0])
        net.second.weight[1, :2] = torch.tensor([-1.0, 1.0])
        for m in range(6):  # the flat H² holds the first filter's dimensions, then the second's
            net.full.weight[m, [m, 6 + m]] = torch.tensor([1.0, -1.0])
            net.full.weight[6 + m, [m, 6 + m]] = torch.tensor([-1.0, 1.0])
            net.out.weight[m, [m, 6 + m]] = torch.tensor([1.0, -1.0])
    torch.testing.assert_close(net(*rows), rows[1], rtol=0, atol=1e-14)


def test_an_untrained_residual_net_is_fine_tuning(rows):
    assert torch.equal(TransferNet(6, residual=True)(*rows), rows[1])


@pytest.mark.parametrize("detach_dot", [True, False])
def test_zero_rows_give_finite_results_and_gradients(rows, detach_dot):
    net, old, new = TransferNet(6, detach_dot=detach_dot), rows[0].clone(), rows[1].clone()
    old[0], new[1], old[2], new[2] = 0, 0, 0, 0
    old.requires_grad_()
    new.requires_grad_()
    made = net(old, new)
    made.square().sum().backward()
    for tensor in (made, old.grad, new.grad, *(weight.grad for weight in net.parameters())):
        assert tensor.isfinite().all()


def test_the_detached_row_has_no_gradient(rows):
    net, (old, new) = TransferNet(6), rows
    with torch.no_grad():
        net.first.weight[:, :2] = 0  # nothing but the product is read
    new = new.clone().requires_grad_()
    net(old, new).sum().backward()
    assert not new.grad.any()
    net.detach_dot, new.grad = False, None
    net(old, new).sum().backward()
    assert new.grad.any()


def test_looked_up_rows_are_those_of_the_whole_table_and_so_are_gradients(rows):
    net, (old, new) = TransferNet(6), rows
    index = torch.tensor([3, 0, 3, 1])
    lazy, whole = new.clone().requires_grad_(), new.clone().requires_grad_()
    table = TransferredTable(net, old, lazy)
    found, expected = F.embedding(index, table), net(old, whole)[index]
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(expected)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(lazy.grad, whole.grad)
    assert table.rows[0].tolist() == [0, 1, 3] and table.whole is None
    torch.testing.assert_close(F.linear(old, table), old @ net(old, new).t())
    assert len(table) == 5 and table.shape == (5, 6)
