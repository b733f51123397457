"""Text: documents, tokenizers and chat templates. Independent of models."""
