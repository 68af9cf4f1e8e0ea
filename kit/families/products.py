"""Products with a frozen matrix: on a CPU in float32 by oneDNN, which is the quicker library there.

Measured in core-milliseconds in a step (AMD EPYC, AVX-512, torch 2.13; MKL, which torch takes,
and oneDNN):

    rows, inputs -> outputs       MKL    here
     128,   1280 -> 10240          51      34
     512,    640 ->  5120          36      32
    2048,    320 ->  2560          36      32
     128,  11520 ->  1280          41      37

Shapes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import functools
import platform
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

FEWEST_ROWS = 16  # a product of fewer waits for the matrix, whoever computes it


def linear(inputs_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """Inputs by the transposed matrix, and the bias; shape N O. No gradient comes of it."""
    if _pays(inputs_NI, weight_OI):
        return _product(inputs_NI, weight_OI, bias_O)
    return functional.linear(inputs_NI, weight_OI, bias_O)


def back(gradient_NO: Tensor, weight_OI: Tensor) -> Tensor:
    """The outputs' gradient by the matrix, shape N I."""
    if _pays(gradient_NO, weight_OI):
        return _product(gradient_NO, weight_OI.t(), None)
    return gradient_NO @ weight_OI


def add_back(to_NI: Tensor, gradient_NO: Tensor, weight_OI: Tensor) -> None:
    """The same, added to another gradient."""
    if _pays(gradient_NO, weight_OI):
        to_NI.add_(_product(gradient_NO, weight_OI.t(), None))
    else:
        to_NI.addmm_(gradient_NO, weight_OI)


def _pays(rows: Tensor, matrix: Tensor) -> bool:
    if rows.device.type != "cpu" or not rows.dtype == matrix.dtype == torch.float32:
        return False
    return len(rows) >= FEWEST_ROWS and is_there() and not torch.is_autocast_enabled("cpu")


@functools.cache
def is_there() -> bool:
    """Whether this torch can ask oneDNN, on a processor on which that was measured."""
    can = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return can and platform.machine().lower() in ("x86_64", "amd64")


def _product(rows: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """What torch.compile computes linear layers with, without anything behind it."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(rows, matrix, bias, "none", [], ""))
