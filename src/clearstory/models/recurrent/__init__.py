"""Recurrent language models: tanh RNN, GRU and LSTM."""
