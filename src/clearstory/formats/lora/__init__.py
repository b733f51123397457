"""LoRA adapters as the library peft stores them."""
