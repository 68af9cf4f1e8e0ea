"""Stands in for a training: says when it begins and ends, and ends as its settings say."""

import os
import signal
import sys
import time
import tomllib
from pathlib import Path

if __name__ == "__main__":
    place = Path(sys.argv[1])
    # Beside a training's own settings, what is asked here stands behind "#".
    asked = tomllib.loads((place / "settings.toml").read_text("utf-8").replace("#", ""))
    diary = place.parents[1] / "diary.txt"

    def write(word):
        with diary.open("a", encoding="utf-8") as file:
            file.write(f"{place.name} {word} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')}\n")

    def stop(number, frame):
        write("stopped")
        sys.exit(3)

    signal.signal(signal.SIGTERM, stop)
    write("begins")
    until = time.monotonic() + asked.get("seconds", 0.1)
    while time.monotonic() < until and not (place.parents[1] / "go").exists():
        time.sleep(0.02)
    print(asked.get("says", ""), file=sys.stderr)
    write("ends")
    sys.exit(asked.get("code", 0))
