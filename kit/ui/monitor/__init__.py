"""A run as a person watches and controls it."""
