"""How each setting is observed to have an effect: a function of the recipe whose result must change, or a test.

The function gets the recipe with the default value and again with another one, in a folder of its own each time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from clearstory.errors import ClearstoryError
from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.families import CONFIG_TYPES
from clearstory.recipes.settings.finetuning_steps import SHARED_TRAINING_SETTINGS
from clearstory.recipes.settings.model_choice import ModelChoice
from clearstory.recipes.settings.schema import build_settings, flatten_keys, to_plain
from clearstory.recipes.settings.training import TrainRecipe
from clearstory.recipes.training.loop import train_events
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.training import checkpoint
from trained import words

Observation = Callable[[Any], Any] | str

SERVE = "server/test_serve_command.py"
"""The tests of the command serve."""

ODD = {
    "model": "gpt2",
    "training.context": "16",
    "training.weight_average": "0.5",
    "training.device": "meta",
    "training.threads": "1",
    "training.precision": "bf16",
    "precision": "bf16",
    "training.optimizer": "muon",
    "training.epsilon": "0.0625",
    "allow_origin": "http://odd",
    "max_request_bytes": "4096",
    "view": "odd",
    "reduce": "max",
    "columns": "0",
    "mask": "0",
    "data.cache": "kept",
    "data.encoding": "cp1252",
    "model.sliding_window": "5",
    "model.global_interval": "3",
    "model.local_rope_theta": "500",
    "model.decoder_autoregression": "ssru",
    "model.cell": "gru",
    "model.cutoffs": "5",
    "model.recall": "3",
    "model.learn": "gradient",
    "model.order": "3",
    "task": "tag",
    "dtype": "f16",
    "model.tie_embeddings": "false",
    "model.norm": "rms",
    "model.norm_first": "false",
    "model.mlm_transform": "false",
    "model.pooler": "false",
    "model.unembed_bias": "false",
    "model.positions": "rotary",
    "model.rope_theta": "500",
    "model.rope_factor": "2.5",
    "model.kv_heads": "1",
    "model.norm_eps": "0.0625",
    "model.prune": "0",
    "model.decoder_start_token_id": "7",
    "model.sizes": "7",
    "model.smoothing": "katz",
    "model.counts": "false",
    "steps": "3",
    "init": "gpt2",
    "lora.targets": "key",
    "lora.modules_to_save": "embedding",
    "top_p": "0.5",
    "InspectRecipe.metric": "rank",
    "ablate": "mean",
    "centre": "false",
    "out": "elsewhere",
    "ClassifyRecipe.out": "elsewhere.jsonl",
    "TagRecipe.out": "elsewhere.jsonl",
    "FinetuneRecipe.threshold": "0.25",
    "FinetuneRecipe.model": "odd",
    "FinetuneRecipe.task": "lm",
    "FinetuneRecipe.validation": "0.25",
    "FinetuneRecipe.freeze": "all",
    "FinetuneRecipe.curve": "8",
    "PromptRecipe.shots": "3",
    "prompt_template": "{source} =",
    "instruction": "shorten: {source}",
    "training.class_weights": "balanced",
    "training.num_train_epochs": "0.25",
    "tokenizer": "words",
    "objective": "causal",
    "minutes": "0.0625",
    "cpu_seconds": "0.0625",
}
"""Other values for settings where the generic one would be invalid or have no effect."""

NEEDED: dict[str, dict[str, Any]] = {
    "TrainRecipe": {"model": "nanogpt-char", "model.recall_rows": 8},
    "PlanRecipe": {"model": "nanogpt-char", "model.recall_rows": 8, "measure": False},
    "EvaluateRecipe": {"text": ("usual.txt",)},
    "DataRecipe": {"text": ("corpus:python-docs",), "tokenizer": "bytes"},
    "CompletionRecipe": {"shell": "zsh"},
}
"""Further settings of a recipe that an observation needs."""


def observe_plan(recipe: Any) -> Any:
    """The plan without measured values."""
    from clearstory.recipes.planning.plan import plan

    found = plan(recipe).as_dict()
    return {key: value for key, value in found.items() if key != "estimates"}, [
        each["seconds"] for each in found["estimates"][:3]
    ]


def observe_price(recipe: Any) -> Any:
    """The prices in the plan."""
    from clearstory.recipes.planning.plan import plan

    return [each.dollars for each in plan(recipe).estimates]


def observe_config(recipe: Any) -> Any:
    """The model's config; the laws of the models observe its fields."""
    return recipe.model.config(vocab=67)


def observe_data(recipe: Any, **more: Any) -> Any:
    """The report on a jsonl text. `more` data settings are needed for the setting to have an effect."""
    from clearstory.recipes.data import data

    recipe = replace(recipe, data=replace(recipe.data, **more))
    fields = '"text": "one two {n}", "odd": "four {n}", "source": "five {n}", "target": "six"'
    lines = ["{" + fields.replace("{n}", str(n)) + "}\n" for n in range(50)]
    Path("a.jsonl").write_text("".join(lines), encoding="utf-8")
    report = data(recipe=replace(recipe, text=("a.jsonl",)))
    return report.bytes, report.split_bytes, report.tokens, len(report.excerpts), sorted(map(str, Path().rglob("*")))


