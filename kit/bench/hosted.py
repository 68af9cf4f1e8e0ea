"""Runs another program of Python as it is, in its own environment, and tells what it needed.

    python hosted.py train_network.py --config_file train.toml

It is run by path, in an environment without LoRA Kit: only the standard library is imported here.
Its last line tells the most memory that was held. Where torchvision is not installed, the three
transforms that read a training image stand in for it; all else of it is missing.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import runpy
import sys
import types
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

PEAKS = "kit bench peaks: "  # what the last line begins with
STEPS = r"\bsteps:.*?\b(\d+)/\d+ \["  # as tqdm shows progress; group 1 is how many are done


def main(words: Sequence[str]) -> None:
    """Run the program that the first word names, with the others as its arguments."""
    script = Path(words[0]).absolute()
    sys.argv = [str(script), *words[1:]]
    sys.path[0] = str(script.parent)
    if importlib.util.find_spec("torchvision") is None:
        stand_in_for_torchvision()
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        tell_peaks()


def tell_peaks() -> None:
    """Print the most memory that this process has held, in MiB."""
    torch: Any = sys.modules.get("torch")
    has_gpu = torch is not None and torch.cuda.is_available()
    device = torch.cuda.max_memory_allocated() // 2**20 if has_gpu else None
    told = {"host_peak_mib": own_peak(), "device_peak_mib": device}
    print(f"\n{PEAKS}{json.dumps(told)}", file=sys.stderr, flush=True)


def own_peak(status: Path = Path("/proc/self/status")) -> int:
    """The most memory of this process, mapped files counted, in MiB.

    Linux adds to getrusage's figure what the process that started this one held.
    """
    if status.is_file():
        lines = status.read_text("utf-8").splitlines()
        return next(int(line.split()[1]) // 2**10 for line in lines if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes


def stand_in_for_torchvision() -> None:
    """Let `from torchvision import transforms` give Compose, ToTensor and Normalize."""
    package, transforms = (_module(name) for name in ("torchvision", "torchvision.transforms"))
    package.__path__ = []
    package.transforms = transforms  # type: ignore[attr-defined]
    for each in (Compose, ToTensor, Normalize):
        setattr(transforms, each.__name__, each)


def _module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    sys.modules[name] = module
    return module


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, image: Any) -> Any:
        """The image after all of them."""
        for transform in self.transforms:
            image = transform(image)
        return image


class ToTensor:
    """Bytes of a picture, height x width x channels, to numbers from 0 to 1, channels first."""

    def __call__(self, image: Any) -> Any:
        """The picture as a tensor."""
        import numpy
        import torch

        pixels = torch.from_numpy(numpy.array(image, copy=True))
        return pixels.permute(2, 0, 1).contiguous().float() / 255


class Normalize:
    """Channels moved and scaled."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = mean, std

    def __call__(self, image: Any) -> Any:
        """The image minus the mean, divided by the spread."""
        import torch

        mean, std = (torch.tensor(each)[:, None, None] for each in (self.mean, self.std))
        return (image - mean) / std


if __name__ == "__main__":
    main(sys.argv[1:])
