"""A run's files side by side: measured beside the bare base model, drawn with the same seeds."""
