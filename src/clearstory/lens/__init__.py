"""Lens: intermediate results of a model between a text and its prediction, as data (views) and pictures (rendering)."""
