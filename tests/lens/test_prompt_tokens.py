"""Views show the very tokens that `generate` reads: special ones, chat templates, and nothing that a user typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clearstory.errors import BadSetting, CannotDo
from clearstory.lens.hooks.passage import encode_passage, number_duplicates
from clearstory.lens.registry import VIEWS, load_view
from clearstory.lens.views import Grid, HighlightedText, Report, Table
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.hmm.config import HMMConfig
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.prompts import PromptOptions
from clearstory.models.recurrent.config import RecurrentConfig
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL
from clearstory.recipes.inference.generate import generate
from clearstory.recipes.inference.inspect import inspect, reads_prompt
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, TINY_GPT2, shaken

TEXT = "The old king of the sea"
SIZES: dict[str, Any] = {"width": 16, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 24}

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def with_specials(*, bos: bool = False, eos: bool = False, chat: bool = False) -> Tokenizer:
    """A byte-level BPE tokenizer whose post-processor adds <s> and </s>, as in Llama and others."""
    plain = train_tokenizer("bpe:300", [TEXT * 20])
    contents = json.loads(plain.contents)
    names = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    ids = {name: plain.vocab + number for number, name in enumerate(names)}
    contents["added_tokens"] += [
        {"id": id, "content": name, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for name, id in ids.items()
    ]
    token = {name: {"SpecialToken": {"id": name, "type_id": 0}} for name in names}
    around = [*([token["<s>"]] if bos else []), {"Sequence": {"id": "A", "type_id": 0}}]
    around += [token["</s>"]] if eos else []
    contents["post_processor"] = {
        "type": "TemplateProcessing",
        "single": around,
        "pair": [*around, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in names},
    }
    config = {"bos_token": "<s>", "eos_token": "</s>"} | ({"chat_template": TEMPLATE} if chat else {})
    return Tokenizer(json.dumps(contents), config)


def opened(config: Any, tokenizer: Tokenizer) -> Any:
    """A model of a config for a tokenizer, as `clearstory.open` returns it."""
    return SimpleNamespace(model=shaken(replace(config, vocab=tokenizer.vocab)), tokenizer=tokenizer)


def counted(tokenizer: Tokenizer) -> Any:
    """An n-gram model of a tokenizer, fitted to the text."""
    ids = tokenizer.encode(TEXT * 9)
    model: Any = build(NGramConfig(vocab=tokenizer.vocab, order=3)).double()
    dataset = SimpleNamespace(ids=np.array(ids, np.uint16), starts=np.array([0, len(ids)]))
    list(model.fit(SimpleNamespace(**vars(dataset), byte_lengths=np.ones(tokenizer.vocab, int))))
    return SimpleNamespace(model=model, tokenizer=tokenizer)


CONTEXT: dict[str, Any] = {"context": 96}

READERS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: opened(replace(TINY_GPT2, **CONTEXT), train_tokenizer("bpe:300", [TEXT * 20])),
    "llama": lambda: opened(replace(TINY_CLEAR, **CONTEXT), with_specials(bos=True)),
    "both ends": lambda: opened(replace(TINY_CLEAR, **CONTEXT), with_specials(bos=True, eos=True)),
    "chat": lambda: opened(replace(TINY_CLEAR, **CONTEXT), with_specials(bos=True, chat=True)),
    "gru": lambda: opened(
        RecurrentConfig(vocab=2, cell="gru", width=6, hidden_size=6, layers=1), with_specials(bos=True)
    ),
    "hmm": lambda: opened(HMMConfig(vocab=2, states=5), with_specials(bos=True)),
    "ngram": lambda: counted(with_specials(bos=True)),
    "bert": lambda: opened(replace(BERT_TINY, **SIZES), train_tokenizer("wordpiece:90", [TEXT * 20])),
    "t5": lambda: opened(replace(T5_SMALL, **SIZES, decoder_start_token_id=0), with_specials(eos=True)),
}

SETTINGS: dict[str, dict[str, Any]] = {
    "interventions": {"edit": ("layer 0 x0.5",)},
    "activation-patching": {"other_text": "The old sea of the king", "words": ("e", "a")},
    "generation": {"max_tokens": 2, "temperature": 0.0},
}


def recorded_reads(reader: Any, run: Callable[[], Any]) -> list[tuple[int, ...]]:
    """The ids of every sequence that a model reads, and of every source, while `run` is called."""
    seen: list[tuple[int, ...]] = []
    original = TokenBatch.from_sequences

    def record(sequences: Any, device: Any = "cpu") -> TokenBatch:
        seen.extend(tuple(map(int, sequence)) for sequence in sequences)
        return original(sequences, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenBatch, "from_sequences", staticmethod(record))
        run()
    return seen


@pytest.mark.parametrize("name", READERS)
def test_every_view_reads_the_ids_that_generate_reads(name: str) -> None:
    reader = READERS[name]()
    passage = encode_passage(reader.model, reader.tokenizer, TEXT)
    ids = passage.text_ids
    if name != "bert":
        assert ids in recorded_reads(reader, lambda: generate(reader, TEXT, max_tokens=1, seed=0))
    expected = [view for view, spec in VIEWS.items() if spec.supports(reader.model) and reads_prompt(load_view(view))]
    assert "tokens" in expected
    for view in [view for view in expected if view not in ("qk-circuit", "ngram-counts", "backoff")]:
        settings = dict(SETTINGS.get(view, {}))
        if view in ("surprisal", "alignment") and name == "t5":
            settings["target"] = "the sea"
        if view in ("logit-lens", "interventions", "ablation", "activation-patching") and name == "bert":
            continue  # they need a [MASK]
        found: list[Any] = []

        def run(view: str = view, settings: dict[str, Any] = settings, found: list[Any] = found) -> None:
            found.append(inspect(reader, TEXT * (8 if view == "gradient-reach" else 1), view, **settings))

        read = recorded_reads(reader, run)
        if view == "gradient-reach":  # many copies of the text, in passages
            assert any(each[:3] == ids[:3] for each in read)
        elif view in SHOWN:
            shown = shown_tokens(view, found[0])
            assert shown in (list(passage.text_pieces), list(number_duplicates(passage.text_pieces))), view
        else:
            assert any(is_same_text(each, ids) for each in read), (view, read, ids)


SHOWN = ("tokens", "embeddings", "viterbi", "posteriors", "positions", "gates")
"""Views that are checked by the tokens that they show, since they read no batch of ids."""


def is_same_text(read: tuple[int, ...], ids: tuple[int, ...]) -> bool:
    """Whether a sequence is the prompt: with what was generated, without the last token (which is predicted), after a
    start token that the tokenizer does not add, or with one masked token.
    """
    masked = len(read) == len(ids) and sum(one != other for one, other in zip(read, ids, strict=True)) == 1
    return read[: len(ids)] == ids or ids[:-1] in (read, read[1:]) or masked


def shown_tokens(view: str, shown: Any) -> list[str]:
    """The tokens that a view has rows or columns for."""
    panel = shown.panels[0] if isinstance(shown, Report) else shown
    if view == "posteriors":
        return list(panel.column_labels)
    if isinstance(panel, Table):
        return [str(each) for each in panel.column("token")]
    assert isinstance(panel, Grid)
    return list(panel.row_labels)


def pieces_of(reader: Any, text: str, **settings: Any) -> list[str]:
    """The tokens that the view "tokens" shows."""
    report = inspect(reader, text, "tokens", **settings)
    assert isinstance(report, Report)
    table = report.panels[0]
    assert isinstance(table, Table)
    return [str(each) for each in table.column("token")]


def test_raw_text_is_read_without_the_template() -> None:
    reader = READERS["chat"]()
    whole, raw = pieces_of(reader, "the sea"), pieces_of(reader, "the sea", raw=True)
    assert raw[0] == "<s>"
    assert "".join(raw[1:]).replace("␣", " ") == "the sea"
    assert whole[:2] == ["<s>", "<|im_start|>"]
    assert "".join(whole).replace("␣", " ") == "<s><|im_start|>user↵the sea<|im_end|>↵<|im_start|>assistant↵"
    assert pieces_of(READERS["llama"](), "the sea") == raw


def test_a_system_message_is_read() -> None:
    whole = "".join(pieces_of(READERS["chat"](), "the sea", system="old"))
    assert whole.startswith("<s><|im_start|>system↵old<|im_end|>↵<|im_start|>user↵the")
    with pytest.raises(CannotDo, match="no chat template"):
        inspect(READERS["llama"](), "the sea", "tokens", system="old")
    with pytest.raises(BadSetting, match="'neighbours' uses words or sentences, not a prompt"):
        inspect(READERS["chat"](), "sea", "neighbours", system="old")


def test_special_tokens_can_be_left_out() -> None:
    assert "<s>" not in pieces_of(READERS["llama"](), "the sea", special_tokens=False)
    encoder = READERS["bert"]()
    assert pieces_of(encoder, "the sea")[:: len(pieces_of(encoder, "the sea")) - 1] == ["[CLS]", "[SEP]"]
    assert "[CLS]" not in pieces_of(encoder, "the sea", special_tokens=False)


def test_what_a_user_types_is_no_special_token() -> None:
    for name in ("llama", "chat"):
        reader = READERS[name]()
        usual, typed = pieces_of(reader, "the sea"), pieces_of(reader, "the <|im_end|></s> sea")
        specials = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
        assert [each for each in typed if each in specials] == [each for each in usual if each in specials]
        assert "".join(typed).count("<|im_end|>") == "".join(usual).count("<|im_end|>") + 1


def test_surprisal_shows_special_tokens_and_counts_the_text() -> None:
    plain, chat = READERS["llama"](), READERS["chat"]()
    view, whole = inspect(plain, "the sea", "surprisal"), inspect(chat, "the sea", "surprisal")
    assert isinstance(view, HighlightedText)
    assert isinstance(whole, HighlightedText)
    assert next((span.text, span.value) for span in view.spans) == ("<s>", None)
    assert "".join(span.text for span in view.spans) == "<s>the sea"
    for each in (view, whole):
        counted = [span for span in each.spans if span.value is not None]
        assert "".join(span.text for span in counted) == "the sea"
        assert dict(each.totals)["bytes"] == 7
        assert dict(each.totals)["tokens"] == len(counted)
    assert "".join(span.text for span in whole.spans).startswith("<s><|im_start|>")


def test_positions_count_every_token_that_is_read_and_spans_are_of_the_text() -> None:
    reader = READERS["chat"]()
    passage = encode_passage(reader.model, reader.tokenizer, "the sea")
    columns = tuple(at for at, span in enumerate(passage.spans) if span is not None)
    lens = inspect(reader, "the sea", "logit-lens", columns=columns)
    assert isinstance(lens, Grid)
    assert lens.column_labels == tuple(passage.labels[at] for at in columns)
    assert ["the sea"[slice(*passage.spans[at])] for at in columns if passage.spans[at]] == [
        passage.pieces[at].replace("␣", " ") for at in columns
    ]
    assert [passage.special[at] for at in range(len(passage.ids)) if at not in columns] == [True] * (
        len(passage.ids) - len(columns)
    )
    two = encode_passage(READERS["bert"]().model, READERS["bert"]().tokenizer, "the sea ||| the king")
    assert (
        two.token_types == (*[0] * two.token_types.count(0), *[1] * two.token_types.count(1))
        if two.token_types
        else False
    )
    assert [("the sea ||| the king")[slice(*span)] for span in two.spans if span][:1] == ["the"]
    assert two.pieces.count("[SEP]") == 2


def test_an_ngram_model_reads_its_start_token() -> None:
    reader = READERS["ngram"]()
    table = inspect(reader, "the sea", "backoff")
    assert isinstance(table, Table)
    assert table.column("token")[0] == "the"
    raw = encode_passage(reader.model, reader.tokenizer, "the sea", prompt=PromptOptions(add_special_tokens=False))
    assert raw.ids == encode_passage(reader.model, reader.tokenizer, "the sea").ids[1:]
