"""Caches of latents and encoded captions, in memory and on disk."""
