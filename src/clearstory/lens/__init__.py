"""Lens: what a model computes between a text and its prediction, as data (views) and as pictures (rendering)."""
