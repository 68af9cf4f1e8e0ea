"""Where the images come from, and where the LoRA goes."""

from __future__ import annotations

from pydantic import field_validator

from kit.reading.paths import shortened
from kit.settings.setting import Section, setting

FORBIDDEN = '<>:"/\\|?*'
LONGEST_NAME = 200  # bytes; file systems take 255, and a sample's name is 55 longer than the run's


class Folders(Section, box="Folders"):
    """Where the images come from, and where the LoRA goes."""

    train_data_dir: str = setting(
        "",
        "Image folder",
        "The folder that holds folders named <repeats>_<word>, e.g. images/10_cat with the "
        "pictures in it. A flat folder of pictures works too, when Repeats of a flat folder is "
        "set.",
        kind="path",
        search="image directory containing training images subfolders dataset",
        resumes="freely",
    )
    reg_data_dir: str = setting(
        "",
        "Regularisation folder",
        "Optional. Pictures of the same class, but not of the subject, in <repeats>_<word> "
        "folders. They are balanced one to one with the training images, which doubles the steps "
        "of an epoch; they help small subject sets to keep the class.",
        kind="path",
        search="regularisation directory containing regularisation images",
        resumes="freely",
    )
    dataset_config: str = setting(
        "",
        "Dataset config file",
        "Optional. A .toml or .json file that names the images, in the form of kohya's scripts: "
        "[[datasets]] with their own resolution, batch size and buckets, and in each "
        "[[datasets.subsets]] with image_dir, num_repeats and whatever else should differ there. "
        "What it leaves out is taken from the form. Image folder and Regularisation folder are "
        "not read then.",
        kind="path",
        shapes_run=False,  # its content does
        search="select the toml configuration file to use for the dataset",
    )
    conditioning_data_dir: str = setting(
        "",
        "Mask folder",
        "Only with Masked loss: pictures of the training images' names, white where the image is "
        "learned, black where it is not. They lie in folders of the images' folders' names, such "
        "as masks/10_cat, or directly in it.",
        kind="path",
        gui=None,
    )
    output_dir: str = setting(
        "output",
        "Output folder",
        "Where LoRA files are written; sample pictures go to its folder 'sample', and what is "
        "needed to go on after a disconnect to '<name>.run'.",
        kind="path",
        shapes_run=False,
        search="output directory for trained model",
    )
    output_name: str = setting(
        "last",
        "Model output name",
        "The file's name, without ending. An existing file is never overwritten: the name gets a "
        "number.",
        shapes_run=False,
        search="trained model output name lora name",
    )
    training_comment: str = setting(
        "",
        "Training comment",
        "Any text; it is embedded in the LoRA file as ss_training_comment.",
        shapes_run=False,
    )

    @field_validator("output_name")
    @classmethod
    def _is_a_file_name(cls, value: str) -> str:
        bad = sorted({mark for mark in value if mark in FORBIDDEN or mark < " "})
        if bad or not value.strip() or value.strip(".") == "":
            marks = " ".join(m if m > " " else repr(m) for m in bad) or "nothing but dots or spaces"
            raise ValueError(f"{value!r} is no file name; leave out {marks}")
        if (length := len(value.encode(errors="surrogatepass"))) > LONGEST_NAME:
            raise ValueError(
                f"{shortened(value)!r} is too long for a file name: {length} bytes; at most "
                f"{LONGEST_NAME}, for steps, seeds and endings are put behind it"
            )
        return value
