"""Prompting: zero-shot and few-shot prompting with a template, without training."""
