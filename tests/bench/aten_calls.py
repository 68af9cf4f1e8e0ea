"""Counts the aten calls of one training step of ours, views left out, on the CPU.

    python -m tests.bench.aten_calls sd15|sdxl 64 bf16

A kernel launch costs about as much as a call here, so the count tells what a GPU waits for.
"""

from __future__ import annotations

import collections
import sys
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from kit.bench import models as full
from kit.bench import sides
from tests.bench import step

VIEWS = {
    *(
        "view",
        "_unsafe_view",
        "t",
        "transpose",
        "permute",
        "expand",
        "slice",
        "select",
        "unsqueeze",
    ),
    *("squeeze", "detach", "alias", "as_strided", "split", "split_with_sizes", "unbind"),
    *("_reshape_alias", "reshape", "chunk", "lift_fresh", "empty", "empty_like", "empty_strided"),
    *("new_empty", "new_empty_strided", "is_pinned", "sym_size", "is_same_size"),
}


class Count(TorchDispatchMode):
    """The calls by name, and how many views there were beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: collections.Counter[str] = collections.Counter()
        self.views = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function._schema.name.split("::")[1]
        if name in VIEWS:
            self.views += 1
        else:
            self.calls[name] += 1
        return function(*args, **(kwargs or {}))


def main() -> None:
    family, side, precision = sys.argv[1:4]
    filled = full.fill

    def fill_here(module: Any, *, device: Any, dtype: Any) -> None:
        filled(module, device=device, dtype=dtype)
        module.to(device)

    full.fill = fill_here
    asked = ["--family", family, "--px", side, "--batch", "1", "--precision", precision]
    ours = sides.Ours(step._parser().parse_args(asked))
    ours.step()
    with Count() as count:
        ours.step()
    print(family, side, precision, "calls", sum(count.calls.values()), "views", count.views)
    print(*(f"{name} {times}" for name, times in count.calls.most_common(14)), sep=", ")


if __name__ == "__main__":
    main()
