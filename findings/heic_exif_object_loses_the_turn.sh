#!/usr/bin/env bash
# pillow-heif 1.8.1 with Pillow 13.0.0: a HEIC saved with `exif=` as an Exif object is not turned.
#
# Guess: `image.save("a.heic", exif=exif)` and `exif=exif.tobytes()` write the same, as both do for JPEG,
#        WebP, TIFF and AVIF; a picture stored on its side with orientation 6 comes back upright.
# Seen:  with bytes the file gets HEIF's own rotation and comes back upright (32 x 48). With the object
#        it gets none (48 x 32), and as the plug-in resets the EXIF orientation to 1 when it reads, no
#        program that opens it with Pillow can turn it any more: the turn is lost without a word.
# Source: the plug-in derives the rotation from the bytes of `info["exif"]`, into which the argument is
#        copied as it is: https://github.com/bigcat88/pillow_heif (pillow_heif/as_plugin.py, misc.py);
#        Pillow on `exif` of save: https://pillow.readthedocs.io/en/stable/handbook/image-file-formats.html
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==13.0.0 pillow-heif==1.8.1
cd -- "$work"
"$work/venv/bin/python" - <<'PY'
import sys

import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()
exif = Image.Exif()
exif[0x0112] = 6  # stored on its side; a viewer turns it by 90 degrees to 32 x 48
seen = {}
for name, value in {"object": exif, "bytes": exif.tobytes()}.items():
    Image.new("RGB", (48, 32), "red").save(f"{name}.heic", exif=value)
    with Image.open(f"{name}.heic") as image:
        image.load()
        seen[name] = (image.size, image.getexif().get(0x0112))
print("size and EXIF orientation when read again:", seen)
sys.exit(seen != {"object": ((48, 32), 1), "bytes": ((32, 48), 1)})
PY
