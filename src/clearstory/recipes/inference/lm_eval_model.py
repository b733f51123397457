"""ClearstoryLM: models of every family for EleutherAI's lm-evaluation-harness, registered there as "clearstory".

    python -m clearstory.recipes.inference.lm_eval_model --model clearstory --model_args pretrained=FOLDER --tasks NAME

is the harness's own command line with this model. Requires the extra `eval`. Numbers are those of the harness's `hf`
model: the same ids, the same windows of long texts, the same token before an empty context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from clearstory.errors import BadSetting
from clearstory.evaluation.continuation_requests import ContinuationRequest, rolling_requests
from clearstory.evaluation.continuations import ContinuationScorer
from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.generation.stream_decoder import StreamDecoder
from clearstory.models.base import reads_source
from clearstory.models.capabilities import Capability, require
from clearstory.models.inference_model import inference_model
from clearstory.models.prompts import find_start_token_id
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_generator
from clearstory.text.chat_template import ChatTemplate, find_template
from clearstory.text.continuation_encoding import encode_continuation
from clearstory.text.encoding import encode_parsing

MAX_GENERATED = 256
"""Default number of generated tokens of a request, as in the harness."""


TOKENS_OF_SEQUENCE = 128
"""Tokens of a forward pass for each sequence of a batch size: sequences are packed, not padded."""

HARNESS_DEVICE = "cuda:0"
"""The device that the harness's command line passes by default."""


