"""Lens: every number between the text and the prediction, as views that are data."""
