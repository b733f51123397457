"""Evaluation: how well a model predicts a text: windows, masked tokens, targets of sources, units of comparison."""