TINY = {
    "text": ("usual.txt",),
    "out": "run",
    "steps": 4,
    "model.width": 16,
    "model.layers": 1,
    "model.heads": 2,
    "training.batch_size": 4,
    "training.context": 8,
    "training.warmup_steps": 1,
    "training.precision": "fp32",
    "training.compile": "off",
    "training.device": "cpu",
    "training.threads": 1,
}
"""Settings of a small run, where the recipe has its default."""


def observe_training(recipe: Any, *, sized: bool = True, **more: Any) -> Any:
    """Events, weights and folders of a tiny run.

    `more` is needed for the setting to have an effect; without `sized` the model keeps its own size.
    """
    usual = flatten_keys(TrainRecipe, to_plain(build_settings(TrainRecipe, NEEDED["TrainRecipe"])))
    values = flatten_keys(TrainRecipe, to_plain(recipe))
    tiny = {key: value for key, value in TINY.items() if sized or not key.startswith("model.")}
    values |= {key: value for key, value in (tiny | more).items() if values.get(key) == usual.get(key)}
    write_texts()
    small = build_settings(TrainRecipe, values)
    seen: list[Any] = []
    with mock.patch("os.fsync"):  # durability is not under test
        for event in train_events(small):
            said = {key: value for key, value in vars(event).items() if key not in ("tokenizer", *TIMES)}
            seen.append((type(event).__name__, said))
    assert small.out is not None
    last = checkpoint.load_checkpoint(checkpoint.list_checkpoints(small.out)[-1])
    sums = {name: value.double().sum().item() for name, value in last.model.items()}
    folders = sorted(str(path) for path in Path().rglob("*") if path.is_dir() and "rows" not in path.parts)
    return repr((seen, sums, folders))


def observe_fine_tuning(recipe: Any) -> Any:
    """Events, weights and folders of a tiny run that fine-tunes one of two models."""
    write_models()
    return observe_training(recipe, sized=False)


TIMES = ("seconds", "cpu_seconds", "eta", "tokens_per_second")


