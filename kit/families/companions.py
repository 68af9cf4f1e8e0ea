"""diffusers' models load only while every package that they load beside them does."""

from __future__ import annotations

import importlib
from importlib import metadata

from kit.errors import MissingPackage

# Between them they load all that the families' files import.
MODELS = (
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
)


def load_models() -> None:
    """Import diffusers' models. An old neighbour is fatal to them: PEFT 0.17 beside transformers 5.

    diffusers imports PEFT wherever it is installed, and tells a failure as a RuntimeError without a
    remedy.

    Raises: MissingPackage, which names the package that does not load.
    """
    for name in MODELS:
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError) as error:
            raise _told(error) from error


def _told(error: BaseException) -> MissingPackage:
    first: BaseException = error
    while first.__cause__ is not None:
        first = first.__cause__
    package = _package_of(first)
    return MissingPackage(
        f"diffusers' models do not load, because {package}{_version(package)} does not: {first}",
        do=f"Bring it up to date: pip install --upgrade {package}; then restart the kernel",
    )


def _package_of(error: BaseException) -> str:
    """The package whose file raised it; a package that is not there at all."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return error.name.partition(".")[0]
    package, trace = "diffusers", error.__traceback__
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        if not name.startswith(("importlib", "kit")):  # only on the way to it
            package = name.partition(".")[0]
        trace = trace.tb_next
    return package


def _version(package: str) -> str:
    try:
        return f" {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return ""
