"""Command line: parses arguments, runs recipes, and prints their events and results."""