def write_texts() -> None:
    """Write the texts that settings name to the working directory."""
    for number, name in enumerate(("usual", "odd")):
        Path(f"{name}.txt").write_text(words(seed=number), encoding="utf-8")
        Path(name).write_text(words(seed=number), encoding="utf-8")
    rows = [json.dumps({"text": words(20, seed=n), "odd": words(20, seed=n + 100)}) for n in range(40)]
    Path("rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    sides = [{"source": words(4, seed=n), "target": words(3, seed=n + 1), "odd": words(5, seed=n)} for n in range(60)]
    lines = [json.dumps({name: text.replace("\n", "") + "." for name, text in each.items()}) for each in sides]
    Path("pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")


def run_command(command: str, recipe: Any, **more: Any) -> Any:
    """The output of a command that uses a model, or its error."""
    from clearstory.cli.command import Output

    write_texts()
    write_models()
    for key, value in more.items():
        section = recipe.sampling if hasattr(recipe, "sampling") and hasattr(recipe.sampling, key) else recipe
        usual = next(field.default for field in fields(section) if field.name == key)
        if getattr(section, key) == NEEDED.get(type(recipe).__name__, {}).get(key, usual):
            changed = replace(section, **{key: value})
            recipe = changed if section is recipe else replace(recipe, sampling=changed)
    try:
        answer = dict(import_module(f"clearstory.cli.commands.{command}").COMMAND.run(recipe, Output(json=True)))
    except ClearstoryError as refusal:
        answer = {"refused": str(refusal)}
    return repr(({key: value for key, value in answer.items() if key not in TIMES}, sorted(map(str, Path().iterdir()))))


def write_models(*names: str) -> None:
    """Write small models of the same text, with the names that settings give by default."""
    tokenizer = train_tokenizer("characters", [words()])
    for seed, name in enumerate(names or ("model", "gpt2")):
        config = ModelChoice(name="nanogpt-char", overrides={"width": 16, "layers": 1, "heads": 2, "context": 8})
        model = build(config.config(vocab=tokenizer.vocab), seed=seed)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(3)  # so that tokens differ in probability
        save_model(Path(name), model, tokenizer, ModelCard(name=name, family="transformer", parameters=0))


def observe_generate(recipe: Any, **more: Any) -> Any:
    """The output of generate."""
    return run_command("generate", recipe, **{"prompt": "the", "max_tokens": 24, "seed": 1, "ignore_eos": True} | more)


def observe_evaluate(recipe: Any, **more: Any) -> Any:
    """The output of evaluate, and its batch sizes."""
    from clearstory.evaluation import windows

    sizes: list[int] = []
    real = windows.iter_scores

    def watched(*args: Any, **kind: Any) -> Any:
        sizes.append(kind["batch_size"])
        return real(*args, **kind)

    with mock.patch("clearstory.recipes.inference.evaluate_text.iter_scores", watched):
        return run_command("evaluate", recipe, **more), sizes


def observe_inspect(recipe: Any, **more: Any) -> Any:
    """The output of inspect."""
    return run_command("inspect", recipe, **{"text": "the"} | more)


def observe_convert(recipe: Any, **more: Any) -> Any:
    """The output of convert, where a model folder of that name exists."""
    write_models("out")
    return run_command("convert", recipe, **more)


def observe_quickstart(recipe: Any) -> Any:
    """The training recipe of quickstart."""
    from clearstory.recipes.training import quickstart

    def remember(recipe: Any) -> Any:
        yield to_plain(recipe)

    with mock.patch.object(quickstart, "train_events", remember):
        (found,) = quickstart.quickstart_events(recipe)
    return found


PAIRS = {"model": "clear-translate", "text": ("pairs.jsonl",), "training.context": 64}
"""Settings of a tiny run on parallel text."""

SMALL_RNN = ModelChoice(name="rnn", overrides={"width": 8, "hidden_size": 8})

CONFIG = dict.fromkeys(
    field.name for config in CONFIG_TYPES for field in fields(config) if not field.metadata.get("derived")
)

STEPPING = (
    "batch_size", "gradient_accumulation_steps", "context", "weight_average", "optimizer", "learning_rate",
    "weight_decay", "beta1", "beta2", "epsilon", "schedule", "final_learning_rate", "gradient_clip", "eval_tokens",
    "precision", "initialization", "seed",
)  # fmt: skip
WRITING = (
    "prompt", "max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty",
    "frequency_penalty", "beam", "seed", "int8", "precision", "device",
)  # fmt: skip

OBSERVED: dict[str, Observation] = {
    **{f"{recipe}.model.{name}": observe_config for recipe in ("TrainRecipe", "PlanRecipe") for name in CONFIG},
    **{
        f"{recipe}.model.{name}": f"models/{test}"
        for recipe in ("TrainRecipe", "PlanRecipe")
        for name, test in {
            "order": "test_tagger.py::test_trigrams_depend_on_two_tags",
            "blocks": "test_hmm.py::test_blocks_equal_a_dense_model_with_zero_emissions_elsewhere",
            **dict.fromkeys(
                ("transition_prior", "emission_prior"),
                "test_hmm.py::test_pseudo_counts_are_settings_and_those_of_many_different_tokens_are_the_default",
            ),
            "tags": "test_tagger.py::test_a_tagger_opens_as_what_was_saved_and_is_a_language_model",
            "suffixes": "test_tagger.py::test_a_tagger_opens_as_what_was_saved_and_is_a_language_model",
            "experts": "test_mixture.py::test_experts_are_presets_that_predict_the_next_token",
            "cache": "test_mixture.py::test_two_networks_are_mixed",
            "attention": "test_recurrent_seq2seq.py::test_dot_attention_is_luongs",
            "bidirectional": "test_recurrent_seq2seq.py::test_the_encoder_equals_torchs_bidirectional_module",
            "reverse_source": "test_recurrent_seq2seq.py::test_without_attention_the_last_state_is_all_that_is_read",
        }.items()
    },
    "TrainRecipe.model": observe_config,
    **{f"TrainRecipe.{name}": observe_training for name in ("text", "out", "steps", "tokenizer")},
    **{f"TrainRecipe.training.{name}": observe_training for name in STEPPING},
    "TrainRecipe.parameters": partial(observe_training, sized=False),
    "TrainRecipe.init": observe_fine_tuning,
    **{
        f"TrainRecipe.lora.{name}": observe_fine_tuning
        for name in ("rank", "alpha", "targets", "dropout", "modules_to_save")
    },
    "TrainRecipe.minutes": "flow/test_train.py::test_the_time_limit_is_kept_at_any_speed",
    "TrainRecipe.cpu_seconds": "flow/test_train.py::test_cpu_seconds_are_kept",
    "TrainRecipe.objective": "flow/test_encoders.py::test_one_command_from_raw_text_to_an_encoder",
    "TrainRecipe.training.matmul": "laws/test_matmul.py::test_a_run_keeps_the_backend_that_it_started_with",
    "TrainRecipe.training.whole_words": "training/test_mlm.py::test_whole_words_come_from_the_settings",
    "TrainRecipe.resume": "flow/test_train.py::test_a_stopped_and_resumed_run_equals_an_uninterrupted_one",
    "TrainRecipe.overwrite": "flow/test_train.py::test_overwriting_replaces_the_run_and_nothing_else",
    "TrainRecipe.training.label_smoothing": partial(observe_training, **PAIRS),
    "TrainRecipe.training.muon_learning_rate": partial(observe_training, **{"training.optimizer": "muon"}),
    "TrainRecipe.training.recall_learning_rate": partial(
        observe_training, **{"model.recall": [2], "model.recall_rows": 64}
    ),
    "TrainRecipe.training.stateful": lambda recipe: observe_training(replace(recipe, model=SMALL_RNN), sized=False),
    "TrainRecipe.training.align_documents": partial(observe_training, text=("rows.jsonl",)),
    "TrainRecipe.training.shuffle_documents": partial(observe_training, text=("rows.jsonl",)),
    "TrainRecipe.training.decay_share": partial(observe_training, **{"training.schedule": "wsd", "steps": 12}),
    "TrainRecipe.training.warmup_steps": partial(observe_training, steps=16),
    "TrainRecipe.training.warmup_ratio": partial(observe_training, steps=24),
    "TrainRecipe.training.layer_decay": observe_training,
    "TrainRecipe.training.eval_steps": partial(observe_training, steps=8),
    "TrainRecipe.training.save_steps": partial(observe_training, steps=8),
    "TrainRecipe.training.sample_steps": partial(observe_training, steps=8),
    "TrainRecipe.training.keep_checkpoints": partial(observe_training, **{"training.save_steps": 1}),
    "TrainRecipe.training.weight_checkpoints": partial(observe_training, steps=16),
    "TrainRecipe.training.patience": "flow/test_train.py::test_patience_stops_early_and_the_best_model_is_kept",
    "TrainRecipe.training.compile": "flow/test_train.py::test_compile_follows_its_setting",
    "TrainRecipe.training.device": "flow/test_bad_input.py::test_contradicting_settings",
    "TrainRecipe.training.sort_memory": "models/test_ngram.py::test_the_memory_setting_bounds_what_is_sorted_at_once",
    "TrainRecipe.training.threads": "flow/test_train.py::test_the_threads_setting_is_used",
    "TrainRecipe.training.batch_tokens": "training/test_seq2seq.py::"
    "test_batches_are_limited_by_tokens_and_of_even_sizes",
    "TrainRecipe.data.lines": observe_training,
    "TrainRecipe.data.text_field": partial(observe_training, text=("rows.jsonl",)),
    "TrainRecipe.data.pairs": "flow/test_seq2seq_models.py::test_two_files_are_pairs_by_name_or_where_that_is_said",
    "TrainRecipe.data.source_field": partial(observe_training, **PAIRS),
    "TrainRecipe.data.target_field": partial(observe_training, **PAIRS),
    "TrainRecipe.data.validation": observe_training,
    "TrainRecipe.data.errors": "flow/test_bad_input.py::test_invalid_utf8_can_be_replaced",
    "TrainRecipe.data.cache": observe_training,
    **{f"GenerateRecipe.{name}": observe_generate for name in WRITING},
    "GenerateRecipe.model": observe_generate,
    "GenerateRecipe.length_penalty": partial(observe_generate, beam=2),
    "GenerateRecipe.stop": "generation/test_recipes.py::test_a_stop_string_ends_the_text_and_is_not_in_it",
    "GenerateRecipe.prompts_file": "cli/test_generate.py::test_prompts_come_from_lines_records_and_standard_input",
    "GenerateRecipe.text_field": "cli/test_generate.py::test_prompts_come_from_lines_records_and_standard_input",
    "GenerateRecipe.raw": "generation/test_chat_prompts.py::test_a_chat_model_answers_unless_raw",
    "GenerateRecipe.system": "generation/test_chat_prompts.py::test_the_system_message_is_in_the_prompt",
    "GenerateRecipe.special_tokens": "generation/test_chat_prompts.py::test_special_tokens_can_be_left_out",
    "GenerateRecipe.ignore_eos": partial(observe_generate, ignore_eos=False, max_tokens=100),
    "GenerateRecipe.json_schema": "generation/test_grammar.py::test_generate_holds_texts_to_a_schema_and_an_expression",
    "GenerateRecipe.regex": "generation/test_grammar.py::test_generate_holds_texts_to_a_schema_and_an_expression",
    "GenerateRecipe.truncate": partial(observe_generate, prompt="the cat sat on"),
    **{f"EvaluateRecipe.{name}": observe_evaluate for name in ("model", "text", "windows", "batch_size", "limit")},
    **{f"EvaluateRecipe.{name}": observe_evaluate for name in ("stride", "int8", "precision", "device")},
    "EvaluateRecipe.task": observe_evaluate,
    "EvaluateRecipe.vectors": "flow/test_vector_tasks.py::test_sentences_are_compared_by_sentence_vectors",
    "FillMaskRecipe.model": "flow/test_encoders.py::test_a_mask_is_filled_with_probabilities",
    "FillMaskRecipe.text": "flow/test_encoders.py::test_a_mask_is_filled_with_probabilities",
    "FillMaskRecipe.top": "flow/test_encoders.py::test_a_mask_is_filled_with_probabilities",
    "FillMaskRecipe.text_field": "flow/test_encoders.py::test_texts_may_lie_in_files",
    "FillMaskRecipe.errors": "flow/test_encoders.py::test_texts_may_lie_in_files",
    "FillMaskRecipe.device": "flow/test_encoders.py::test_what_an_encoder_does_not_support_is_refused",
    **dict.fromkeys(
        ("EmbedRecipe.int8", "ClassifyRecipe.int8", "TagRecipe.int8"),
        "flow/test_encoder_int8.py::test_int8_is_near_and_not_the_same",
    ),
    "EmbedRecipe.model": "flow/test_encoders.py::test_vectors_are_means_or_those_of_the_first_token",
    "EmbedRecipe.text": "flow/test_encoders.py::test_vectors_are_means_or_those_of_the_first_token",
    "EmbedRecipe.prompt": "parity/test_sentence_folders.py::test_prompts_are_put_before_a_text",
    "EmbedRecipe.pooling": "flow/test_encoders.py::test_vectors_are_means_or_those_of_the_first_token",
    "EmbedRecipe.normalize": "flow/test_encoders.py::test_vectors_are_means_or_those_of_the_first_token",
    "EmbedRecipe.batch_size": "flow/test_encoders.py::test_vectors_do_not_depend_on_their_company",
    "EmbedRecipe.truncate": "flow/test_encoders.py::test_a_text_that_is_too_long_is_refused_or_cut",
    "EmbedRecipe.text_field": "flow/test_encoders.py::test_texts_may_lie_in_files",
    "EmbedRecipe.errors": "flow/test_encoders.py::test_texts_may_lie_in_files",
    "EmbedRecipe.device": "flow/test_encoders.py::test_what_an_encoder_does_not_support_is_refused",
    **dict.fromkeys(
        ("EmbedRecipe.query", "EmbedRecipe.top"),
        "flow/test_similarity_search.py::test_a_query_finds_the_most_similar_texts",
    ),
    "EmbedRecipe.duplicates": "flow/test_similarity_search.py::test_duplicates_are_left_out",
    "EmbedRecipe.out": "flow/test_similarity_search.py::test_the_command_prints_and_writes_what_it_found",
    **{
        f"FinetuneRecipe.embed.{name}": "flow/test_finetune_embed.py::test_settings_of_vectors_reach_the_loss"
        for name in ("loss", "pooling", "normalize", "scale", "symmetric", "margin")
    },
    **{
        f"{recipe}.{name}": "flow/test_chat.py::test_evaluate_scores_the_same_answers"
        for recipe in ("FinetuneRecipe", "EvaluateRecipe")
        for name in ("assistant_only_loss", "chat_template")
    },
    "TrainRecipe.training.average_checkpoints": (
        "flow/test_finetune_text_to_text.py::test_a_resumed_run_with_averaged_checkpoints_is_an_uninterrupted_one"
    ),
    **{
        f"FinetuneRecipe.{name}": f"flow/test_finetune_text_to_text.py::{test}"
        for name, test in {
            "num_beams": "test_an_encoder_decoder_is_trained_and_scored",
            "max_target_length": "test_an_encoder_decoder_is_trained_and_scored",
            "max_eval_samples": "test_an_encoder_decoder_is_trained_and_scored",
            "max_source_length": "test_a_decoder_learns_targets_after_its_prompt",
            "prompt_template": "test_a_decoder_learns_targets_after_its_prompt",
            "training.batch_tokens": "test_a_decoder_learns_targets_after_its_prompt",
            "training.average_checkpoints": "test_a_resumed_run_with_averaged_checkpoints_is_an_uninterrupted_one",
            "teacher": "test_a_teacher_replaces_the_targets_and_is_asked_once",
            "teacher_num_beams": "test_a_teacher_replaces_the_targets_and_is_asked_once",
            "source_prefix": "test_prefixes_instructions_and_penalties_are_saved",
            "instruction": "test_prefixes_instructions_and_penalties_are_saved",
            "length_penalty": "test_prefixes_instructions_and_penalties_are_saved",
        }.items()
    },
    **{
        f"EvaluateRecipe.{name}": "flow/test_finetune_text_to_text.py::test_evaluate_scores_generated_texts"
        for name in ("num_beams", "length_penalty", "max_target_length", "max_source_length", "source_prefix")
    },
    **{
        f"EvaluateRecipe.{name}": f"flow/test_finetune_text_to_text.py::{test}"
        for name in ("prompt_template", "instruction")
        for test in ("test_prefixes_instructions_and_penalties_are_saved",)
    },
    **{
        f"{recipe}.{name}": f"flow/test_finetune_text_to_text.py::{test}"
        for recipe in ("TranslateRecipe", "SummarizeRecipe")
        for name, test in {
            "n_best": "test_lines_of_a_file_stay_where_they_are",
            "out": "test_an_interrupted_file_goes_on_where_it_stood",
            "prompt_template": "test_decoders_answer_with_their_prompt",
            "source_prefix": "test_prefixes_instructions_and_penalties_are_saved",
            "instruction": "test_prefixes_instructions_and_penalties_are_saved",
        }.items()
    },
    **{
        f"SummarizeRecipe.{name}": "flow/test_finetune_text_to_text.py::test_decoders_answer_with_their_prompt"
        for name in ("model", "text", "beam", "length_penalty", "max_tokens")
    },
    **{
        f"SummarizeRecipe.{name}": "flow/test_finetune_text_to_text.py::test_lines_of_a_file_stay_where_they_are"
        for name in ("truncate", "errors", "precision", "int8", "device")
    },
    "ChatRecipe.url": "flow/test_chat_url.py::test_the_terminal_and_the_command_line_speak_to_a_server",
    "ChatRecipe.api_key_file": "flow/test_chat_url.py::test_the_key_of_a_file_is_sent_and_never_shown",
    **{
        f"ChatRecipe.{name}": f"flow/test_chat.py::{test}"
        for name, test in {
            "model": "test_it_learns_to_answer_and_its_folder_chats",
            "system": "test_messages_are_taken_back_changed_saved_and_loaded",
            "load": "test_messages_are_taken_back_changed_saved_and_loaded",
            "chat_template": "test_what_cannot_chat_is_refused_with_the_way_out",
            "truncate": "test_a_full_context_is_one_sentence_or_loses_its_first_turns",
            "precision": "test_each_turn_reads_what_is_new_and_answers_as_if_all_were_read",
            "int8": "test_lines_of_standard_input_are_messages",
            "device": "test_lines_of_standard_input_are_messages",
            "max_tokens": "test_lines_of_standard_input_are_messages",
            "temperature": "test_lines_of_standard_input_are_messages",
            "seed": "test_lines_of_standard_input_are_messages",
            "stop": "test_lines_of_standard_input_are_messages",
            **dict.fromkeys(
                ("top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
                "test_settings_of_sampling_reach_the_answer",
            ),
        }.items()
    },
    **{
        f"EvaluateRecipe.{name}": f"flow/test_harness.py::{test}"
        for name, test in {
            "task_files": "test_tasks_are_read_from_local_files",
            "num_fewshot": "test_examples_before_each_question_come_from_the_training_part",
            "apply_chat_template": "test_contexts_can_be_messages_of_a_chat",
            "bootstrap_iters": "test_tasks_are_read_from_local_files",
            "log_samples": "test_tasks_are_read_from_local_files",
            "download": "test_what_cannot_be_evaluated_is_told_with_the_way_out",
            "out": "test_tasks_are_read_from_local_files",
        }.items()
    },
    "EvaluateRecipe.probe_files": "flow/test_probes.py::test_all_probes_in_one_table",
    **{
        f"PromptRecipe.{name}": f"flow/test_prompt.py::{test}"
        for name, test in {
            **dict.fromkeys(
                ("model", "template", "examples", "test", "shots", "draws", "labels", "calibrate", "out"),
                "test_a_curve_of_any_family_with_its_baselines",
            ),
            "seed": "test_draws_are_nested_and_follow_the_seed",
            **dict.fromkeys(("limit", "raw", "system"), "test_a_chat_template_makes_turns_of_examples"),
            **dict.fromkeys(("answer", "normalize", "max_tokens"), "test_questions_with_choices_of_their_own"),
            **dict.fromkeys(("separator", "show_prompt", "device"), "test_the_command_shows_a_prompt"),
            **dict.fromkeys(("text_column", "pair_column", "label_column"), "test_columns_may_have_any_name"),
        }.items()
    },
    **{
        f"ClassifyRecipe.{name}": f"flow/test_classify.py::{test}"
        for name, test in {
            "model": "test_a_text_gets_the_probability_of_every_label",
            "text": "test_a_text_gets_the_probability_of_every_label",
            "input": "test_texts_may_lie_in_files",
            "text_field": "test_texts_may_lie_in_files",
            "errors": "test_texts_may_lie_in_files",
            "truncate": "test_a_text_that_is_too_long_is_refused_or_cut",
            "batch_size": "test_labels_do_not_depend_on_their_company",
            "device": "test_what_cannot_be_classified_is_refused",
        }.items()
    },
    **{
        f"ClassifyRecipe.{name}": f"flow/test_finetune.py::{test}"
        for name, test in {
            "pair": "test_pairs_and_files_are_classified",
            "pair_column": "test_pairs_and_files_are_classified",
            "out": "test_pairs_and_files_are_classified",
            "stride": "test_probabilities_of_windows_are_averaged",
        }.items()
    },
    **{
        f"{recipe}.{name}": f"tasks/test_labeled_texts.py::{test}"
        for recipe in ("FinetuneRecipe", "EvaluateRecipe")
        for name, test in {
            "text_column": "test_named_columns_come_before_guesses",
            "label_column": "test_named_columns_come_before_guesses",
            "split_column": "test_a_named_split_column_has_known_parts",
            "labels": "test_label_names_come_from_the_setting_or_from_labels_txt",
            "problem": "test_numbers_are_classes_or_values",
            "trees": "test_trees_give_every_phrase_once_and_two_labels_without_neutral",
            "encoding": "test_a_file_that_is_not_utf8_names_the_likely_encoding",
            "errors": "test_a_file_that_is_not_utf8_names_the_likely_encoding",
        }.items()
        if recipe == "FinetuneRecipe" or name in ("text_column", "label_column", "problem", "trees")
    },
    **{
        f"{recipe}.{name}": "tasks/test_similarity.py::test_columns_can_be_named"
        for recipe in ("FinetuneRecipe", "EvaluateRecipe")
        for name in ("pair_column", "negative_column")
        if recipe == "FinetuneRecipe" or name == "pair_column"
    },
    "FinetuneRecipe.tokenizer": "flow/test_baselines.py::test_ngram_models_of_each_label_are_joined_by_bayes_rule",
    "EvaluateRecipe.truncate": "flow/test_finetune.py::test_long_texts_are_cut_or_read_in_windows",
    **{
        f"FinetuneRecipe.{name}": f"flow/test_finetune.py::{test}"
        for name, test in {
            **dict.fromkeys(("model", "data"), "test_every_backbone_learns_and_answers"),
            "task": "test_language_modelling_is_what_train_does_with_an_initial_model",
            **dict.fromkeys(("out", "validation", "test"), "test_metrics_intervals_and_report"),
            **dict.fromkeys(("minutes", "cpu_seconds"), "test_time_limits_are_kept"),
            "steps": "test_accumulated_gradients_are_those_of_one_batch",
            **dict.fromkeys(("truncate", "stride"), "test_long_texts_are_cut_or_read_in_windows"),
            "threshold": "test_the_threshold_of_several_labels_is_fitted_and_saved",
            "freeze": "test_frozen_layers_stay_and_a_head_learns",
            "new_head": "test_a_fine_tuned_model_can_be_fine_tuned_again",
            "seeds": "test_seeds_are_summarized",
            "resume": "test_a_resumed_run_must_have_the_same_settings_and_data",
            "overwrite": "test_the_command_prints_json",
            **dict.fromkeys(
                ("lora.rank", "lora.alpha", "lora.targets", "lora.dropout", "lora.modules_to_save"),
                "test_lora_settings_reach_the_model",
            ),
            "training.num_train_epochs": "test_a_new_model_of_a_preset",
            "training.class_weights": "test_class_weights",
            **dict.fromkeys(
                (f"training.{each}" for each in SHARED_TRAINING_SETTINGS), "test_settings_reach_the_trainer"
            ),
        }.items()
    },
    "FinetuneRecipe.few": "flow/test_few_labels.py::test_few_labels_are_learned_and_the_folder_answers",
    **{
        f"FinetuneRecipe.{name}": "flow/test_few_labels.py::test_a_curve_is_scored_and_continues"
        for name in ("curve", "baselines")
    },
    **{
        f"TranslateRecipe.{name}": f"generation/test_sources.py::{test}"
        for name, test in {
            "model": "test_texts_are_translated_in_the_order_given",
            "text": "test_texts_are_translated_in_the_order_given",
            "beam": "test_texts_are_translated_in_the_order_given",
            "length_penalty": "test_texts_are_translated_in_the_order_given",
            "max_tokens": "test_texts_are_translated_in_the_order_given",
            "truncate": "test_texts_are_translated_in_the_order_given",
            "precision": "test_texts_are_translated_in_each_precision",
            "int8": "test_texts_are_translated_in_each_precision",
        }.items()
    },
    "TranslateRecipe.errors": "flow/test_seq2seq_models.py::test_translations_of_files_and_what_is_refused",
    "TranslateRecipe.device": "flow/test_seq2seq_models.py::test_translations_of_files_and_what_is_refused",
    "TagRecipe.model": "models/test_tagger.py::test_invalid_requests_are_refused",
    "TagRecipe.text": "models/test_tagger.py::test_known_and_unknown_words_get_their_tags",
    "TagRecipe.errors": "models/test_tagger.py::test_the_commands",
    **{
        f"TagRecipe.{name}": f"flow/test_tag_files.py::{test}"
        for name, test in {
            **dict.fromkeys(("input", "text_field", "device", "batch_size"), "test_words_and_texts_of_files"),
            **dict.fromkeys(("truncate", "stride"), "test_long_sentences_are_refused_cut_or_read_in_windows"),
            "out": "test_what_is_written_is_read_again",
        }.items()
    },
    "EvaluateRecipe.data.text_field": partial(observe_evaluate, text=("rows.jsonl",)),
    "EvaluateRecipe.data.errors": "flow/test_bad_input.py::test_invalid_utf8_can_be_replaced",
    "EvaluateRecipe.data.lines": observe_evaluate,
    "EvaluateRecipe.data.pairs": "flow/test_seq2seq_models.py::test_two_files_are_pairs_by_name_or_where_that_is_said",
    "EvaluateRecipe.data.source_field": "text/test_parallel_text.py::test_fields_have_the_configured_names",
    "EvaluateRecipe.data.target_field": "text/test_parallel_text.py::test_fields_have_the_configured_names",
    **{
        f"{recipe}.data.{name}": f"text/{test}"
        for recipe in ("TrainRecipe", "EvaluateRecipe", "DataRecipe")
        for name, test in {
            "include": "test_source_files.py::test_further_kinds_of_files_are_included",
            "encoding": "test_character_encodings.py::test_a_named_encoding_is_used",
            "on_error": "test_source_files.py::test_a_bad_file_is_skipped_or_stops",
        }.items()
    },
    **{
        f"InspectRecipe.{name}": observe_inspect
        for name in ("model", "text", "view", "out", "top", "temperature", "device")
    },
    **{f"InspectRecipe.{name}": partial(observe_inspect, view="attention") for name in ("head", "part")},
    **{f"InspectRecipe.{name}": partial(observe_inspect, view="combined-heads") for name in ("heads", "reduce")},
    "InspectRecipe.columns": partial(observe_inspect, view="logit-lens"),
    "InspectRecipe.mask": "lens/test_fill_mask.py::test_positions_are_masked_and_predicted",
    "InspectRecipe.layout": "lens/test_word_embeddings.py::test_tsne_preserves_neighbourhoods",
    "InspectRecipe.sentences": "lens/test_dependency_heads.py::test_the_number_of_sentences_is_a_setting",
    "InspectRecipe.truncate": partial(observe_inspect, text="the cat sat on"),
    "InspectRecipe.layer": partial(observe_inspect, view="neurons"),
    **{
        f"InspectRecipe.{name}": f"lens/test_prompt_tokens.py::test_{test}"
        for name, test in (
            ("raw", "raw_text_is_read_without_the_template"),
            ("system", "a_system_message_is_read"),
            ("special_tokens", "special_tokens_can_be_left_out"),
        )
    },
    "InspectRecipe.target": partial(observe_inspect, view="logit-lens"),
    "InspectRecipe.words": partial(observe_inspect, view="logit-attribution"),
    "InspectRecipe.metric": partial(observe_inspect, view="logit-lens"),
    "InspectRecipe.compare_tokenizer": partial(observe_inspect, view="tokens"),
    "InspectRecipe.other_text": "lens/test_interventions.py::test_an_encoder_decoder_is_patched_in_its_encoder",
    "InspectRecipe.word": "lens/test_contextual_embeddings.py::test_example_sentences_are_read_from_a_file",
    "InspectRecipe.edit": partial(observe_inspect, view="interventions"),
    "InspectRecipe.ablate": partial(observe_inspect, view="ablation"),
    **{
        f"InspectRecipe.{name}": partial(observe_inspect, view="generation", max_tokens=4)
        for name in ("max_tokens", "beam")
    },
    "InspectRecipe.seed": "lens/test_generation_view.py::test_a_seed_decides_and_greedy_takes_the_likeliest",
    **{
        f"InspectRecipe.{name}": "lens/test_difference.py::test_the_command_prints_the_difference"
        for name in ("compare_model", "compare_text")
    },
    "InspectRecipe.across_checkpoints": "flow/test_across_checkpoints.py::test_a_view_is_shown_at_twelve_checkpoints",
    **{
        f"InspectRecipe.{name}": partial(observe_inspect, view="neighbours", text="t")
        for name in ("centre", "remove_components", "max_token_id")
    },
    "InspectRecipe.matrix": "lens/test_word_embeddings.py::test_the_input_embedding_is_shown_where_it_is_not_tied",
    "InspectRecipe.gate": "lens/test_recurrent_units.py::test_a_gate_is_shown_by_unit",
    "InspectRecipe.sentences_file": "lens/test_contextual_embeddings.py::test_example_sentences_are_read_from_a_file",
    **{f"QuickstartRecipe.{name}": observe_quickstart for name in ("minutes", "out", "seed")},
    "StudioRecipe.folder": "studio/test_server.py::test_a_studio_serves_connects_nowhere_and_ends_on_ctrl_c",
    **{
        f"StudioRecipe.{name}": "studio/test_server.py::test_addresses_reachable_from_other_machines_have_a_token"
        for name in ("host", "port", "token")
    },
    "ServeRecipe.models": f"{SERVE}::test_models_are_named_by_their_folders_or_as_the_command_says",
    **{
        f"ServeRecipe.{name}": f"{SERVE}::test_settings_reach_the_engines_and_the_policy"
        for name in (
            "allow_host",
            "allow_origin",
            "precision",
            "int8",
            "threads",
            "device",
            "max_running",
            "max_waiting",
            "timeout",
        )
    },
    **{
        f"ServeRecipe.{name}": f"{SERVE}::test_other_machines_need_a_key_or_open_access"
        for name in ("host", "open_access", "api_key")
    },
    "ServeRecipe.port": f"{SERVE}::test_addresses_and_models_that_cannot_be_used_are_one_sentence",
    "ServeRecipe.api_key_file": f"{SERVE}::test_keys_come_from_the_flag_the_file_and_the_environment",
    "ServeRecipe.max_tokens": f"{SERVE}::test_limits_reach_the_requests",
    "ServeRecipe.max_request_bytes": f"{SERVE}::test_limits_reach_the_requests",
    "ServeRecipe.log_contents": f"{SERVE}::test_limits_reach_the_requests",
    "ServeRecipe.drain_seconds": f"{SERVE}::test_limits_reach_the_requests",
    "PlanRecipe.model": observe_plan,
    "PlanRecipe.parameters": observe_plan,
    "PlanRecipe.devices": observe_plan,
    "PlanRecipe.batch_size": observe_plan,
    "PlanRecipe.context": observe_plan,
    "PlanRecipe.tokens": observe_plan,
    "PlanRecipe.utilization": observe_plan,
    "PlanRecipe.price": observe_price,
    "PlanRecipe.measure": lambda recipe: recipe.measure,
    "ConvertRecipe.model": partial(observe_convert, overwrite=True),
    "ConvertRecipe.out": observe_convert,
    "ConvertRecipe.to": partial(observe_convert, out="model.arpa"),
    "ConvertRecipe.dtype": partial(observe_convert, overwrite=True),
    "ConvertRecipe.check": "parity/test_gguf_reading.py::test_convert_check_reports_portability",
    "ConvertRecipe.overwrite": observe_convert,
    "CompletionRecipe.shell": "cli/test_completion.py::test_the_scripts_have_no_syntax_error",
    "DoctorRecipe.measure": "cli/test_contract.py::test_doctor_prints_json",
    "DataRecipe.text": "cli/test_contract.py::test_data_prints_json",
    "DataRecipe.tokenizer": observe_data,
    "DataRecipe.show": observe_data,
    "DataRecipe.data.text_field": observe_data,
    "DataRecipe.data.lines": "text/test_documents.py::test_each_line_is_a_document_and_its_line_end_is_read",
    "DataRecipe.data.pairs": observe_data,
    "DataRecipe.data.source_field": partial(observe_data, pairs=True),
    "DataRecipe.data.target_field": partial(observe_data, pairs=True),
    "DataRecipe.data.validation": observe_data,
    "DataRecipe.data.errors": "text/test_documents.py::test_unpaired_surrogates_of_jsonl_can_be_replaced",
    "DataRecipe.data.cache": observe_data,
}
"""Observations by recipe and key."""
