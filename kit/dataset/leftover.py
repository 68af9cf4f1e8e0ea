"""What lies in the folders and is not used: named, so that a data set never shrinks in silence."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from kit.dataset.files import image_files, remedy

NAMED = 3  # of each kind; the others are counted
SYSTEMS = frozenset({"Thumbs.db", "desktop.ini"})  # Windows writes them into folders of pictures

NO_ENDING = ("file without ending", "files without ending")
NO_IMAGE = ("caption file without an image", "caption files without an image")


@dataclass
class Leftover:
    """Files by their ending, captions without an image, and sub-folders."""

    files: dict[str, list[str]] = field(default_factory=dict)
    captions: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    def look(
        self, folder: Path, images: Collection[Path], captions: Collection[str], *, deep: bool
    ) -> None:
        """Gather what is neither an image nor an image's caption.

        captions: the endings of caption files. deep: sub-folders, too. Hidden names stay hidden.
        """
        used = {image.name for image in images}
        stems = {image.stem for image in images}
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path.name in SYSTEMS or path.name in used:
                continue
            if path.is_dir():
                if deep:
                    self.add_folder(path)
            elif path.suffix not in captions:
                self.files.setdefault(path.suffix.lower(), []).append(path.name)
            elif path.stem not in stems:
                self.captions.append(path.name)

    def add_folder(self, path: Path) -> None:
        """A sub-folder, with the number of the images that lie directly in it."""
        count = len(image_files(path))
        images = "1 image" if count == 1 else f"{count} images"
        self.folders.append(f"{path.name} with {images}" if count else path.name)

    def told(self) -> str:
        """All of it in one line; "" where nothing is left."""
        parts = []
        for ending, names in sorted(self.files.items()):
            kind = (f"{ending} file", f"{ending} files") if ending else NO_ENDING
            parts.append(_counted(names, kind, remedy(ending)))
        if self.captions:
            parts.append(_counted(self.captions, NO_IMAGE))
        if self.folders:
            parts.append(_counted(self.folders, ("sub-folder", "sub-folders")))
        return ", ".join(parts)


def _counted(names: list[str], kind: tuple[str, str], hint: str = "") -> str:
    """`4 .psd files (a.psd, b.psd, c.psd and 1 more)`; kind: the word for one, and for several."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    inside = ", ".join(names[:NAMED]) + more + (f"; {hint}" if hint else "")
    return f"{len(names)} {kind[len(names) > 1]} ({inside})"
