"""Small tokenizers and models of ten published kinds, in the files that such models ship.

The normalizers, pre-tokenizers, post-processors, added tokens, tokenizer configs and chat templates have the structure
of the published ones; the vocabularies are trained on a few sentences.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from clearstory.text.sentencepiece import parse_model
from clearstory.text.tokenizers import Tokenizer as ClearstoryTokenizer

SENTENCES = [
    "The quick brown fox jumps over the lazy dog. It's 3:45 on the 12th of March 2024!",
    "What is the capital of France? Paris is the capital of France, isn't it?",
    "def f(x):\n    return x**2 + 1000\n\nprint(f(3))  # nine",
    "naïve café Führer нещо на Български 東京タワー 🙂 👍",
    "She said: \"Hello, world!\" and they'd left; we'll see 1234567890 tokens.",
    "user assistant system model INST <> You are a helpful assistant.",
] * 3

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")

CHATML = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}"
    "{%- endif %}{%- for message in messages %}{%- if message.role != 'system' %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
LLAMA2_CHAT = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}"
    "{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token}}{% endif %}"
    "{% endfor %}"
)
LLAMA3_CHAT = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + "
    "'<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
GEMMA_CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"
)
PHI3_CHAT = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}"
    "{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)


def write(folder: Path, contents: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    (folder / "tokenizer.json").write_text(json.dumps(contents), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def added(contents: Mapping[str, Any], tokens: Mapping[str, bool], **flags: bool) -> list[dict[str, Any]]:
    """Added tokens at the end of a vocabulary, or at their ids in it; whether each is special."""
    vocab = contents["model"]["vocab"]
    known = dict(vocab) if isinstance(vocab, dict) else {piece: id for id, (piece, _) in enumerate(vocab)}
    base = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, **flags}
    rows, size = [], len(vocab)
    for token, special in tokens.items():
        rows.append({"id": known.get(token, size), "content": token, **base, "special": special})
        size += token not in known
    return rows


def template(ids: Mapping[str, int], before: list[str], after: list[str]) -> dict[str, Any]:
    """A post-processor with special tokens before and after a text."""

    def marks(tokens: list[str], kind: int) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": token, "type_id": kind}} for token in tokens]

    first, second = ({"Sequence": {"id": name, "type_id": kind}} for kind, name in enumerate("AB"))
    single = [*marks(before, 0), first, *marks(after, 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, *marks(before, 1), second, *marks(after, 1)],
        "special_tokens": {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in (*before, *after)},
    }


def byte_level(pattern: str | None, special: list[str], *, nfc: bool = False) -> dict[str, Any]:
    """A byte-level BPE with the special tokens at the end of its vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    contents: dict[str, Any] = json.loads(tokenizer.to_str())
    if pattern is not None:
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        bytes_only = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
        contents["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, bytes_only]}
    contents["normalizer"] = {"type": "NFC"} if nfc else None
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    contents |= {"post_processor": level, "decoder": level}
    contents["added_tokens"] = added(contents, dict.fromkeys(special, True))
    return contents


def spm(kind: str, **options: Any) -> bytes:
    """A SentencePiece model."""
    out = io.BytesIO()
    settings = {"vocab_size": 420, "hard_vocab_limit": False, "minloglevel": 2, "model_type": kind, **options}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(SENTENCES), model_writer=out, **settings)
    return out.getvalue()


