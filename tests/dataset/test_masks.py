"""MaskFolder go their image's way, and those that are missing or of another shape are named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit.dataset.buckets import BucketFit
from kit.dataset.images import TrainImage
from kit.dataset.masks import NO_MASKS, check_masks, mask_files, mask_of
from kit.errors import DatasetError

FIT = BucketFit(bucket=(64, 64), resized=(128, 64))


def half_white(path: Path, size=(128, 64)) -> Path:
    """Black on the left, white on the right."""
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[:, size[0] // 2 :] = 255
    Image.fromarray(pixels).save(path)
    return path


def image(path: Path, size=(128, 64), **more) -> TrainImage:
    Image.new("RGB", size).save(path)
    return TrainImage(path, *size, "a", "1_a", 1, **more)


def test_a_mask_is_cut_and_mirrored_with_its_image(tmp_path):
    (tmp_path / "masks").mkdir()
    half_white(tmp_path / "masks" / "cat.png")
    masks = mask_files(str(tmp_path / "masks"))
    at = {"masks": masks, "alpha": False}
    middle = mask_of(tmp_path / "cat.jpg", FIT, (32, 0), flipped=False, **at)
    assert middle.shape == (8, 8)
    assert middle[:, :4].max() == 0
    assert middle[:, 4:].min() == 1
    assert np.array_equal(
        mask_of(tmp_path / "cat.jpg", FIT, (32, 0), flipped=True, **at), middle[:, ::-1]
    )
    assert mask_of(tmp_path / "cat.jpg", FIT, (64, 0), flipped=False, **at).min() == 1
    assert mask_of(tmp_path / "dog.jpg", FIT, (0, 0), flipped=False, **at) is None


def test_transparency_is_a_mask_where_asked(tmp_path):
    picture = Image.new("RGBA", (64, 64), (255, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 32, 64))
    picture.save(tmp_path / "cat.png")
    place = BucketFit(bucket=(64, 64), resized=(64, 64))
    whole = {"offset": (0, 0), "flipped": False, "masks": NO_MASKS}
    seen = mask_of(tmp_path / "cat.png", place, **whole, alpha=True)
    assert seen[:, :4].max() == 0
    assert seen[:, 4:].min() == 1
    assert mask_of(tmp_path / "cat.png", place, **whole, alpha=False) is None
    Image.new("RGB", (64, 64)).save(tmp_path / "dog.png")
    assert mask_of(tmp_path / "dog.png", place, **whole, alpha=True) is None


def test_missing_and_misshapen_masks_are_named(tmp_path):
    (tmp_path / "masks").mkdir()
    cat, dog, reg = (image(tmp_path / f"{n}.png", is_reg=n == "reg") for n in ("cat", "dog", "reg"))
    half_white(tmp_path / "masks" / "cat.png", size=(64, 64))
    with pytest.raises(DatasetError, match=r"no mask for .*/dog\.png.*proportions.*cat\.png"):
        check_masks([cat, dog, reg], str(tmp_path / "masks"))
    half_white(tmp_path / "masks" / "cat.png")
    half_white(tmp_path / "masks" / "dog.png", size=(256, 128))
    check_masks([cat, dog, reg], str(tmp_path / "masks"))
    with pytest.raises(DatasetError, match="is no folder"):
        check_masks([cat], str(tmp_path / "nowhere"))


def of_two_folders(root: Path) -> list[TrainImage]:
    """Images of the same name in 10_a and 10_b."""
    for name in ("10_a", "10_b"):
        (root / name).mkdir(parents=True)
        (root / "masks" / name).mkdir(parents=True)
    return [image(root / name / "x.png") for name in ("10_a", "10_b")]


def test_a_mask_belongs_to_its_images_folder_then_to_all(tmp_path):
    first, second = of_two_folders(tmp_path)
    flat = half_white(tmp_path / "masks" / "x.png")
    own = half_white(tmp_path / "masks" / "10_a" / "x.jpg")
    masks = mask_files(str(tmp_path / "masks"))
    assert (masks.of(first.path), masks.of(second.path)) == (own, flat)
    check_masks([first, second], str(tmp_path / "masks"))


def test_a_mask_of_another_folder_is_not_taken(tmp_path):
    first, second = of_two_folders(tmp_path)
    half_white(tmp_path / "masks" / "10_b" / "x.png")
    with pytest.raises(DatasetError, match=r"no mask for 10_a/x\.png\."):
        check_masks([first, second], str(tmp_path / "masks"))


@pytest.mark.parametrize("place", ["", "10_a"])
def test_two_masks_for_one_image_are_an_error(tmp_path, place):
    first, _ = of_two_folders(tmp_path)
    for name in ("x.png", "x.jpg"):
        half_white(tmp_path / "masks" / place / name)
    with pytest.raises(DatasetError, match=r"several masks for one image: .*x\.jpg and .*x\.png"):
        check_masks([first], str(tmp_path / "masks"))


def test_two_subsets_do_not_share_a_mask(tmp_path):
    for parent in ("p", "q"):
        (tmp_path / parent / "cats").mkdir(parents=True)
    both = [image(tmp_path / parent / "cats" / "x.png") for parent in ("p", "q")]
    (tmp_path / "masks" / "cats").mkdir(parents=True)
    half_white(tmp_path / "masks" / "cats" / "x.png")
    with pytest.raises(DatasetError, match=r"give each subset a conditioning_data_dir of its own"):
        check_masks(both, str(tmp_path / "masks"))
    check_masks([both[0], both[0]], str(tmp_path / "masks"))  # one folder in two data sets


def test_one_mask_for_images_of_two_folders_is_an_error(tmp_path):
    both = of_two_folders(tmp_path)
    half_white(tmp_path / "masks" / "x.png")
    told = r" x\.png could be the mask of \S+10_a/x\.png, \S+10_b/x\.png: put each .* masks/10_a"
    with pytest.raises(DatasetError, match=told):
        check_masks(both, str(tmp_path / "masks"))
