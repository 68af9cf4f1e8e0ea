"""Jobs beside training, on LoRA files and data sets."""