def sentencepiece_json(folder: Path, special: Mapping[str, bool], **flags: bool) -> dict[str, Any]:
    """The tokenizer.json of a SentencePiece BPE with byte fallback, as published for Llama 2."""
    options = {"byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    (folder / "tokenizer.model").write_bytes(spm("bpe", split_digits=True, **options))
    contents: dict[str, Any] = json.loads(ClearstoryTokenizer.open(folder / "tokenizer.model").contents)
    (folder / "tokenizer.model").unlink()
    contents["added_tokens"] = added(contents, {"<unk>": True, "<s>": True, "</s>": True}) + added(
        contents, special, **flags
    )
    contents["post_processor"] = template({"<s>": 1}, ["<s>"], [])
    return contents


LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def gpt2(folder: Path) -> None:
    end = "<|endoftext|>"
    contents = byte_level(None, [end])
    config = {"tokenizer_class": "GPT2Tokenizer", "bos_token": end, "eos_token": end, "unk_token": end}
    write(folder, contents, {**config, "add_prefix_space": False, "model_max_length": 64})


def llama2(folder: Path) -> None:
    config = {"tokenizer_class": "LlamaTokenizer", **LLAMA_TOKENS, "legacy": False, "add_bos_token": True}
    more = {"add_eos_token": False, "chat_template": LLAMA2_CHAT, "model_max_length": 10**30}
    write(folder, sentencepiece_json(folder, {}), {**config, **more})


def mistral(folder: Path) -> None:
    config = {"tokenizer_class": "LlamaTokenizer", **LLAMA_TOKENS, "legacy": True, "chat_template": MISTRAL_CHAT}
    write(folder, sentencepiece_json(folder, {}), {**config, "add_bos_token": True, "add_eos_token": False})


def phi3(folder: Path) -> None:
    special = dict.fromkeys(("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"), True)
    contents = sentencepiece_json(folder, special, rstrip=True)
    contents["post_processor"] = template({}, [], [])
    config = {"tokenizer_class": "LlamaTokenizer", **LLAMA_TOKENS, "eos_token": "<|endoftext|>", "legacy": False}
    write(folder, contents, {**config, "add_bos_token": False, "chat_template": PHI3_CHAT})


def llama3(folder: Path) -> None:
    names = ("begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id")
    contents = byte_level(LLAMA3_PATTERN, [f"<|{name}|>" for name in names])
    contents["model"]["ignore_merges"] = True
    ids = {token["content"]: token["id"] for token in contents["added_tokens"]}
    bos = template(ids, ["<|begin_of_text|>"], [])
    contents["post_processor"] = {"type": "Sequence", "processors": [contents["post_processor"], bos]}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>"}
    write(folder, contents, {**config, "eos_token": "<|eot_id|>", "chat_template": LLAMA3_CHAT})


def qwen(folder: Path) -> None:
    contents = byte_level(QWEN_PATTERN, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], nfc=True)
    contents["added_tokens"] += added(
        {"model": {"vocab": dict.fromkeys(range(len(contents["model"]["vocab"]) + 3))}},
        {"<tool_call>": False, "</think>": False},
    )
    config = {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": "<|im_end|>"}
    write(folder, contents, {**config, "pad_token": "<|endoftext|>", "add_bos_token": False, "chat_template": CHATML})


def gemma(folder: Path) -> None:
    contents = sentencepiece_json(folder, {"<start_of_turn>": True, "<end_of_turn>": True})
    names = {"<s>": "<bos>", "</s>": "<eos>"}
    vocab = contents["model"]["vocab"]
    contents["model"]["vocab"] = {names.get(token, token): id for token, id in vocab.items()}
    for token in contents["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    contents["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    contents["pre_tokenizer"] = {
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
    }  # fmt: skip
    contents["decoder"]["decoders"] = contents["decoder"]["decoders"][:3]
    contents["post_processor"] = template({"<bos>": 1}, ["<bos>"], [])
    config = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    write(folder, contents, {**config, "add_bos_token": True, "chat_template": GEMMA_CHAT})


def bert(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    contents: dict[str, Any] = json.loads(tokenizer.to_str())
    contents["post_processor"] = template({"[CLS]": 2, "[SEP]": 3}, ["[CLS]"], ["[SEP]"])
    contents["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "mask_token": "[MASK]", "unk_token": "[UNK]"}
    write(folder, contents, {**config, "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"})


def t5(folder: Path) -> None:
    model = parse_model(spm("unigram", vocab_size=300, pad_id=0, eos_id=1, unk_id=2, bos_id=-1))
    import base64

    vocab = [[piece, score] for piece, score, _ in model.pieces]
    vocab += [[f"<extra_id_{number}>", 0.0] for number in range(99, -1, -1)]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    charsmap = base64.b64encode(model.charsmap).decode()
    contents: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": template({"</s>": 1}, [], ["</s>"]),
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": False},
    }
    extra = [f"<extra_id_{number}>" for number in range(100)]
    contents["added_tokens"] = sorted(
        added(contents, dict.fromkeys(["<pad>", "</s>", "<unk>", *extra], True)), key=lambda token: token["id"]
    )
    config = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    write(folder, contents, {**config, "extra_ids": 100, "additional_special_tokens": extra})


def marian(folder: Path) -> None:
    pieces: dict[str, int] = {"</s>": 0, "<unk>": 1}
    for name in ("source", "target"):
        data = spm("unigram", vocab_size=300, bos_id=-1, unk_id=1, eos_id=0)
        (folder / f"{name}.spm").write_bytes(data)
        for piece, _, _ in parse_model(data).pieces:
            pieces.setdefault(piece, len(pieces))
    pieces["<pad>"] = len(pieces)
    (folder / "vocab.json").write_text(json.dumps(pieces), encoding="utf-8")
    config = {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "de", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**config, "unk_token": "<unk>", "pad_token": "<pad>", "model_max_length": 64}), encoding="utf-8"
    )


def decoder(config: str, model: str) -> Callable[[int], Any]:
    """A decoder with random weights for a vocabulary."""

    def build(vocab: int) -> Any:
        special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
        sizes = {**SIZES, "max_position_embeddings": 128, "tie_word_embeddings": model == "GPT2LMHeadModel"}
        if model == "GPT2LMHeadModel":
            sizes["n_inner"] = sizes.pop("intermediate_size")
        else:
            sizes["num_key_value_heads"] = 2
        return getattr(transformers, model)(getattr(transformers, config)(vocab_size=vocab, **sizes, **special))

    return build


def bert_model(vocab: int) -> Any:
    return transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=vocab, **SIZES, max_position_embeddings=128))


