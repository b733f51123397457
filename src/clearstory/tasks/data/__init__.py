"""Labeled data: texts with labels, words with tags, and pairs of texts, read from the files that people have."""
