"""Trainings that are broken on purpose, restarted, and compared with one that nobody broke."""
