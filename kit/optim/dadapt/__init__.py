"""D-Adaptation: optimizers that estimate their own step size, as the package dadaptation 3.2 does.

D-Adaptation multiplies the rate with d, a lower bound of the distance to the solution that grows
while gradients agree (Defazio and Mishchenko 2023, https://arxiv.org/abs/2301.07733). sd-scripts
calls dadaptation's classes, whose numbers these give: d and weights to 1e-6 in 32 bits over 60
steps, warm-up and weight decay included. pytorch-optimizer's classes do not: they take in the
gradients of a step at a rate of 0, with which a warm-up begins, and then find another d (by up to
77 %); its Lion adds the decay to the gradient; its Adan takes the fourth power for the square.

What differs here, on purpose: a rate of 0 moves nothing, later in a run either, and a rate of 0 in
one group leaves that group alone (there it goes on with its last momentum). SGD waits for a rate,
where dadaptation divides by zero. A step reads its sums from the device once, not once per weight.
"""

from __future__ import annotations

from kit.optim.dadapt.adam import DAdaptAdam, DAdaptAdamPreprint
from kit.optim.dadapt.adan import DAdaptAdan, DAdaptAdanIP
from kit.optim.dadapt.averaging import DAdaptAdaGrad, DAdaptSGD
from kit.optim.dadapt.lion import DAdaptLion

__all__ = [
    "DAdaptAdaGrad",
    "DAdaptAdam",
    "DAdaptAdamPreprint",
    "DAdaptAdan",
    "DAdaptAdanIP",
    "DAdaptLion",
    "DAdaptSGD",
]
