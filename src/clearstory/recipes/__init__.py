"""Recipes: the verbs, a page each. The command line and Python call the same functions."""
