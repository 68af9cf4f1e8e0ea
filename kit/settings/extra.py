"""What has no field of its own."""

from __future__ import annotations

import re

from pydantic import field_validator

from kit.settings.setting import Section, setting

NAMES_A_SECRET = re.compile(r"--\w*(?:key|token|password|secret)(?!\w)", re.IGNORECASE)


class Extra(Section, box="Parameters / Advanced"):
    """What has no field of its own."""

    additional_parameters: str = setting(
        "",
        "Additional parameters",
        "Arguments of sd-scripts, such as --network_train_unet_only --lr_warmup_steps=5%. They "
        "count more than the fields of the form, and the plan says what each one does. An argument "
        "that is not understood is an error.",
    )

    @field_validator("additional_parameters")
    @classmethod
    def _holds_no_secret(cls, value: str) -> str:
        """Settings are written to files; keys and tokens are not."""
        if NAMES_A_SECRET.search(value):
            raise ValueError(
                "a key or token would be written to files with it; take it out, and set it as an "
                "environment variable or as a Colab secret"
            )
        return value
