"""Formats: model folders as Hugging Face writes them, and files of others. Renaming is stated once, carried both ways.

folders.py        save_model, open_model: the two calls all others make
paths.py          which folder a path means: a model, a run's best, a checkpoint
architecture.py   one class of transformers, as a row
architectures.py  the table: GPT-2, Llama, Qwen3, Phi-3, Mistral, and those of bert.py and seq2seq.py
own.py            what no architecture over there can express, under our own names
keys.py           config.json: a closed schema, every number bounded
rules.py          the names and layouts of weights
weights.py        safetensors: shards, written and read without trusting them
assemble.py       from checked weights to a model
gguf_header.py    GGUF: what a file says of itself, read without trust
gguf_numbers.py   its kinds of numbers, in float32
gguf_keys.py      its fields and ours
gguf_dialects.py  the table: gpt2, llama, qwen3, phi3
gguf_tokenizer.py its vocabularies and ours
gguf_reading.py   from a file to a model
gguf_writing.py   and from a model to a file
onnx_modules.py   models as functions of tensors alone
onnx_graphs.py    the table: which files each kind becomes, with their inputs and outputs
onnx_writing.py   from a model to a folder that onnxruntime reads
rotary_order.py   which rows of queries and keys are turned together
llama2c.py        checkpoints of llama2.c
cards.py          what a model is and was trained on
"""
