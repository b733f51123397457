"""n-gram models: the next token predicted from counts of what followed the last few."""
