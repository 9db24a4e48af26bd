"""Sums and maxima of sorted segments without gradients: torch's operations and, where installed, torch-scatter's.

    python -m benchmarks.segments

Prints the median time of each in ms, on one thread, for a batch, a log's items and a large log's items.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from statistics import median

import torch
from torch import Tensor

SIZES = ((2_000, 512, 100), (50_000, 10_000, 100), (500_000, 40_000, 64))  # rows, segments, width


def operations(x: Tensor, index: Tensor, ptr: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The operations on rows ``x [E, D]``, sorted by their segment ``index [E]``."""
    empty = x.new_zeros(len(ptr) - 1, x.shape[1])
    wide = index[:, None].expand_as(x)
    found: dict[str, Callable[[], Tensor]] = {
        "sum, index_add": lambda: empty.index_add(0, index, x),
        "sum, segment_reduce": lambda: torch.segment_reduce(x, "sum", offsets=ptr, axis=0),
        "max, scatter_reduce": lambda: empty.scatter_reduce(0, wide, x, "amax", include_self=False),
    }
    if find_spec("torch_scatter") is not None:
        import torch_scatter  # pyright: ignore[reportMissingImports]

        found |= {
            "sum, torch_scatter.scatter": lambda: torch_scatter.scatter(x, index, 0, dim_size=len(empty)),
            "sum, torch_scatter.segment_csr": lambda: torch_scatter.segment_csr(x, ptr),
            "max, torch_scatter.segment_csr": lambda: torch_scatter.segment_csr(x, ptr, reduce="max"),
        }
    return found


def timed(run: Callable[[], Tensor], repeats: int = 30) -> float:
    """Median time in ms, after two runs."""
    times = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - began))
    return median(times[2:])


@torch.no_grad()
def main() -> None:
    """Print the times."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for rows, segments, width in SIZES:
        index = torch.randint(segments, (rows,)).sort().values
        ptr = torch.nn.functional.pad(index.bincount(minlength=segments).cumsum(0), (1, 0))
        print(f"{rows:,} rows of {width} in {segments:,} segments")
        for name, run in operations(torch.randn(rows, width), index, ptr).items():
            print(f"  {name:32} {timed(run):8.2f} ms")


if __name__ == "__main__":
    main()
