"""Model folders of Hugging Face's transformers."""
