"""Conversion: models converted to other file formats, and checks that the result computes the same."""
