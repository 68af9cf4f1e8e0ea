"""What the LoRA file says about itself."""

from __future__ import annotations

from kit.settings.setting import Section, setting


class Metadata(Section, box="Metadata"):
    """What the LoRA file says about itself, in its modelspec.* entries."""

    metadata_title: str = setting("", "Metadata title", "Blank: the output name.", shapes_run=False)
    metadata_author: str = setting("", "Metadata author", "Who made it.", shapes_run=False)
    metadata_description: str = setting(
        "", "Metadata description", "What it is for.", shapes_run=False
    )
    metadata_license: str = setting(
        "", "Metadata license", "On which terms it may be used.", shapes_run=False
    )
    metadata_tags: str = setting(
        "", "Metadata tags", "Words to find it by, separated by commas.", shapes_run=False
    )
