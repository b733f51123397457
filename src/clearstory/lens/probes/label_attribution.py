"""Label attribution: how much each token of a text moved the logit of a label, of the text or of one of its words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, UnknownName, nearest
from clearstory.lens.probes.integrated_gradients import Attribution, integrated_gradients
from clearstory.lens.views import HighlightedText, Span
from clearstory.models.base import LanguageModel, TokenBatch
from clearstory.models.capabilities import Capability, require
from clearstory.models.heads import ClassificationHead
from clearstory.text.encoding import EncodedText, encode_text
from clearstory.text.special_tokens import cls_and_sep_ids
from clearstory.text.tokenizers import Tokenizer


class LabelledWord(NamedTuple):
    """A word of a text, the position of its first token, at which its label is read, and its number from 1."""

    text: str
    position: int
    number: int


def attribution(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    word: str | None = None,
    words: str | Sequence[str] = (),
) -> HighlightedText:
    """The attribution of a label's logit to each token of a text, by integrated gradients; they sum to the logit minus
    that of a text of average tokens.

    `words` names the label, by default the most likely; of two, the difference of their logits is attributed. Of a
    model that labels words, `word` names the word, by its text or by its number from 1; by default the first that has
    another label than O. Raises CannotDo for a model without a head, UnknownName for a label that it does not have,
    BadInput for a word that is not in the text.
    """
    network, encoded, labels, chosen = read_labels(model, tokenizer, text, word, words)
    position = None if chosen is None else chosen.position
    direction = label_direction(network, labels)

    def score(logits: Tensor) -> Tensor:
        scores: Tensor = (logits if position is None else logits[:, position]) @ direction
        return scores

    found = integrated_gradients(network, encoded.ids, encoded.special, score)
    name = " minus ".join(f"‘{label}’" for label in labels)
    return attribution_view(tokenizer, text, encoded, found, name if chosen is None else f"{name} of ‘{chosen.text}’")


def chosen_label(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    word: str | None = None,
    words: str | Sequence[str] = (),
) -> dict[str, Any]:
    """The labels and the number of the word that `attribution` shows."""
    _, _, labels, chosen = read_labels(model, tokenizer, text, word, words)
    return {"words": tuple(labels)} if chosen is None else {"words": tuple(labels), "word": str(chosen.number)}


def read_labels(
    model: LanguageModel, tokenizer: Tokenizer, text: str, word: str | None, words: str | Sequence[str]
) -> tuple[Any, EncodedText, Sequence[str], LabelledWord | None]:
    """The classifier, the text as it reads it, the labels that are attributed, and the word that has them; None if
    the text has.
    """
    require(model, Capability.CLASSIFIER)
    network: Any = model
    encoded = encode_for_labels(network, tokenizer, text)
    if all(encoded.special):
        raise BadInput("the text has no tokens; give some words to attribute the label to")
    labels = [words] if isinstance(words, str) else list(words)
    check_labels(network, labels)
    logits = label_logits(network, encoded)
    names = network.config.labels
    if network.config.label_level == "token":
        chosen = choose_word(words_of_text(text, encoded), word, logits, names, labels)
        return network, encoded, labels or [names[int(logits[chosen.position].argmax())]], chosen
    if word is not None:
        raise BadInput(f"this model labels whole texts, but word is {word[:60]!r}; leave word out")
    return network, encoded, labels or [names[int(logits.argmax())]], None


def attribution_view(
    tokenizer: Tokenizer, text: str, encoded: EncodedText, found: Attribution, name: str
) -> HighlightedText:
    """The text with the attribution of each token; `name` describes the logit."""
    moved = found.tokens.tolist()
    largest = max(max(map(abs, moved)), 1e-9)
    most = max(range(len(moved)), key=lambda index: abs(moved[index]))
    path = (
        "The first token's embedding changes from the mean of all to its own, then those of the others in a straight "
        "line, since the model changes too fast on a straight line of all"
        if found.first_alone
        else "Integrated gradients from the mean of all token embeddings to those of the text"
    )
    return HighlightedText(
        title=f"Attribution of the logit of {name} to each token",
        spans=attribution_spans(tokenizer, text, encoded, moved),
        unit="logits",
        columns=("token", "id"),
        thresholds=tuple(largest * share for share in (0.1, 0.25, 0.5, 0.75, 0.95)),
        signed=True,
        totals=(
            ("logit", found.value),
            ("logit of average tokens", found.baseline),
            ("difference", found.value - found.baseline),
            ("sum of attributions", sum(moved)),
        ),
        caption=f"{path}. Most: ‘{tokenizer.display_token(encoded.ids[most])}’ with {moved[most]:+.3g} of "
        f"{found.value - found.baseline:+.3g}.",
    )


def encode_for_labels(network: ClassificationHead, tokenizer: Tokenizer, text: str) -> EncodedText:
    """The ids of a text as `classify` and `tag` read it, special tokens included."""
    if Capability.BIDIRECTIONAL not in network.capabilities:
        return encode_text(tokenizer, text)
    first, last = cls_and_sep_ids(tokenizer)
    return encode_text(tokenizer, text, add_special_tokens=False).surrounded((first,), (last,))


def words_of_text(text: str, encoded: EncodedText) -> list[LabelledWord]:
    """The words between white space that have a token."""
    positions = ((match[0], first_position(encoded, match.span())) for match in re.finditer(r"\S+", text))
    known = ((word, position) for word, position in positions if position is not None)
    return [LabelledWord(word, position, number) for number, (word, position) in enumerate(known, start=1)]


def choose_word(
    found: Sequence[LabelledWord],
    word: str | None,
    logits: Float[Tensor, "T labels"],
    names: Sequence[str],
    labels: Sequence[str],
) -> LabelledWord:
    """The word that is named; without a name the first whose most likely label is the first of `labels`, or without
    those any but O.

    Raises BadInput for a word that is not in the text.
    """
    if word is not None:
        return named_word(found, word)
    best = [names[int(logits[each.position].argmax())] for each in found]
    wanted = (at for at, label in enumerate(best) if (label == labels[0] if labels else label != "O"))
    return found[next(wanted, 0)]


def named_word(found: Sequence[LabelledWord], word: str) -> LabelledWord:
    """The word with this text, without punctuation around it if there is no other, or with this number from 1."""
    known = [each.text for each in found]
    for texts in (known, [re.sub(r"^\W+|\W+$", "", each) for each in known]):
        if word in texts:
            return found[texts.index(word)]
    if word.isdecimal() and 1 <= int(word) <= len(found):
        return found[int(word) - 1]
    raise BadInput(f"the text has no word {word[:60]!r}; {nearest(word, known)}")


def first_position(encoded: EncodedText, span: tuple[int, int]) -> int | None:
    """The position of the first token that overlaps these characters; None if there is none."""
    return next((at for at, each in enumerate(encoded.spans) if each and each[0] < span[1] and each[1] > span[0]), None)


def check_labels(network: ClassificationHead, labels: Sequence[str]) -> None:
    """Raise UnknownName for a label that the model does not have, BadInput for more than two."""
    known = network.config.labels
    for label in labels:
        if label not in known:
            raise UnknownName(f"the model has no label {label[:60]!r}; {nearest(label, known)}")
    if len(labels) > 2:
        raise BadInput(f"words has {len(labels)} labels; give one, or two whose difference is attributed")


@torch.no_grad()
def label_logits(network: ClassificationHead, encoded: EncodedText) -> Float[Tensor, "*T labels"]:
    """The logits of a text's labels, or those of each token."""
    training = network.training
    try:
        logits: Tensor = network.eval().class_logits(
            TokenBatch.from_sequences([encoded.ids], network.classifier.weight.device)
        )[0]
    finally:
        network.train(training)
    return logits


def label_direction(network: ClassificationHead, labels: Sequence[str]) -> Float[Tensor, "labels"]:
    """The weights of the labels' logits in the attributed number: the first minus the second."""
    weight = network.classifier.weight
    weights = torch.zeros(len(network.config.labels), dtype=weight.dtype, device=weight.device)
    for label, sign in zip(labels, (1.0, -1.0), strict=False):
        weights[network.config.labels.index(label)] += sign
    return weights


def attribution_spans(
    tokenizer: Tokenizer, text: str, encoded: EncodedText, moved: Sequence[float]
) -> tuple[Span, ...]:
    """The text as one span for each token with its attribution; other text and special tokens have no value."""
    spans, done = [], 0
    for id, span, value in zip(encoded.ids, encoded.spans, moved, strict=True):
        name = tokenizer.display_token(id)
        if span is None:
            spans.append(Span(name, None))
            continue
        start, stop = max(span[0], done), max(span[1], done)
        if start > done:
            spans.append(Span(text[done:start], None))
        spans.append(Span(text[start:stop], value, f"{value:+.3g}", (name, id)))
        done = stop
    if done < len(text):
        spans.append(Span(text[done:], None))
    return tuple(spans)
