"""Recurrent layers by their equations, with derivatives of every order and per-task weights."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from graphmeta.adapt.stacked.notes import Rows
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.adapt.stacked.task_value import TaskValue
from graphmeta.errors import UnsupportedOp

Mode = TorchFunctionMode
RECURRENT = ("gru", "lstm", "rnn_tanh", "rnn_relu")


def without_cudnn(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A recurrent layer by PyTorch's native kernels, which have derivatives of every order."""
    if not args[0].is_cuda:
        return func(*args, **kwargs)
    with _CUDNN:  # the flag is global to the process: one thread at a time
        before = torch._C._get_cudnn_enabled()
        torch._C._set_cudnn_enabled(False)
        try:
            return func(*args, **kwargs)
        finally:
            torch._C._set_cudnn_enabled(before)


_CUDNN = Lock()


def gru_step(from_input: Tensor, from_state: Tensor, state: Tensor) -> Tensor:
    """One GRU step from the projected input and state ``[…, 3·D]`` (reset, update, new), as ``torch.nn.GRUCell``."""
    (xr, xz, xn), (hr, hz, hn) = from_input.chunk(3, -1), from_state.chunk(3, -1)
    update = torch.sigmoid(xz + hz)
    new = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
    return new + update * (state - new)


def lstm_step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One LSTM step from the summed gates ``[…, 4·D]`` (input, forget, cell, output), as ``torch.nn.LSTMCell``."""
    i, f, g, o = gates.chunk(4, -1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def gru_cell(
    mode: Mode, x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """``torch.gru_cell``: ``[S, D]`` and ``[S, H]`` -> ``[S, H]``."""
    h = _beside(mode, h, x)
    return gru_step(F.linear(x, w_ih, b_ih), F.linear(h, w_hh, b_hh), h)


def lstm_cell(
    mode: Mode,
    x: Tensor,
    state: Any,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``torch.lstm_cell``: ``[S, D]`` and two of ``[S, H]`` -> two of ``[S, H]``."""
    h, c = (_beside(mode, part, x) for part in state)
    return lstm_step(F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh), c)


def rnn_cell(activation: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """``torch.rnn_tanh_cell`` or ``rnn_relu_cell``."""

    def step(
        mode: Mode,
        x: Tensor,
        h: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> Tensor:
        return activation(F.linear(x, w_ih, b_ih) + F.linear(_beside(mode, h, x), w_hh, b_hh))

    return step


def _beside(mode: Mode, h: Tensor, x: Tensor) -> Tensor:
    """A state with one row for each row of ``x``, marked as rows of the same tasks."""
    if isinstance(mode, Stack) and not isinstance(h, TaskValue):
        with torch._C.DisableTorchFunction():
            own, other, met = mode.note(x), mode.note(h), mode.met(h)
        if type(own) is Rows and type(other) is not Rows and not met:
            return mode.mark(h.view_as(h), Rows(mode, h.dim() - (x.dim() - own.dim), own.owner))
    return h


def plain_sequence(args: tuple[Any, ...]) -> str | None:
    """The reason why these arguments of a recurrent layer are not a padded batch; None if they are."""
    if len(args) != 9 or not isinstance(args[2], (list, tuple)):
        return "packed"
    return None if args[0].dim() == 3 else "without a batch dimension"


def recurrent(name: str) -> Callable[..., Any]:
    """``torch.gru``, ``lstm``, ``rnn_tanh`` or ``rnn_relu`` over a padded block ``[S, L, D]`` (or ``[L, S, D]``)."""

    def run(mode: Mode, *args: Any, **kwargs: Any) -> Any:
        reason = "called by keywords" if kwargs else plain_sequence(args)
        if reason is not None:
            raise UnsupportedOp(f"a recurrent layer ({name}) that is {reason}")
        x, state, weights, biased, layers, dropout, training, bidirectional, batch_first = args
        sides, time = 1 + bool(bidirectional), 1 if batch_first else 0
        each = len(weights) // (layers * sides)
        ends: list[Any] = []
        for layer in range(layers):
            outs = []
            for side in range(sides):
                at = layer * sides + side
                own = list(weights[at * each : (at + 1) * each])
                first = tuple(part[at] for part in state) if name == "lstm" else state[at]
                out, end = _run_layer(mode, name, x, first, _Layer(own, biased), time, backwards=side == 1)
                outs.append(out)
                ends.append(end)
            x = outs[0] if sides == 1 else torch.cat(outs, -1)
            if dropout and training and layer < layers - 1:
                x = F.dropout(x, dropout)
        if name == "lstm":
            return x, torch.stack([h for h, _ in ends]), torch.stack([c for _, c in ends])
        return x, torch.stack(ends)

    return run


class _Layer:
    """The weights of one direction of one recurrent layer, in torch's order."""

    def __init__(self, weights: list[Tensor], biased: bool) -> None:
        self.w_x, self.w_h = weights[:2]
        self.b_x, self.b_h = weights[2:4] if biased else (None, None)
        rest = weights[4 if biased else 2 :]
        self.project = rest[0] if rest else None


def _run_layer(
    mode: Mode, name: str, x: Tensor, state: Any, layer: _Layer, time: int, *, backwards: bool
) -> tuple[Tensor, Any]:
    projected = F.linear(x, layer.w_x, layer.b_x).unbind(time)
    out = []
    state = (
        tuple(_beside(mode, s, projected[0]) for s in state) if name == "lstm" else _beside(mode, state, projected[0])
    )
    for step in reversed(projected) if backwards else projected:
        if name == "lstm":
            h, c = lstm_step(step + F.linear(state[0], layer.w_h, layer.b_h), state[1])
            state = (h if layer.project is None else F.linear(h, layer.project)), c
            out.append(state[0])
            continue
        from_state = F.linear(state, layer.w_h, layer.b_h)
        if name == "gru":
            state = gru_step(step, from_state, state)
        else:
            state = (torch.tanh if name == "rnn_tanh" else torch.relu)(step + from_state)
        out.append(state)
    return torch.stack(out[::-1] if backwards else out, time), state


CELLS: dict[str, Callable[..., Any]] = {
    "gru_cell": gru_cell,
    "lstm_cell": lstm_cell,
    "rnn_tanh_cell": rnn_cell(torch.tanh),
    "rnn_relu_cell": rnn_cell(torch.relu),
}
