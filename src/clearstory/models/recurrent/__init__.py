"""Recurrent: models that read token by token into a memory of fixed size. Elman 1990; LSTM 1997; GRU 2014."""
