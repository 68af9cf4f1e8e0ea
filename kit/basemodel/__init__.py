"""Base-model files: where they lie, what they are, and whether that agrees with what was claimed.

    locate("owner/name")  ->  Path          a file or folder here, fetched from the Hub or a link
    fetching("owner/name")                  the same, telling how far a download has come
    detect(path)          ->  ModelFile     family and prediction, from names alone
    check_claims(...)     ->  notices       v2, v_parameterization and sdxl against the file
    check_inpainting(...)                   train_inpainting against the file

torch is not imported, but for the values of a torch file's tensors.
"""

from kit.basemodel.claims import check_claims, check_inpainting, decide_prediction
from kit.basemodel.detecting import ModelFile, detect
from kit.basemodel.locating import fetching, locate, locate_vae

__all__ = [
    "ModelFile",
    "check_claims",
    "check_inpainting",
    "decide_prediction",
    "detect",
    "fetching",
    "locate",
    "locate_vae",
]
