"""Hidden Markov models: a chain of states that nobody sees, each of which speaks a word."""
