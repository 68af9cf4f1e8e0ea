"""What the LoRA file says about itself."""

from tests.effects.observers import metadata
from tests.effects.stage import Row

ROWS = {
    name: Row(metadata, "something of one's own")
    for name in (
        "metadata_title", "metadata_author", "metadata_description", "metadata_license",
        "metadata_tags",
    )
}  # fmt: skip
