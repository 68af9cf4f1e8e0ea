"""What the LoRA file says about itself."""

from __future__ import annotations

from kit.settings.setting import Section, setting


class Metadata(Section, box="Metadata"):
    """What the LoRA file says about itself, in its modelspec.* entries."""

    metadata_title: str = setting("", "Metadata title", "Blank: the output name.")
    metadata_author: str = setting("", "Metadata author", "Who made it.")
    metadata_description: str = setting("", "Metadata description", "What it is for.")
    metadata_license: str = setting("", "Metadata license", "On which terms it may be used.")
    metadata_tags: str = setting("", "Metadata tags", "Words to find it by, separated by commas.")
