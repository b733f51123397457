"""Generation: choosing tokens one after another. Imports no other use of a model."""
