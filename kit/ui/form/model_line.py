"""What a base model's path holds, told as it is typed; nothing is fetched."""

from __future__ import annotations

import json

from kit import catalog
from kit.basemodel import ModelFile
from kit.basemodel.preflight import found_model
from kit.errors import ModelError
from kit.settings import Settings

SMALL = 0.6  # of the pixels that a family was made for; below, pictures suffer
PREDICTS = {"epsilon": "predicts noise", "v_prediction": "predicts v", None: ""}


def family_of(settings: Settings) -> str:
    """The catalog's key of the base model's family as far as it is known here, else ""."""
    model = settings.model
    found = found_model(model.pretrained_model_name_or_path)
    if isinstance(found, ModelFile):
        return found.family
    claims = {"sdxl": model.sdxl, "sd2": model.v2}
    return next((family for family, is_claimed in claims.items() if is_claimed), "")


def model_line(name_or_path: str) -> str:
    """One sentence about what was typed; "" for a blank."""
    text = name_or_path.strip()
    found = found_model(text)
    if not text:
        return ""
    if isinstance(found, ModelError):
        return f"{found.found} {found.do}".strip()
    if found is None:
        return _not_here(text)
    facts = [found.label, PREDICTS[found.predicts], "a folder" if found.is_folder else ""]
    if found.is_inpainting:
        facts.append("for inpainting: turn Train inpainting model on")
    if found.zero_terminal_snr:
        facts.append("zero terminal SNR")
    if not found.is_folder:
        facts.append(f"{found.path.stat().st_size / 1e9:.2g} GB")
    if not found.has_vae:
        facts.append("without VAE: name one in VAE")
    return f"Found: {', '.join(fact for fact in facts if fact)}."


def size_note(size: tuple[int, int], family: str, name_or_path: str = "") -> str:
    """A word about a resolution that is much smaller than what the model was made for."""
    row = catalog.FAMILIES[family]
    side = _own_side(found_model(name_or_path)) or row.native_size
    if size[0] * size[1] >= SMALL * side**2:
        return ""
    return f"This {row.label} was made for {side},{side}: better pictures."


def _own_side(found: ModelFile | ModelError | None) -> int:
    """The side that a diffusers folder says it was made for; 0 where it says nothing."""
    if not isinstance(found, ModelFile) or not found.is_folder:
        return 0
    try:
        config = json.loads((found.path / "unet" / "config.json").read_text("utf-8"))
        return 8 * int(config.get("sample_size") or 0)
    except (OSError, ValueError, TypeError):  # some configs hold two sides
        return 0


def _not_here(text: str) -> str:
    is_repository = text.count("/") == 1 and not text.startswith((".", "/", "~"))
    if is_repository or text.startswith("https://huggingface.co/"):
        return "Not on this machine: it is looked for on the Hugging Face Hub when you press Train."
    return "There is no such file or folder on this machine."
