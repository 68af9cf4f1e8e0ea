"""The menus: optimizers, schedules, LoRA types, samplers. Rows of data, without torch.

A row says where the code is, what it needs, and which settings it uses; so `if name == ...` stands
nowhere. Each menu has a file of its own.
"""

from __future__ import annotations

import gc
import importlib
import sys
from types import ModuleType
from typing import Any

from kit.catalog.base_models import BASE_MODELS as BASE_MODELS
from kit.catalog.base_models import base_model as base_model
from kit.catalog.compilers import COMPILERS as COMPILERS
from kit.catalog.compilers import Compiler as Compiler
from kit.catalog.families import FAMILIES as FAMILIES
from kit.catalog.families import BlockLayout as BlockLayout
from kit.catalog.families import FamilyRow as FamilyRow
from kit.catalog.loggers import ALL_LOGGERS as ALL_LOGGERS
from kit.catalog.loggers import HUB as HUB
from kit.catalog.loggers import LOGGERS as LOGGERS
from kit.catalog.loggers import Logger as Logger
from kit.catalog.lora_types import LORA_TYPES as LORA_TYPES
from kit.catalog.lora_types import LoraType as LoraType
from kit.catalog.lora_types import read_by as read_by
from kit.catalog.lr_schedules import SCHEDULES as SCHEDULES
from kit.catalog.lr_schedules import LrSchedule as LrSchedule
from kit.catalog.optimizers import OPTIMIZERS as OPTIMIZERS
from kit.catalog.optimizers import Optimizer as Optimizer
from kit.catalog.precisions import BASE_PRECISIONS as BASE_PRECISIONS
from kit.catalog.precisions import BasePrecision as BasePrecision
from kit.catalog.samplers import SAMPLERS as SAMPLERS
from kit.catalog.samplers import Sampler as Sampler
from kit.errors import MissingPackage

QUICK_PICKS: dict[str, str] = {row.name: row.family for row in BASE_MODELS}

CAPTION_EXTENSIONS = (".txt", ".caption", ".cap")


def load(code: str, needs: str = "") -> Any:
    """Import what a row names as "module:name".

    Raises: MissingPackage where a package that it needs is not installed.
    """
    module, _, name = code.partition(":")
    try:
        return getattr(imported(module), name)
    except ImportError as error:
        package = needs or (error.name or module).partition(".")[0]
        if package == "kit":
            raise  # a mistake of ours: nothing that could be installed would cure it
        raise MissingPackage(
            f"The package {package} is not installed or does not load: {error}",
            do=f"Install it with: pip install {package}",
        ) from error


_left_out: list[str] = []  # with which module; what others have frozen is theirs


def look_at_all() -> None:
    """What `imported` left out of looks for garbage is looked at, too, from now on."""
    if _left_out:
        _left_out.clear()
        gc.unfreeze()


def imported(module: str) -> ModuleType:
    """A module by name, loaded without a look for garbage on the way.

    torch, diffusers and what they bring make half a million objects that stay. Python looks through
    them again and again while they come, which takes a fifth of the time of their import. What came
    with torch is left out of later looks, too, until `kit.devices.free_memory` wants everything
    (`look_at_all`): nobody who has had no torch before has left something large in a circle.

    Raises: what importing it raises.
    """
    was_enabled, had_torch = gc.isenabled(), "torch" in sys.modules
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        if "torch" in sys.modules and not had_torch:
            gc.freeze()
            _left_out.append(module)
        if was_enabled:
            gc.enable()
