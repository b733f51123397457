"""Labeled data: readers of texts with labels, words with tags, and pairs of texts."""
