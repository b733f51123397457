"""Attribution of a label's logit to tokens: it sums to the logit minus that of average tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.tiny import TINY_CLEAR, TINY_GPT2, TINY_LSTM, TINY_RECALL, VOCAB, shaken

from clearstory.errors import BadInput, CannotDo, UnknownName
from clearstory.lens.probes.architecture import architecture
from clearstory.lens.probes.label_attribution import (
    attribution,
    choose_word,
    encode_for_labels,
    words_of_text,
)
from clearstory.lens.registry import check_supported, supported_views
from clearstory.models.base import TokenBatch
from clearstory.models.build import count_parameters
from clearstory.models.heads import SequenceClassifier, TokenClassifier
from clearstory.models.transformer.presets import MINILM
from clearstory.text.train_tokenizer import train_tokenizer

TEXT = "a cat sat. a dog"
LABELS = ("joy", "anger", "none")
WORDPIECE = train_tokenizer(f"wordpiece:{VOCAB}", [TEXT] * 3)
CHARACTERS = train_tokenizer("characters", [TEXT])

BERT = replace(
    MINILM, vocab=WORDPIECE.vocab, context=40, width=16, layers=2, heads=2, kv_heads=2, head_dim=8, intermediate_size=32
)
BACKBONES: dict[str, Any] = {
    "bert": BERT,
    "gpt2": TINY_GPT2,
    "clear": TINY_CLEAR,
    "lstm": TINY_LSTM,
    "recall": TINY_RECALL,
}


def classifier(name: str, **options: Any) -> SequenceClassifier:
    torch.manual_seed(1)
    model = SequenceClassifier(shaken(BACKBONES[name]), LABELS, **options).double().eval()
    with torch.no_grad():
        model.classifier.weight.mul_(20)
    return model


def word_classifier(name: str) -> TokenClassifier:
    torch.manual_seed(2)
    model = TokenClassifier(shaken(BACKBONES[name]), ("O", "B-X", "I-X")).double().eval()
    with torch.no_grad():
        model.classifier.weight.mul_(20)
    return model


@pytest.mark.parametrize("name", BACKBONES)
def test_attributions_sum_to_the_difference_of_two_logits(name: str) -> None:
    model: Any = classifier(name, **({"pooling": "mean"} if name == "clear" else {}))
    tokenizer = WORDPIECE if name == "bert" else CHARACTERS
    encoded = encode_for_labels(model, tokenizer, TEXT)
    with torch.no_grad():
        logits = model.class_logits(TokenBatch.from_sequences([encoded.ids]))[0]
        embedding = model.backbone.embedding
        mean = embedding.weight.mean(0)
        handle = embedding.register_forward_hook(lambda module, inputs, out: torch.where(special[..., None], out, mean))
        special = torch.tensor(encoded.special)[None] if name != "lstm" else torch.tensor(encoded.special)[:, None]
        baseline = model.class_logits(TokenBatch.from_sequences([encoded.ids]))[0]
        handle.remove()
    for index, label in enumerate(LABELS):
        view = attribution(model, tokenizer, TEXT, words=(label,))
        totals: Any = dict(view.totals)
        assert totals["logit"] == pytest.approx(float(logits[index]))
        assert totals["logit of average tokens"] == pytest.approx(float(baseline[index]))
        assert totals["sum of attributions"] == pytest.approx(totals["difference"], rel=2e-3, abs=1e-5)
        values = [span.value for span in view.spans if span.value is not None]
        assert sum(values) == pytest.approx(totals["sum of attributions"])
        assert len(values) == len(encoded.ids) - sum(encoded.special)
        shown = [span.text for span in view.spans if span.cells or span.text.isspace()]  # no special tokens
        assert "".join(shown) == TEXT
    first = max(range(len(LABELS)), key=lambda index: float(logits[index]))
    assert attribution(model, tokenizer, TEXT).title == f"Attribution of the logit of ‘{LABELS[first]}’ to each token"
    two: Any = dict(attribution(model, tokenizer, TEXT, words=LABELS[:2]).totals)
    assert two["logit"] == pytest.approx(float(logits[0] - logits[1]))


@pytest.mark.parametrize("name", ["bert", "gpt2", "lstm"])
def test_the_label_of_a_word_is_attributed_to_all_tokens(name: str) -> None:
    model: Any = word_classifier(name)
    tokenizer = WORDPIECE if name == "bert" else CHARACTERS
    encoded = encode_for_labels(model, tokenizer, TEXT)
    with torch.no_grad():
        logits = model.class_logits(TokenBatch.from_sequences([encoded.ids]))[0]
    start = TEXT.index("sat")
    position = next(at for at, span in enumerate(encoded.spans) if span and span[1] > start)
    view = attribution(model, tokenizer, TEXT, word="sat", words=("B-X",))  # which is "sat." in the text
    totals: Any = dict(view.totals)
    assert view.title == "Attribution of the logit of ‘B-X’ of ‘sat.’ to each token"
    assert totals["logit"] == pytest.approx(float(logits[position, 1]))
    assert totals["sum of attributions"] == pytest.approx(totals["difference"], rel=2e-3, abs=1e-4)
    if name != "bert":  # a causal model reads nothing after the word
        after = [span for span, spans in zip(view.spans, encoded.spans, strict=True) if spans and spans[0] > start]
        assert {span.value for span in after} == {0.0}
    assert attribution(model, tokenizer, TEXT, word="3", words=("B-X",)) == view
    both: Any = dict(attribution(model, tokenizer, TEXT, word="sat.", words=("B-X", "O")).totals)
    assert both["logit"] == pytest.approx(float(logits[position, 1] - logits[position, 0]))


def test_without_a_name_the_first_labelled_word_is_attributed() -> None:
    model: Any = word_classifier("bert")
    encoded = encode_for_labels(model, WORDPIECE, TEXT)
    words = words_of_text(TEXT, encoded)
    assert [(each.text, each.number) for each in words] == [("a", 1), ("cat", 2), ("sat.", 3), ("a", 4), ("dog", 5)]
    logits = torch.zeros(len(encoded.ids), 3)
    assert choose_word(words, None, logits, model.config.labels, ()) == words[0]
    logits[words[3].position, 1] = 1
    assert choose_word(words, None, logits, model.config.labels, ()) == words[3]
    assert choose_word(words, None, logits, model.config.labels, ["O"]) == words[0]
    assert choose_word(words, "dog", logits, model.config.labels, ()) == words[4]


def test_a_path_that_jumps_at_the_first_token_moves_that_token_first() -> None:
    """F is 0 or 5 by a threshold on the first token, and then linear in the others: no straight line converges."""
    model: Any = classifier("lstm", pooling="mean")
    embedding = model.backbone.embedding.weight.detach()
    ids = CHARACTERS.encode("cat")
    mean, way = embedding.mean(0), embedding[ids[0]] - embedding.mean(0)
    slope = torch.linspace(-1, 1, embedding.shape[1], dtype=torch.float64)

    def logits(tokens: TokenBatch, token_types: Any = None) -> torch.Tensor:
        x = model.backbone.embedding(tokens.ids.t()).transpose(0, 1)
        on = 5 * torch.sigmoid(1e7 * ((x[:, 0] - mean) @ way / (way @ way) - 0.3))
        return torch.stack([on + (x[:, 1:] @ slope).sum(1), *[on * 0] * 2], dim=-1)

    model.class_logits = logits
    view = attribution(model, CHARACTERS, "cat", words=("joy",))
    values = [span.value for span in view.spans]
    assert values[0] == pytest.approx(5)
    assert values[1:] == pytest.approx(((embedding[ids[1:]] - mean) @ slope).tolist())
    assert str(view.caption).startswith("The first token's embedding changes")
    model.class_logits = lambda tokens, types=None: (
        logits(tokens)
        * torch.sigmoid(
            1e7 * (model.backbone.embedding(tokens.ids.t()).transpose(0, 1)[:, 1] - mean).norm(dim=-1, keepdim=True)
            - 1e6
        )
    )
    with pytest.raises(
        CannotDo, match=r"did not converge in 720 points: the logits differ by .*, and the attributions"
    ):
        attribution(model, CHARACTERS, "cat", words=("joy",))


def test_a_linear_model_is_attributed_its_terms() -> None:
    """Without layers that mix tokens, mean pooling makes the logit a sum over tokens: each is its own share."""
    model: Any = classifier("lstm", pooling="mean")
    width = model.config.width
    linear = torch.nn.Linear(model.backbone.config.width, width, bias=False, dtype=torch.float64)
    model.backbone.forward = lambda tokens, state=None: (
        linear(model.backbone.embedding(tokens.ids.t()).transpose(0, 1)), None
    )  # fmt: skip
    view = attribution(model, CHARACTERS, "cat", words=("joy",))
    embedding = model.backbone.embedding.weight
    moved = (embedding[CHARACTERS.encode("cat")] - embedding.mean(0)) @ linear.weight.T @ model.classifier.weight[0] / 3
    assert [span.value for span in view.spans] == pytest.approx(moved.tolist())


def test_it_is_refused_in_one_sentence() -> None:
    model: Any = classifier("gpt2")
    with pytest.raises(UnknownName, match="the model has no label 'joyful'; did you mean 'joy'"):
        attribution(model, CHARACTERS, TEXT, words=("joyful",))
    with pytest.raises(BadInput, match="words has 3 labels"):
        attribution(model, CHARACTERS, TEXT, words=LABELS)
    with pytest.raises(BadInput, match="labels whole texts, but word is 'cat'; leave word out"):
        attribution(model, CHARACTERS, TEXT, word="cat")
    with pytest.raises(BadInput, match=r"no word 'cats'; did you mean 'cat'"):
        attribution(word_classifier("gpt2"), CHARACTERS, TEXT, word="cats")
    with pytest.raises(CannotDo, match="needs a classification head"):
        check_supported("attribution", shaken(TINY_GPT2))  # type: ignore[arg-type]


def test_views_of_a_classifier_are_those_of_its_backbone_without_its_predictions() -> None:
    for name in ("gpt2", "bert", "lstm"):
        model: Any = classifier(name)
        views, of_backbone = set(supported_views(model)), set(supported_views(model.backbone))
        assert views - of_backbone == {"attribution"}
        assert of_backbone - views <= {
            "next-token", "surprisal", "generation", "logit-attribution", "neurons", "gradient-reach",
        }  # fmt: skip


@pytest.mark.parametrize("name", BACKBONES)
def test_the_figure_of_a_classifier_ends_with_its_labels(name: str) -> None:
    model: Any = classifier(name)
    figure = architecture(model, CHARACTERS, TEXT)
    assert [box.name for box in figure.boxes if box.name in ("unembedding", "softmax")] == []
    assert figure.boxes[-1].name == "labels"
    counted = sum(box.parameters * figure.repeats(box) for box in figure.boxes if box.parameters)
    assert counted == count_parameters(model)
