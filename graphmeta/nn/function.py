"""``torch.autograd.Function``, typed so that ``forward`` and ``backward`` may have any signature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:

    class Function:
        """See :class:`torch.autograd.Function`."""

        @classmethod
        def apply(cls, *args: Any) -> Any:
            """Call ``forward``."""
            ...
else:
    Function = torch.autograd.Function
