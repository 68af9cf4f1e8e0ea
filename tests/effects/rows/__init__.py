"""The tables, one for each section of the settings."""
