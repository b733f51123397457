"""Formats: model folders as Hugging Face writes them. Renaming rules are stated once and carried both ways.

folders.py        save_model, open_model: the two calls all others make
paths.py          which folder a path means: a model, a run's best, a checkpoint
architecture.py   one class of transformers, as a row
architectures.py  the table: GPT-2, Llama, Qwen3, Phi-3, Mistral, and those of bert.py
own.py            what no architecture over there can express, under our own names
keys.py           config.json: a closed schema, every number bounded
rules.py          the names and layouts of weights
weights.py        safetensors: shards, written and read without trusting them
assemble.py       from checked weights to a model
cards.py          what a model is and was trained on
"""
