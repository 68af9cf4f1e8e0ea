"""Backends of torch.compile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Compiler:
    """A backend of torch.compile."""

    has_modes: bool = False
    gone: bool = False  # the GUI still lists it, torch has it no longer


COMPILERS: dict[str, Compiler] = {
    "no": Compiler(),
    "eager": Compiler(),
    "aot_eager": Compiler(),
    "inductor": Compiler(has_modes=True),
    "cudagraphs": Compiler(),
    "onnxrt": Compiler(),
    "tensorrt": Compiler(),
    "ipex": Compiler(),
    "tvm": Compiler(),
    "aot_ts_nvfuser": Compiler(gone=True),
    "nvprims_nvfuser": Compiler(gone=True),
    "ofi": Compiler(gone=True),
    "fx2trt": Compiler(gone=True),
}
