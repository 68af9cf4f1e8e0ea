"""Every reader that is fed, by name. A reader writes an input and gives back what reads it."""

from tests.fuzz import files, tables, texts

READERS = {**tables.READERS, **texts.READERS, **files.READERS}
