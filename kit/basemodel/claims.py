"""Claims of the settings about the base model, held against the model itself."""

from __future__ import annotations

from kit.basemodel.detecting import EPSILON, ModelFile, V
from kit.errors import ModelError


def check_claims(
    file: ModelFile, *, v2: bool | None, v_parameterization: bool | None, sdxl: bool | None
) -> tuple[str, ...]:
    """Notices about the base model; None means that the user leaves it to the file.

    Raises: ModelError where a claim contradicts the file; all contradictions at once.
    """
    problems = [
        *_contradiction("v2", v2, file, "sd2"),
        *_contradiction("sdxl", sdxl, file, "sdxl"),
    ]
    if v_parameterization is False and file.predicts == V:
        problems.append("v_parameterization is off, but the model predicts v")
    if v_parameterization and file.predicts == EPSILON and file.family == "sd2":
        # SD 2.x comes in both sorts and the file names its own, so the claim can only be a mistake.
        problems.append("v_parameterization is on, but the model predicts epsilon")
    if problems:
        raise ModelError(
            f"{file.path} is {_describe(file)}: {'; '.join(problems)}.",
            "Leave v2, v_parameterization and sdxl blank to take what the file says.",
            "Clear the settings named above, or choose another base model.",
        )
    return _notices(file, v_parameterization)


def claimed_family(*, v2: bool | None, sdxl: bool | None) -> str:
    """The family that the user names; SD 1.x where nothing is said."""
    if sdxl:
        return "sdxl"
    return "sd2" if v2 else "sd1"


def check_inpainting(file: ModelFile, *, train_inpainting: bool) -> None:
    """An inpainting model is trained as one, and only such a model is.

    Raises: ModelError where setting and file contradict each other.
    """
    if file.is_inpainting and not train_inpainting:
        raise ModelError(
            f"{file.path} is an inpainting model: its U-Net reads 9 channels.",
            "It is trained on images with random holes.",
            "Turn train_inpainting on and cache_latents off, or choose the plain model.",
        )
    if train_inpainting and not file.is_inpainting:
        raise ModelError(
            f"train_inpainting is on, but {file.path} is no inpainting model: its U-Net reads 4 "
            "channels, not 9.",
            "A LoRA for painting into holes needs a base that can do so.",
            "Turn train_inpainting off, or choose the inpainting version of the model.",
        )


def decide_prediction(file: ModelFile, *, v_parameterization: bool | None) -> str:
    """What is predicted, in diffusers' words: as claimed, else as the file says, else epsilon."""
    if v_parameterization is not None:
        return V if v_parameterization else EPSILON
    return file.predicts or EPSILON


def _contradiction(name: str, claim: bool | None, file: ModelFile, family: str) -> list[str]:
    if claim is None or claim == (file.family == family):
        return []
    return [f"{name} is {'on' if claim else 'off'}"]


def _notices(file: ModelFile, v_parameterization: bool | None) -> tuple[str, ...]:
    if v_parameterization is None and file.predicts is None and file.family == "sd2":
        return (
            f"{file.path.name} does not say what it predicts; epsilon is assumed. Set "
            "v_parameterization for a 768-v model.",
        )
    if v_parameterization and file.predicts is None and file.family != "sd2":
        return (
            f"v_parameterization is on, but {file.path.name} does not say that it predicts v, as "
            f"few {file.label} models do. With an ordinary model the LoRA learns noise.",
        )
    if v_parameterization and file.predicts == EPSILON:
        return (
            f"v_parameterization is on, but {file.path.name} says that it predicts epsilon; the "
            "setting counts. With an ordinary model the LoRA learns noise.",
        )
    return ()


def _describe(file: ModelFile) -> str:
    predicts = {None: "", EPSILON: ", predicting epsilon", V: ", predicting v"}[file.predicts]
    return f"{file.label}{predicts}"
