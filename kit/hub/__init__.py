"""The Hugging Face Hub: LoRA files, states, and a card that tells how a LoRA was made."""
