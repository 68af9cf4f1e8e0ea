"""A machine with a slow storage that is kept and a fast disk that is not, as Colab with Drive."""

from pathlib import Path

from kit.hosts import Host


def colab_like(root: Path) -> Host:
    """Drive under root/drive, the machine's own disk under root/work."""
    drive = root / "drive"
    drive.mkdir(exist_ok=True)
    loras = drive / "MyDrive" / "loras"
    return Host("colab", root, loras, persistent=True, slow=drive, scratch=root / "work")


def be_colab_like(monkeypatch, root: Path) -> Host:
    """Let the product believe that it runs there."""
    here = colab_like(root)
    monkeypatch.setattr("kit.planning.deciding.host", lambda: here)
    monkeypatch.setattr("kit.training.staging.host", lambda: here)
    monkeypatch.setattr("kit.training.staging.SPARE", 0)
    return here
