"""Evaluation: likelihood of texts (windows, masked tokens, targets of sources, units of comparison), and metrics."""
