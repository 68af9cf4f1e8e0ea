"""Held-out pictures: which they are, what the LoRA is asked about them, what its answers tell."""
