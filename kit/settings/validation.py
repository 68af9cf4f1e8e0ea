"""Pictures that are held out of the training, and when the LoRA is asked about them."""

from __future__ import annotations

from kit.settings.setting import Section, setting


class Validation(Section, box="Parameters / Validation"):
    """Pictures that are held out of the training, and when the LoRA is asked about them."""

    validation_split: float = setting(
        0.0,
        "Validation split",
        "The share of each folder's pictures that is held out of the training with all its "
        "repeats, and that the LoRA is measured on: 0.1 holds out 2 of 20, 0 none. The loss on "
        "them falls while the LoRA learns, and rises again once it only memorises. Regularisation "
        "images are never held out.",
        between=(0, 1),
        gui=None,
        search="held-out holdout test set overfitting overtraining",
    )
    validation_count: int = setting(
        0,
        "Validation count",
        "So many pictures of each folder are held out, instead of Validation split. At least 2 are "
        "needed to tell learning from memorising, better 4. 0: Validation split counts.",
        between=(0, 100_000),
        unit="images",
        gui=None,
        search="held-out holdout test set overfitting overtraining",
    )
    validation_seed: int | None = setting(
        None,
        "Validation seed",
        "Decides which pictures are held out, and the noise that they are measured with. Blank is "
        "0, whatever Seed is, so that runs of different seeds can be compared.",
        between=(0, 2**32 - 1),
        gui=None,
        search="held-out overfitting",
    )
    validate_every_n_steps: int | None = setting(
        None,
        "Validate every n steps",
        "Blank or 0: not by steps. Without held-out pictures it measures the training pictures, "
        "and some that the bare base model draws for the class word, beside the bare base model.",
        between=(0, 10_000_000),
        unit="steps",
        gui=None,
        shapes_run=False,
        search="held-out overfitting",
    )
    validate_every_n_epochs: int | None = setting(
        None,
        "Validate every n epochs",
        "Blank or 0, and no Validate every n steps: after every epoch, or as often as takes a "
        "tenth of the time. The end of the run is measured always.",
        between=(0, 100_000),
        unit="epochs",
        gui=None,
        shapes_run=False,
        search="held-out overfitting",
    )
    max_validation_steps: int | None = setting(
        None,
        "Max validation steps",
        "At most so many batches at each validation. Blank or 0: every held-out picture at eight "
        "noise levels, and as many training pictures.",
        between=(0, 10_000_000),
        unit="batches",
        gui=None,
        shapes_run=False,
        search="held-out overfitting",
    )

    validation_patience: int = setting(
        0,
        "Validation patience",
        "Stops the run after so many validations in a row that are no better than the best before "
        "them, as Stop does: it is saved, and can go on. Validation swings where few pictures are "
        "held out, so take 5 or more. 0: it trains to its end.",
        between=(0, 10_000),
        unit="validations",
        gui=None,
        shapes_run=False,
        search="early stopping overfitting overtraining",
    )

    @property
    def holds_out(self) -> bool:
        """Pictures are to be held out."""
        return bool(self.validation_split or self.validation_count)

    @property
    def is_on(self) -> bool:
        """Something is to be measured: held-out pictures, or the training pictures themselves."""
        asked = self.validate_every_n_steps or self.validate_every_n_epochs
        return self.holds_out or bool(asked)

    @property
    def from_seed(self) -> int:
        """The seed of the split and of the noise."""
        return self.validation_seed or 0
