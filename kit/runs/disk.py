"""Why a file cannot be written: of a full disk also what is needed and what is free."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from kit.errors import in_a_line

FULL = (errno.ENOSPC, errno.EDQUOT)


def why_unwritten(error: BaseException, path: Path, needed: int = 0) -> str:
    """The cause, without a full stop. path: what was to be written; needed: its bytes, if known."""
    if not isinstance(error, OSError):
        return in_a_line(error)
    words = error.strerror or str(error)
    if error.errno not in FULL:
        return words
    need = f"{needed / 1e6:.1f} MB are needed, " if needed else ""
    return f"{words}; {need}{free_at(path) / 1e6:.1f} MB are free"


def free_at(path: Path) -> int:
    """Bytes that are free where the path lies, or would lie."""
    for folder in path.absolute().parents:
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue  # it is not there yet
    return 0
