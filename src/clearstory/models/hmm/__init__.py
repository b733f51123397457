"""Hidden Markov models: as language models (Baum-Welch or gradient) and as part-of-speech taggers."""
