"""Prompting: tasks told by a template and examples, without training."""