def t5_model(vocab: int) -> Any:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "tie_word_embeddings": False}
    ends = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=vocab, **sizes, **ends))


def marian_model(vocab: int) -> Any:
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 128}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    pad = vocab - 1
    ends = {"decoder_start_token_id": pad, "pad_token_id": pad, "eos_token_id": 0, "forced_eos_token_id": 0}
    settings = {"static_position_embeddings": True, "scale_embedding": True, "bad_words_ids": [[pad]], "num_beams": 1}
    return transformers.MarianMTModel(transformers.MarianConfig(vocab_size=vocab, **sizes, **heads, **ends, **settings))


SEQ2SEQ = ("t5", "marian")

LLAMA = decoder("LlamaConfig", "LlamaForCausalLM")

KINDS: dict[str, tuple[Callable[[Path], None], Callable[[int], Any]]] = {
    "gpt2": (gpt2, decoder("GPT2Config", "GPT2LMHeadModel")),
    "llama2": (llama2, LLAMA),
    "llama3": (llama3, LLAMA),
    "mistral": (mistral, decoder("MistralConfig", "MistralForCausalLM")),
    "gemma": (gemma, LLAMA),
    "qwen": (qwen, decoder("Qwen3Config", "Qwen3ForCausalLM")),
    "phi3": (phi3, decoder("Phi3Config", "Phi3ForCausalLM")),
    "bert": (bert, bert_model),
    "t5": (t5, t5_model),
    "marian": (marian, marian_model),
}
"""For each kind, the function that writes its tokenizer and the function that builds a model."""


@cache
def open_with_transformers(folder: Path, kind: str) -> tuple[Any, Any]:
    """The model and the tokenizer of a folder."""
    model = transformers.AutoModelForSeq2SeqLM if kind in SEQ2SEQ else transformers.AutoModelForCausalLM
    return model.from_pretrained(folder).eval(), transformers.AutoTokenizer.from_pretrained(folder)


def generate_with_transformers(folder: Path, kind: str, prompt: str, **settings: Any) -> list[int]:
    """Ids that transformers generates after a prompt, by the folder's generation_config.json and these settings."""
    model, tokenizer = open_with_transformers(folder, kind)
    model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        ids: list[int] = model.generate(**inputs, pad_token_id=0, **settings)[0].tolist()
    return ids[1 if kind in SEQ2SEQ else inputs["input_ids"].shape[1] :]


def write_kind(folder: Path, kind: str, **generation: Any) -> None:
    """Write a folder with a model and a tokenizer; `generation`: settings of its generation_config.json."""
    write_tokenizer, build = KINDS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    vocab = json.loads((folder / ("vocab.json" if kind == "marian" else "tokenizer.json")).read_text(encoding="utf-8"))
    if kind != "marian":
        added_ids = [token["id"] + 1 for token in vocab["added_tokens"]]
        vocab = range(max([len(vocab["model"]["vocab"]), *added_ids]))
    torch.manual_seed(len(kind))
    model = build(len(vocab)).eval()
    with torch.no_grad():
        for weight in model.parameters():  # so far from zero that no two logits are nearly equal
            weight.copy_(torch.randn_like(weight) * (0.4 if weight.ndim > 1 else 0.1) + (weight.ndim == 1))
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
