"""Inference: recipes that use a finished model, one module for each."""