@register_model("clearstory")
class ClearstoryLM(TemplateLM):  # type: ignore[misc]  # the harness has no types
    """A model with the interface of the harness: log-likelihoods of continuations and of whole texts, and generation.

    Args:
        pretrained: a model folder, run folder, checkpoint or .gguf file, or an opened model.
        batch_size: sequences of about 128 tokens in a forward pass; for other lengths the number of tokens is the same;
            1 and "auto": the default number.
        device: cpu, cuda, mps or auto.
        max_length: tokens of context used; the model's own by default.
        max_gen_toks: default number of generated tokens of a request.
        on_progress: called with the number of finished requests and of all requests.
    """

    def __init__(
        self,
        pretrained: str | Path | ModelWithTokenizer,
        *,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        max_length: int | None = None,
        max_gen_toks: int = MAX_GENERATED,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__()
        if device == HARNESS_DEVICE and not torch.cuda.is_available():  # nobody asked for it
            device = None
        self.network, self.tokenizer, self.generation_config = load_generator(pretrained, device)
        require(self.network, Capability.CAUSAL)
        self.name = str(pretrained) if isinstance(pretrained, str | Path) else "clearstory"
        self.max_gen_toks, self.on_progress = int(max_gen_toks), on_progress
        self.backend = "seq2seq" if reads_source(self.network) else "causal"
        context = self.network.context
        if max_length is not None and context is not None and max_length > context:
            raise BadSetting(f"max_length is {max_length:,} and the model's context holds {context:,} tokens")
        self.max_length: int | None = context if max_length is None else int(max_length)
        config: Any = getattr(self.network, "config", None)
        self.start_token_id = find_start_token_id(config, self.tokenizer)
        # The harness's command line passes 1 where no size is given.
        size = 0 if batch_size is None or str(batch_size).startswith("auto") else int(batch_size)
        sizes = {"max_batch_tokens": TOKENS_OF_SEQUENCE * size} if size > 1 else {}
        self.scorer = ContinuationScorer(self.network, self.start_token_id, **sizes)
        self._encode_context = lru_cache(4096)(lambda text: tuple(self.tok_encode(text)))

    @property
    def eot_token_id(self) -> int | None:
        """The token that ends a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int | None:
        """The token before an empty context: that which starts texts, else the one that ends them."""
        start = self.tokenizer.bos_token_id
        return self.tokenizer.eos_token_id if start is None else start

    @property
    def tokenizer_name(self) -> str:
        """Name of the model, by which the harness keeps its cache of requests apart."""
        return self.name.replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """Information on the model that the harness writes into its results."""
        weights = self.network.parameters() if hasattr(self.network, "parameters") else ()
        return {"model_num_parameters": sum(each.numel() for each in weights), "model_dtype": "float32"}

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids of a text in which special tokens are parsed, as those of a rendered chat template are.

        With the special tokens that the tokenizer adds around a text, unless `add_special_tokens` is False or the text
        starts with the token that starts texts.
        """
        tokenizer = self.tokenizer
        start = None if tokenizer.bos_token_id is None else tokenizer.display_token(tokenizer.bos_token_id)
        adds = add_special_tokens if add_special_tokens is not None else not (start and string.startswith(start))
        adds = adds and bool(tokenizer.post_processor_ids)
        names = [name for name in tokenizer.special_names if name in string]
        if names:
            return list(encode_parsing(tokenizer, string, names, add_special_tokens=adds).ids)
        return tokenizer.encode_plain_ids(string, True) if adds else tokenizer.encode(string)

    def encode_pair(self, context: str, continuation: str) -> ContinuationRequest:
        """A context and a continuation as ids; both are encoded together, or apart for an encoder-decoder."""

        def bare(text: str) -> Sequence[int]:
            return self.tok_encode(text, add_special_tokens=False)

        if self.backend == "seq2seq":
            stripped = context.rstrip()
            source = self._encode_context(stripped)
            return ContinuationRequest(source, tuple(bare(context[len(stripped) :] + continuation)))
        encode = self._encode_context
        first, rest = encode_continuation(context, continuation, encode, bare, self.prefix_token_id)
        return ContinuationRequest(tuple(first), tuple(rest))

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation, and whether greedy decoding would generate it."""
        found = self._score([self.encode_pair(*request.args) for request in requests])
        for request, answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, answer)
        return found

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
        """The same for requests that are encoded already: texts, context ids and continuation ids."""
        return self._score([ContinuationRequest(tuple(first), tuple(rest)) for _, first, rest in requests])

    def _score(self, requests: Sequence[ContinuationRequest]) -> list[tuple[float, bool]]:
        scores = self.scorer.score([self._shortened(request) for request in requests], self.on_progress)
        return [(score.log_likelihood, score.is_greedy) for score in scores]

    def _shortened(self, request: ContinuationRequest) -> ContinuationRequest:
        if self.max_length is None or self.max_length == self.network.context or self.backend == "seq2seq":
            return request
        kept = max(1, self.max_length + 1 - len(request.continuation))
        return ContinuationRequest(request.context[-kept:], request.continuation)

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each text, read in windows of full length."""
        windows = [
            rolling_requests(self.tok_encode(*request.args), self.prefix_token_id, self.max_length)
            for request in requests
        ]
        scores = iter(self.scorer.score([window for each in windows for window in each], self.on_progress))
        found = [sum(next(scores).log_likelihood for _ in each) for each in windows]
        for request, total in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return found

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """The text generated after each context, up to the first of its stop strings."""
        model = inference_model(self.network, "fp32")
        engine = Engine(model)
        decoders = [self._add_generation(engine, *request.args) for request in requests]
        texts = [""] * len(requests)
        done = 0
        while engine.has_unfinished:
            for output in engine.next_tokens():
                index, decoder = output.request, decoders[output.request]
                texts[index] += "" if output.finished == "eos" else decoder.push(output.token.id)
                if output.finished and not decoder.stopped:
                    texts[index] += decoder.flush()
                elif decoder.stopped and not output.finished:
                    engine.cancel(index)
                if output.finished or decoder.stopped:
                    done += 1
                    if self.on_progress is not None:
                        self.on_progress(done, len(requests))
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def _add_generation(self, engine: Engine, context: str, settings: Mapping[str, Any]) -> StreamDecoder:
        """Add a request to the engine; returns the decoder of its tokens."""
        until = settings.get("until") or []
        stop = tuple(each for each in ([until] if isinstance(until, str) else until) if each)
        names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
        count = int(next((settings[name] for name in names if settings.get(name)), self.max_gen_toks))
        sampled = bool(settings.get("do_sample", float(settings.get("temperature") or 0) > 0))
        sampling = Sampling(
            max_tokens=count,
            temperature=float(settings.get("temperature") or 1.0) if sampled else 0.0,
            top_k=int(settings.get("top_k") or 0) if sampled else 0,
            top_p=float(settings.get("top_p") or 1.0) if sampled else 1.0,
            stop=stop,
        )
        ids: Sequence[int] = self.tok_encode(context)
        source, limit = None, self.max_length
        if self.backend == "seq2seq":
            source, ids = list(ids)[-(limit or len(ids)) :], []
        elif limit is not None:
            if count >= limit:
                raise BadSetting(f"max_gen_toks is {count:,} and the context holds {limit:,} tokens; generate fewer")
            ids = ids[-(limit - count) :]
        engine.add(
            ids,
            sampling,
            eos_token_id=self.generation_config.eos_token_ids,
            start_token_id=self.start_token_id,
            source=source,
        )
        return StreamDecoder(self.tokenizer, stop, prompt_ids=() if source is not None else ids)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Messages in the model's chat template; without a generation prompt, the last message is left unended."""
        template = ChatTemplate.from_tokenizer(self.tokenizer)
        if add_generation_prompt:
            return template.render(chat_history)
        rendered = template.render(chat_history, answer=False)
        last = str(chat_history[-1]["content"]).strip()
        at = rendered.rfind(last)
        return rendered if at < 0 else rendered[: at + len(last)]

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The source of the chat template, which the harness writes into its results; None if it is not applied."""
        return find_template(self.tokenizer.config) if chat_template else None


def main() -> None:
    """The harness's own command line, in which the model "clearstory" is known."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
