"""Classification heads in float64: their logits by hand, what they share, freezing, depth, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.tiny import MODELS, TINY_CLEAR, TINY_GPT2, TINY_LSTM, TINY_RECALL, VOCAB, shaken

from clearstory.errors import BadSetting, CannotDo, ContextOverflow
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.head_config import MAX_LABELS, ClassifierConfig
from clearstory.models.heads import SequenceClassifier, TokenClassifier
from clearstory.models.layer_depths import freeze, parameters_by_depth
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL

SMALL: dict[str, Any] = {
    "vocab": VOCAB, "context": 24, "width": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 32,
    "layers": 2,
}  # fmt: skip
BERT = replace(BERT_TINY, **SMALL)
LABELS = ("bad", "good", "neither")
TEXTS = TokenBatch.from_sequences([[5, 6, 7, 8, 9], [1, 2]])


def test_the_logits_of_an_encoder_are_of_its_pooled_first_token() -> None:
    backbone: Any = shaken(BERT)
    types = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 0, 0, 0]])
    model = SequenceClassifier(backbone, LABELS).double().eval()
    hidden = backbone.encode(TEXTS, types)
    head = model.classifier
    pooled = torch.tanh(hidden[:, 0] @ backbone.pooler.weight.T + backbone.pooler.bias)
    torch.testing.assert_close(model.class_logits(TEXTS, types), pooled @ head.weight.T + head.bias)
    assert not torch.allclose(model.class_logits(TEXTS), model.class_logits(TEXTS, types))
    of_tokens = TokenClassifier(backbone, LABELS).double().eval()
    expected = hidden @ of_tokens.classifier.weight.T + of_tokens.classifier.bias
    torch.testing.assert_close(of_tokens.class_logits(TEXTS, types), expected)
    mean = SequenceClassifier(backbone, LABELS, pooling="mean").double().eval()
    averaged = torch.stack([hidden[0].mean(0), hidden[1, :2].mean(0)])
    expected = averaged @ mean.classifier.weight.T + mean.classifier.bias
    torch.testing.assert_close(mean.class_logits(TEXTS, types), expected)


@pytest.mark.parametrize("config", [TINY_GPT2, TINY_CLEAR, TINY_LSTM, TINY_RECALL])
def test_the_logits_of_a_decoder_are_of_its_last_token(config: Any) -> None:
    backbone: Any = shaken(config)
    model = SequenceClassifier(backbone, LABELS).double().eval()
    assert model.classifier.bias is None
    for row, length in enumerate((5, 2)):
        hidden, _ = backbone.forward(TokenBatch(TEXTS.ids[row : row + 1, :length]))
        last = hidden[0, -1, : model.config.width]
        torch.testing.assert_close(model.class_logits(TEXTS)[row], model.classifier.weight @ last)
    assert not {Capability.CAUSAL, Capability.OUTPUT_EMBEDDINGS} & model.capabilities
    assert has_capability(model, Capability.CLASSIFIER)
    for refused in (model.init_state, lambda: model.token_nll(TEXTS, TEXTS.ids)):
        with pytest.raises(CannotDo, match="has a classification head and does not predict tokens"):
            refused()


def test_dropout_is_of_the_classifier_s_input() -> None:
    model = SequenceClassifier(build(replace(BERT, dropout=0.0), seed=1), LABELS, classifier_dropout=0.5)
    assert not torch.equal(model.class_logits(TEXTS), model.class_logits(TEXTS))
    model.eval()
    torch.testing.assert_close(model.class_logits(TEXTS), model.class_logits(TEXTS), rtol=0, atol=0)
    assert SequenceClassifier(build(replace(BERT, dropout=0.25)), LABELS).config.classifier_dropout == 0.25


def test_the_backbone_lacks_heads_of_language_models_and_shares_its_weights() -> None:
    whole: Any = build(replace(TINY_CLEAR, tie_embeddings=False), seed=1)
    model = SequenceClassifier(whole, LABELS)
    assert whole.unembedding is not None
    assert "backbone.unembedding.weight" not in model.state_dict()
    assert model.backbone.embedding.weight.data_ptr() == whole.embedding.weight.data_ptr()
    again = TokenClassifier(model, ("O", "B"))  # of a classifier, the backbone
    assert again.config == ClassifierConfig(backbone=whole.config, labels=("O", "B"))
    assert build(again.config).state_dict().keys() == again.state_dict().keys()
    with pytest.raises(CannotDo, match="in place of its output embeddings"):
        model.logits(model.encode(TEXTS))
    with pytest.raises(ContextOverflow):
        model.class_logits(TokenBatch.from_sequences([[1] * 25]))


def test_layers_are_frozen_from_the_bottom_and_listed_by_depth() -> None:
    model = SequenceClassifier(build(BERT, seed=1), LABELS)
    depths = parameters_by_depth(model)
    assert [sorted({name.partition(".")[0] for name in depth}) for depth in depths] == [
        ["backbone"], ["backbone"], ["backbone"], ["classifier", "pooler"],
    ]  # fmt: skip
    assert {name.split(".")[1] for name in depths[0]} == {
        "embedding", "position_embedding", "token_type_embedding", "embedding_norm",
    }  # fmt: skip
    assert sum(map(len, depths)) == len(list(model.parameters()))
    freeze(model, 0)
    assert all(each.requires_grad for each in model.parameters())
    freeze(model, 1)
    assert [len(depth) for depth in parameters_by_depth(model)] == [0, 0, 16, 4]
    freeze(model, "all")
    assert {name for name, each in model.named_parameters() if each.requires_grad} == set(depths[-1])
    with pytest.raises(BadSetting, match="freeze is 3, and the model has 2 layers; give 0 to 2, or all"):
        freeze(model, 3)
    lstm = SequenceClassifier(build(TINY_LSTM), LABELS)
    freeze(lstm, 2)
    assert [len(depth) for depth in parameters_by_depth(lstm)] == [0, 0, 0, 1]


@pytest.mark.parametrize("name", ["hmm", "ngram", "mixture", "t5"])
def test_models_without_one_stack_of_hidden_states_get_no_head(name: str) -> None:
    small = {**SMALL, "decoder_start_token_id": 0}
    model = build(replace(T5_SMALL, **small)) if name == "t5" else MODELS[name]()
    with pytest.raises(CannotDo, match="cannot have a classification head"):
        SequenceClassifier(model, LABELS)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"labels": ()}, "labels are 0; give 1 to"),
    ({"labels": ("a", "b", "a")}, "labels has 'a' more than once"),
    ({"labels": tuple(map(str, range(MAX_LABELS + 1)))}, "labels are 65,537"),
    ({"labels": ("a",), "pooling": "pooler"}, "a single label distinguishes nothing; give at least 2"),
    ({"problem_type": "regression"}, "problem_type is regression, but each token has one label"),
    ({"pooling": "last"}, "an encoder's last token does not represent the text"),
    (
        {"backbone": TINY_GPT2, "pooling": "pooler"},
        "pooling is pooler, which only encoders have, but the model is a decoder",
    ),
    ({"classifier_dropout": 1.0}, "classifier_dropout is 1.0"),
]


@pytest.mark.parametrize(("fields", "sentence"), REFUSED)
def test_settings_that_disagree_are_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadSetting, match=sentence):
        ClassifierConfig(**{"backbone": BERT, "labels": LABELS, **fields})
