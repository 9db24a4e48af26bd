"""Norms, activations and convolutions with per-task weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphmeta.adapt.stacked.arguments import given
from graphmeta.adapt.stacked.notes import Rows, name_of
from graphmeta.adapt.stacked.operations.base import Args, Kwargs, composed, handles, stacked
from graphmeta.adapt.stacked.operations.products import split_by_task
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.adapt.stacked.task_value import TaskValue
from graphmeta.errors import UnsupportedOp


@composed("layer_norm")
def _layer_norm(
    stack: Stack,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    if isinstance(input, TaskValue):
        raise UnsupportedOp("layer_norm of a per-task weight")
    out = F.layer_norm(input, normalized_shape, eps=eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


@composed("rms_norm")
def _rms_norm(
    stack: Stack, input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    if isinstance(input, TaskValue):
        raise UnsupportedOp("rms_norm of a per-task weight")
    out = F.rms_norm(input, normalized_shape, eps=eps)
    return out if weight is None else out * weight


def _by_channel(x: Tensor, value: Tensor) -> Tensor:
    """A value per channel, reshaped to broadcast along dimension 1 of ``x``."""
    return value if x.dim() <= 2 else value.reshape(-1, *(1,) * (x.dim() - 2))


@composed("group_norm")
def _group_norm(
    stack: Stack,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    if isinstance(input, TaskValue):
        raise UnsupportedOp("group_norm of a per-task weight")
    out = F.group_norm(input, num_groups, eps=eps)
    out = out if weight is None else out * _by_channel(input, weight)
    return out if bias is None else out + _by_channel(input, bias)


@composed("batch_norm")
def _batch_norm(
    stack: Stack,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    *rest: Any,
    **more: Any,
) -> Tensor:
    if training or running_mean is None or running_var is None or isinstance(input, TaskValue):
        raise UnsupportedOp("batch_norm over the samples of a batch, which mixes tasks,")
    out = F.batch_norm(input, running_mean, running_var, None, None, False, *rest, **more)
    out = out if weight is None else out * _by_channel(input, weight)
    return out if bias is None else out + _by_channel(input, bias)


@composed("prelu")
def _prelu(stack: Stack, input: Tensor, weight: Tensor) -> Tensor:
    slope = weight if weight.numel() == 1 else _by_channel(input, weight)
    return torch.where(input > 0, input, input * slope)


@composed("normalize")
def _normalize(
    stack: Stack, input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None
) -> Tensor:
    if out is not None:
        raise UnsupportedOp("normalize of a per-task weight into another tensor")
    return input / torch.linalg.vector_norm(input, p, dim, keepdim=True).clamp_min(eps)


@composed("bilinear")
def _bilinear(stack: Stack, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    made = torch.einsum("ni,oij,nj->no", input1, weight, input2)
    return made if bias is None else made + bias


@handles("conv1d", "conv2d", "conv3d")
def _convolution(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    x, weight, bias = given(args, kwargs, 0, "input"), given(args, kwargs, 1, "weight"), given(args, kwargs, 2, "bias")
    options = dict(zip(("stride", "padding", "dilation", "groups"), args[3:], strict=False)) | {
        key: value for key, value in kwargs.items() if key not in ("input", "weight", "bias")
    }
    note, spatial = stack.note(x), int(name_of(func)[4])
    if isinstance(x, TaskValue) or type(note) is not Rows or note.dim or x.dim() != spatial + 2:
        raise stack.refused(f"{name_of(func)} of {{}} with a per-task weight", x, note)
    if isinstance(weight, TaskValue):
        blocks, undo = split_by_task(stack, x, note)
        groups, own = options.pop("groups", 1), stacked(weight)
        channels = blocks.transpose(0, 1).flatten(1, 2)  # channels of all tasks, one set of groups per task
        channels = channels.reshape(-1).view(channels.shape)  # other strides of a size of 1 read as channels last
        out = func(channels, own.flatten(0, 1), None, **options, groups=groups * stack.num_tasks)
        out = undo(out.unflatten(1, (stack.num_tasks, -1)).transpose(0, 1))
    else:
        with stack:
            out = func(x, weight, None, **options)
    if bias is None:
        return out
    with stack:
        return out + _by_channel(out, bias)
