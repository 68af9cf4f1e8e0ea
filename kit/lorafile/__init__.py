"""LoRA files: tensors, and the metadata beside them."""
