"""Training a run: the loop from a text to the best model, its run folder, time budget and events."""
