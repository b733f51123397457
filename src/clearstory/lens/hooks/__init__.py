"""Hooks: what can be recorded and changed inside a model during a forward pass."""
