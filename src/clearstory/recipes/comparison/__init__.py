"""Comparison: several models trained or measured on the same text, ranked by bits per byte."""
