"""n-gram models: next-token probabilities from counts of n-grams."""
