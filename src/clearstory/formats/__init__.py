"""Model formats: model folders of Hugging Face, and files of other programs.

folders.py          open_model, save_model: the entry points
model_path.py       the model folder that a path refers to
model_card.py       description of a model and its training data
native.py           Clearstory's own folder format, for models that no class of transformers can represent
sentence_folder.py  reading folders of sentence-transformers
sentence_writer.py  writing folders of sentence-transformers
no_init.py          models without initial weights, to be filled from a file
rotary_layout.py    layouts of query and key projections under rotary embeddings
llama2c.py          checkpoints of llama2.c

hf/                 folders of transformers
  config_json.py        detect a format, read config.json, choose a format
  architecture.py       one class of transformers, as a table row
  decoders.py           GPT-2; llama.py: Llama, Qwen3, Phi-3, Mistral; gemma3.py
  encoders.py           BERT and its pre-training heads
  encoder_decoders.py   T5, Marian
  classifiers.py        each of these with a classification head
  label_keys.py         its labels
  config_keys.py        keys of config.json and fields of configs
  local_layer_keys.py   keys for layers of two kinds: with a sliding window, and of the whole context
  attention_keys.py     keys for heads, rotary embeddings and sliding windows
  encoder_decoder_keys.py
  declared_keys.py      keys that do not belong to one class: without effect, or of other classes
  weight_map.py         names and layouts of weights
  safetensors_io.py     weights in shards
  fit_weights.py        matching of stored names to a class; missing and unexpected weights
  load_weights.py       from files to a model
lora/               LoRA adapters of peft
gguf/               models of llama.cpp
arpa/               n-gram models of SRILM and KenLM
onnx/               graphs for onnxruntime
"""
