"""Lens: what happens between a text and a prediction, as data and as pictures. Imports no other use of a model."""
