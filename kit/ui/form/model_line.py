"""What a base model's path holds, told as it is typed; nothing is fetched."""

from __future__ import annotations

from kit import catalog
from kit.basemodel.mismatches import Mismatch, known_of, size_mismatches
from kit.basemodel.mismatches import mismatches as mismatches
from kit.basemodel.preflight import found_model
from kit.catalog.base_models import PREDICTS
from kit.errors import ModelError
from kit.settings import Model, Settings
from kit.settings.links import is_link, tidied

__all__ = ["Mismatch", "family_of", "mismatches", "model_line", "size_note", "tidied"]


def family_of(settings: Settings) -> str:
    """The catalog's key of the base model's family as far as it is known here, else ""."""
    known = known_of(settings.model)
    return known.family if known else ""


def size_note(model: Model, size: tuple[int, int]) -> str:
    """The mismatch of a resolution that the model was not made for, beneath its field; else ""."""
    known = known_of(model)
    return next((each.text for each in size_mismatches(known, size)), "") if known else ""


def model_line(name_or_path: str) -> str:
    """One sentence or two about what was typed; "" for a blank."""
    text = tidied(name_or_path)
    found = found_model(text)
    if not text:
        return ""
    if isinstance(found, ModelError):
        return f"{found.found} {found.do}".strip()
    if found is None:
        return _not_here(text)
    facts = [found.label, PREDICTS.get(found.predicts or "", "")]
    facts.append("a folder" if found.is_folder else "")
    if found.is_inpainting:
        facts.append("for inpainting: turn Train inpainting model on")
    if found.zero_terminal_snr:
        facts.append("zero terminal SNR")
    if not found.is_folder:
        facts.append(f"{found.path.stat().st_size / 1e9:.2g} GB")
    if not found.has_vae:
        facts.append("without VAE: name one in VAE")
    return f"Found: {', '.join(fact for fact in facts if fact)}."


def _not_here(text: str) -> str:
    row = catalog.base_model(text)
    told = f"{row.title}: {row.facts}. {row.note} ".replace("  ", " ") if row else ""
    if text.startswith("http://"):
        return "A link begins with https://: without encryption the file could be changed."
    is_on_hub = text.startswith(("https://huggingface.co/", "https://hf.co/"))
    if is_link(text) and not is_on_hub:
        return f"{told}Fetched from there when you press Train, once; what it is is told then."
    is_repository = not text.startswith((".", "/", "~")) and (row or text.count("/") == 1)
    if is_repository or is_on_hub:
        return (
            f"{told}Not on this machine: it is looked for on the Hugging Face Hub when you press "
            "Train."
        )
    return "There is no such file or folder on this machine."
