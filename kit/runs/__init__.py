"""Runs on disk: their folders and records, what makes two the same, how one goes on."""
