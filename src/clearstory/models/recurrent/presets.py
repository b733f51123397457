"""Presets of recurrent models: named configs, each a difference from another."""

from __future__ import annotations

from dataclasses import replace

from clearstory.models.recurrent.config import RecurrentConfig

# Chosen on presidents' addresses in 40 CPU seconds: one layer with an untied unembedding gave 1.73 bits per byte on
# 2,048 subwords, two tied layers 2.16.
LSTM = RecurrentConfig(vocab=8192, width=256, hidden_size=512, layers=1, tie_embeddings=False)

# Merity et al. 2018, section 4: as trained on words of the Penn Treebank and WikiText-2.
AWD_LSTM = replace(
    LSTM,
    vocab=33_278,
    width=400,
    hidden_size=1150,
    layers=3,
    tie_embeddings=True,
    dropout=0.4,
    dropout_input=0.4,
    dropout_hidden=0.25,
    dropout_embedding=0.1,
    weight_drop=0.5,
)

RECURRENT_PRESETS: dict[str, RecurrentConfig] = {
    "rnn": replace(LSTM, cell="rnn"),
    "gru": replace(LSTM, cell="gru"),
    "lstm": LSTM,
    "awd-lstm": AWD_LSTM,
}
