"""Serving: models kept in memory that answer many requests at once, each from one thread."""
