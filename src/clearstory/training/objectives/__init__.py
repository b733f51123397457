"""Objectives: what a model is asked to get right, one file each."""
