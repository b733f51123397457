"""GGUF: models of llama.cpp in one file."""
