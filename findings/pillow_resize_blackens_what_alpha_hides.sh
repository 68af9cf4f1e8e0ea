#!/usr/bin/env bash
# Pillow's resize turns the colours beneath full transparency black; OpenCV's keeps them.
#
# Versions: Pillow 13.0.0, opencv-python-headless 5.0.0.93, numpy 2, Python 3.11.
#
# What one would guess: resizing an RGBA picture resizes four channels. A photograph whose background was
# masked by alpha 0 (for masked training, say) keeps its background's colours, at any size.
#
# What is seen: after Image.resize with any filter but NEAREST every such pixel is (0, 0, 0, 0), and the
# colours are gone for good; cv2.resize keeps them. A trainer that shrinks with OpenCV and enlarges with
# Pillow so trains on the photograph when a picture is large, and on black when it is small.
#
# Source: Pillow, Image.resize: RGBA is made RGBa (colours multiplied by alpha) before it is resampled and
# made RGBA again afterwards, https://pillow.readthedocs.io/en/stable/reference/Image.html
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==13.0.0 opencv-python-headless==5.0.0.93
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import sys

import cv2
import numpy as np
from PIL import Image

pixels = np.full((64, 64, 4), (200, 120, 40, 255), dtype=np.uint8)
pixels[:, 32:, 3] = 0  # the right half is masked; its colours are the photograph's
seen = {}
for size in (32, 128):
    for name in ("NEAREST", "BILINEAR", "BICUBIC", "LANCZOS"):
        out = np.asarray(Image.fromarray(pixels).resize((size, size), getattr(Image.Resampling, name)))
        seen["Pillow", name, size] = out[size // 2, -1, :3].tolist()
    for name, flag in {"AREA": cv2.INTER_AREA, "LANCZOS4": cv2.INTER_LANCZOS4}.items():
        out = cv2.resize(pixels, (size, size), interpolation=flag)
        seen["OpenCV", name, size] = out[size // 2, -1, :3].tolist()
for (library, name, size), colour in seen.items():
    print(f"{library} {name} to {size}: {colour}")
keeps = {key for key, colour in seen.items() if colour == [200, 120, 40]}
black = {key for key, colour in seen.items() if colour == [0, 0, 0]}
expected = {key for key in seen if key[0] == "OpenCV" or key[1] == "NEAREST"}
sys.exit(keeps != expected or black != set(seen) - expected)
PYTHON
echo "seen as described"
