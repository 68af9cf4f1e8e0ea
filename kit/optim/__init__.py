"""Optimizers and learning-rate schedules at work."""
