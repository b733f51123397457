"""Arpa."""
