"""n-grams: the next token from counts of what followed the last few."""
