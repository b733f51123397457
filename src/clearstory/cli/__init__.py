"""Command line: from words typed to a recipe, and from its events to a terminal."""
