"""Evaluation of an encoder on a text: masked tokens as in training, next sentences, and pseudo-likelihood."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from clearstory.errors import BadInput
from clearstory.evaluation.masked import MaskedScore
from clearstory.evaluation.pseudo_likelihood import pseudo_token_nll, spread_positions
from clearstory.models.base import inference_mode
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.transformer.encoder import Encoder
from clearstory.recipes.inference.encoder_evaluation import EncoderEvaluation as EncoderEvaluation
from clearstory.text.document import Document
from clearstory.text.sentence_splitting import documents_by_sentence
from clearstory.text.token_dataset import TokenDataset, encode_documents
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.masked_batches import TokenMasking
from clearstory.training.objectives.mlm import MLM, NO_BITS_PER_BYTE

PSEUDO_TOKENS = 2000
"""Tokens scored by pseudo-likelihood where no limit is given: each costs a forward pass over its window."""


def evaluate_encoder(
    model: Encoder,
    tokenizer: Tokenizer,
    documents: Iterable[Document],
    *,
    limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> EncoderEvaluation:
    """Masked loss on a text, or on about `limit` tokens; and pseudo-likelihood of `limit` tokens, or PSEUDO_TOKENS."""
    started = time.perf_counter()
    documents = list(documents)
    dataset = encode_documents(tokenizer, documents)
    if not dataset.text_bytes:
        raise BadInput("the text is too short: it has no token to predict; give more text")
    with inference_mode(model):
        masked = score_masked_text(model, tokenizer, documents, dataset, limit)
        positions = spread_positions(dataset, limit or PSEUDO_TOKENS)
        scored, nats = pseudo_token_nll(model, tokenizer, dataset, positions, on_progress)
    return EncoderEvaluation(
        reason=NO_BITS_PER_BYTE,
        nats_per_token=masked.nats / masked.tokens,
        tokens=masked.tokens,
        next_sentence_accuracy=masked.accuracy,
        pairs=masked.pairs,
        pseudo_nats_per_token=float(nats.sum()) / max(1, len(scored)),
        pseudo_tokens=len(scored),
        documents=dataset.documents,
        context=model.config.context,
        seconds=time.perf_counter() - started,
    )


def score_masked_text(
    model: Encoder, tokenizer: Tokenizer, documents: Sequence[Document], dataset: TokenDataset, limit: int | None
) -> MaskedScore:
    """Masked loss as in training: over pairs of texts where the model has a head for them and the text has them."""
    masking, context = TokenMasking.from_tokenizer(tokenizer), model.config.context
    if has_capability(model, Capability.NSP_HEAD):
        sentences = encode_documents(tokenizer, documents_by_sentence(documents), append_eos=False)
        try:
            return MLM(masking, next_sentence=True).score(model, sentences, context, limit=limit)
        except BadInput:
            pass  # one document, or documents of one sentence
    return MLM(masking).score(model, dataset, context, limit=limit)
