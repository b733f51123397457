"""Formats: model folders, written so that other tools open them, and read back."""
