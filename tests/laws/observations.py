"""How one can see that a setting does something: a function of the recipe whose answer must differ, or a test's name.

A function gets the recipe with its usual value and again with an odd one, in a folder of its own each time.
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
from clearstory.formats.model_card import ModelCard
from clearstory.formats.folders import save_model
from clearstory.models.build import build as born
from clearstory.models.families import CONFIG_TYPES
from clearstory.recipes.settings.model_choice import ModelChoice
from clearstory.recipes.settings.schema import build_settings, flatten_keys, to_plain
from clearstory.recipes.settings.training import TrainRecipe
from clearstory.recipes.training.loop import train_events
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.training import checkpoint
from trained import words

Observation = Callable[[Any], Any] | str

ODD = {
    "model": "gpt2",
    "training.context": "16",
    "training.weight_average": "0.5",
    "training.device": "meta",
    "training.threads": "1",
    "training.precision": "bf16",
    "training.optimizer": "muon",
    "training.epsilon": "0.0625",
    "view": "odd",
    "reduce": "max",
    "columns": "0",
    "mask": "0",
    "data.cache": "kept",
    "model.sliding_window": "5",
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
    "model.label_level": "token",
    "model.sizes": "7",
    "model.smoothing": "katz",
    "model.counts": "false",
    "steps": "3",
    "init": "gpt2",
    "lora.targets": "key",
    "top_p": "0.5",
    "InspectRecipe.metric": "rank",
    "ablate": "mean",
    "centre": "false",
    "out": "elsewhere",
    "tokenizer": "words",
    "objective": "causal",
    "minutes": "0.0625",
    "cpu_seconds": "0.0625",
}
"""Odd values where the first that comes to mind would be refused or do nothing."""

NEEDED: dict[str, dict[str, Any]] = {
    "TrainRecipe": {"model": "nanogpt-char", "model.recall_rows": 8},
    "PlanRecipe": {"model": "nanogpt-char", "model.recall_rows": 8, "measure": False},
    "EvaluateRecipe": {"text": ("usual.txt",)},
    "DataRecipe": {"text": ("corpus:python-docs",), "tokenizer": "bytes"},
}
"""What a recipe is given besides the setting that is observed."""


def planned(recipe: Any) -> Any:
    """The plan, without what is measured."""
    from clearstory.recipes.planning.plan import plan

    found = plan(recipe).as_dict()
    return {key: value for key, value in found.items() if key != "estimates"}, [each["seconds"] for each in found["estimates"][:3]]


def priced(recipe: Any) -> Any:
    """What the plan costs."""
    from clearstory.recipes.planning.plan import plan

    return [each.dollars for each in plan(recipe).estimates]


def built(recipe: Any) -> Any:
    """The model's config: every field of it is observed by the laws of the models."""
    return recipe.model.config(vocab=67)


def counted(recipe: Any, **more: Any) -> Any:
    """What is said of a text in two formats. `more` settings of its data are needed for the setting to matter."""
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
"""What makes a run small, where the recipe has its usual value."""


def trained(recipe: Any, *, sized: bool = True, **more: Any) -> Any:
    """All that one can see of a tiny run but the settings that it writes down: news, weights, folders.

    `more` is needed for the setting to matter; not `sized`, the model keeps its own size.
    """
    usual = flatten_keys(TrainRecipe, to_plain(build_settings(TrainRecipe, NEEDED["TrainRecipe"])))
    values = flatten_keys(TrainRecipe, to_plain(recipe))
    tiny = {key: value for key, value in TINY.items() if sized or not key.startswith("model.")}
    values |= {key: value for key, value in (tiny | more).items() if values.get(key) == usual.get(key)}
    write_texts()
    small = build_settings(TrainRecipe, values)
    seen: list[Any] = []
    with mock.patch("os.fsync"):  # no power is lost here
        for event in train_events(small):
            said = {key: value for key, value in vars(event).items() if key not in ("tokenizer", *TIMES)}
            seen.append((type(event).__name__, said))
    assert small.out is not None
    last = checkpoint.load_checkpoint(checkpoint.list_checkpoints(small.out)[-1])
    sums = {name: value.double().sum().item() for name, value in last.model.items()}
    folders = sorted(str(path) for path in Path().rglob("*") if path.is_dir() and "rows" not in path.parts)
    return repr((seen, sums, folders))


def continued(recipe: Any) -> Any:
    """All that one can see of a tiny run that goes on with one of two models that are there."""
    write_models()
    return trained(recipe, sized=False)


TIMES = ("seconds", "cpu_seconds", "eta", "tokens_per_second")


def write_texts() -> None:
    """The texts that settings speak of, in the present folder."""
    for number, name in enumerate(("usual", "odd")):
        Path(f"{name}.txt").write_text(words(seed=number), encoding="utf-8")
        Path(name).write_text(words(seed=number), encoding="utf-8")
    rows = [json.dumps({"text": words(20, seed=n), "odd": words(20, seed=n + 100)}) for n in range(40)]
    Path("rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    sides = [{"source": words(4, seed=n), "target": words(3, seed=n + 1), "odd": words(5, seed=n)} for n in range(60)]
    lines = [json.dumps({name: text.replace("\n", "") + "." for name, text in each.items()}) for each in sides]
    Path("pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")


def used(command: str, recipe: Any, **more: Any) -> Any:
    """What a command that uses a model says, or why it refuses."""
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


def write_models() -> None:
    """Two small models of the same text, under the names that settings give."""
    tokenizer = train_tokenizer("characters", [words()])
    for seed, name in enumerate(("model", "gpt2")):
        config = ModelChoice(name="nanogpt-char", overrides={"width": 16, "layers": 1, "heads": 2, "context": 8})
        model = born(config.config(vocab=tokenizer.vocab), seed=seed)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(3)  # so that tokens are not all as likely
        save_model(Path(name), model, tokenizer, ModelCard(name=name, family="transformer", parameters=0))


def wrote(recipe: Any, **more: Any) -> Any:
    """What generate says."""
    return used("generate", recipe, **{"prompt": "the", "max_tokens": 24, "seed": 1, "ignore_eos": True} | more)


def measured(recipe: Any, **more: Any) -> Any:
    """What evaluate says, and how many windows it reads at a time."""
    from clearstory.evaluation import windows

    sizes: list[int] = []
    real = windows.iter_scores

    def watched(*args: Any, **kind: Any) -> Any:
        sizes.append(kind["batch_size"])
        return real(*args, **kind)

    with mock.patch("clearstory.recipes.inference.evaluate.iter_scores", watched):
        return used("evaluate", recipe, **more), sizes


def looked(recipe: Any, **more: Any) -> Any:
    """What inspect says."""
    return used("inspect", recipe, **{"text": "the"} | more)


def converted(recipe: Any, **more: Any) -> Any:
    """What convert says, where a folder of the name is there already."""
    Path("out").mkdir()
    Path("out/mine.txt").write_text("mine", encoding="utf-8")
    return used("convert", recipe, **more)


def begun(recipe: Any) -> Any:
    """The training that quickstart begins."""
    from clearstory.recipes.training import quickstart

    def remember(recipe: Any) -> Any:
        yield to_plain(recipe)

    with mock.patch.object(quickstart, "train_events", remember):
        (found,) = quickstart.quickstart_events(recipe)
    return found


PAIRS = {"model": "clear-translate", "text": ("pairs.jsonl",), "training.context": 64}
"""What makes a tiny run one that learns from pairs."""

SMALL_RNN = ModelChoice(name="rnn", overrides={"width": 8, "hidden_size": 8})

CONFIG = dict.fromkeys(field.name for config in CONFIG_TYPES for field in fields(config))

STEPPING = (
    "batch_size", "gradient_accumulation_steps", "context", "weight_average", "optimizer", "learning_rate", "weight_decay",
    "beta1", "beta2", "epsilon", "schedule", "final_learning_rate", "gradient_clip", "eval_tokens", "precision",
    "initialization", "seed",
)  # fmt: skip
WRITING = (
    "prompt", "max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "beam", "seed", "int8",
    "device",
)  # fmt: skip

OBSERVED: dict[str, Observation] = {
    **{f"{recipe}.model.{name}": built for recipe in ("TrainRecipe", "PlanRecipe") for name in CONFIG},
    **{
        f"{recipe}.model.{name}": f"models/{test}"
        for recipe in ("TrainRecipe", "PlanRecipe")
        for name, test in {
            "order": "test_tagger.py::test_trigrams_see_two_tags_back",
            "blocks": "test_hmm.py::test_blocks_are_a_model_whose_other_states_never_speak",
            "tags": "test_tagger.py::test_a_tagger_opens_as_what_was_saved_and_is_a_language_model",
            "suffixes": "test_tagger.py::test_a_tagger_opens_as_what_was_saved_and_is_a_language_model",
        }.items()
    },
    "TrainRecipe.model": built,
    **{f"TrainRecipe.{name}": trained for name in ("text", "out", "steps", "tokenizer")},
    **{f"TrainRecipe.training.{name}": trained for name in STEPPING},
    "TrainRecipe.parameters": partial(trained, sized=False),
    "TrainRecipe.init": continued,
    **{f"TrainRecipe.lora.{name}": continued for name in ("rank", "alpha", "targets", "dropout")},
    "TrainRecipe.minutes": "flow/test_train.py::test_minutes_are_kept_whatever_the_speed",
    "TrainRecipe.cpu_seconds": "flow/test_train.py::test_processor_seconds_are_kept",
    "TrainRecipe.objective": "flow/test_encoders.py::test_one_command_from_raw_text_to_an_encoder",
    "TrainRecipe.training.whole_words": "training/test_mlm.py::test_whole_words_come_from_the_settings",
    "TrainRecipe.resume": "flow/test_train.py::test_stopped_and_resumed_it_ends_as_if_left_alone",
    "TrainRecipe.overwrite": "flow/test_train.py::test_overwriting_replaces_the_run_and_nothing_else",
    "TrainRecipe.training.label_smoothing": partial(trained, **PAIRS),
    "TrainRecipe.training.muon_learning_rate": partial(trained, **{"training.optimizer": "muon"}),
    "TrainRecipe.training.recall_learning_rate": partial(trained, **{"model.recall": [2], "model.recall_rows": 64}),
    "TrainRecipe.training.stateful": lambda recipe: trained(replace(recipe, model=SMALL_RNN), sized=False),
    "TrainRecipe.training.align_documents": partial(trained, text=("rows.jsonl",)),
    "TrainRecipe.training.decay_share": partial(trained, **{"training.schedule": "wsd", "steps": 12}),
    "TrainRecipe.training.warmup_steps": partial(trained, steps=16),
    "TrainRecipe.training.eval_steps": partial(trained, steps=8),
    "TrainRecipe.training.save_steps": partial(trained, steps=8),
    "TrainRecipe.training.sample_steps": partial(trained, steps=8),
    "TrainRecipe.training.keep_checkpoints": partial(trained, **{"training.save_steps": 1}),
    "TrainRecipe.training.patience": "flow/test_train.py::test_patience_stops_early_and_the_best_model_is_kept",
    "TrainRecipe.training.compile": "flow/test_train.py::test_compiling_is_done_where_it_is_asked_for",
    "TrainRecipe.training.device": "flow/test_bad_input.py::test_settings_that_do_not_go_together",
    "TrainRecipe.training.threads": "flow/test_train.py::test_threads_are_as_many_as_asked_for",
    "TrainRecipe.data.text_field": partial(trained, text=("rows.jsonl",)),
    "TrainRecipe.data.pairs": "flow/test_writers.py::test_two_files_are_pairs_where_that_is_said",
    "TrainRecipe.data.source_field": partial(trained, **PAIRS),
    "TrainRecipe.data.target_field": partial(trained, **PAIRS),
    "TrainRecipe.data.validation": trained,
    "TrainRecipe.data.errors": "flow/test_bad_input.py::test_bytes_that_are_no_text_can_be_replaced",
    "TrainRecipe.data.cache": trained,
    **{f"GenerateRecipe.{name}": wrote for name in WRITING},
    "GenerateRecipe.model": wrote,
    "GenerateRecipe.length_penalty": partial(wrote, beam=2),
    "GenerateRecipe.stop": "generation/test_recipes.py::test_a_stop_string_ends_the_text_and_is_not_in_it",
    "GenerateRecipe.ignore_eos": partial(wrote, ignore_eos=False, max_tokens=100),
    "GenerateRecipe.truncate": partial(wrote, prompt="the cat sat on"),
    **{f"EvaluateRecipe.{name}": measured for name in ("model", "text", "windows", "batch_size", "limit")},
    **{f"EvaluateRecipe.{name}": measured for name in ("stride", "int8", "device")},
    "EvaluateRecipe.task": measured,
    "FillMaskRecipe.model": "flow/test_encoders.py::test_a_mask_is_filled_with_probabilities",
    "FillMaskRecipe.text": "flow/test_encoders.py::test_a_mask_is_filled_with_probabilities",
    "FillMaskRecipe.top": "flow/test_encoders.py::test_a_mask_is_filled_with_probabilities",
    "FillMaskRecipe.text_field": "flow/test_encoders.py::test_texts_may_lie_in_files",
    "FillMaskRecipe.errors": "flow/test_encoders.py::test_texts_may_lie_in_files",
    "FillMaskRecipe.device": "flow/test_encoders.py::test_what_an_encoder_does_not_support_is_refused",
    "EmbedRecipe.model": "flow/test_encoders.py::test_vectors_are_means_or_those_of_the_first_token",
    "EmbedRecipe.text": "flow/test_encoders.py::test_vectors_are_means_or_those_of_the_first_token",
    "EmbedRecipe.pooling": "flow/test_encoders.py::test_vectors_are_means_or_those_of_the_first_token",
    "EmbedRecipe.normalize": "flow/test_encoders.py::test_vectors_are_means_or_those_of_the_first_token",
    "EmbedRecipe.batch_size": "flow/test_encoders.py::test_vectors_do_not_depend_on_their_company",
    "EmbedRecipe.truncate": "flow/test_encoders.py::test_a_text_that_is_too_long_is_refused_or_cut",
    "EmbedRecipe.text_field": "flow/test_encoders.py::test_texts_may_lie_in_files",
    "EmbedRecipe.errors": "flow/test_encoders.py::test_texts_may_lie_in_files",
    "EmbedRecipe.device": "flow/test_encoders.py::test_what_an_encoder_does_not_support_is_refused",
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
        f"TranslateRecipe.{name}": f"generation/test_sources.py::{test}"
        for name, test in {
            "model": "test_texts_are_translated_in_the_order_given",
            "text": "test_texts_are_translated_in_the_order_given",
            "beam": "test_texts_are_translated_in_the_order_given",
            "length_penalty": "test_texts_are_translated_in_the_order_given",
            "max_tokens": "test_texts_are_translated_in_the_order_given",
            "truncate": "test_texts_are_translated_in_the_order_given",
        }.items()
    },
    "TranslateRecipe.errors": "flow/test_writers.py::test_translations_of_files_and_what_is_refused",
    "TranslateRecipe.device": "flow/test_writers.py::test_translations_of_files_and_what_is_refused",
    "TagRecipe.model": "models/test_tagger.py::test_what_cannot_be_tagged_is_refused",
    "TagRecipe.text": "models/test_tagger.py::test_words_seen_and_words_never_seen_get_their_tags",
    "TagRecipe.errors": "models/test_tagger.py::test_the_commands",
    "EvaluateRecipe.text_field": partial(measured, text=("rows.jsonl",)),
    "EvaluateRecipe.errors": "flow/test_bad_input.py::test_bytes_that_are_no_text_can_be_replaced",
    **{f"InspectRecipe.{name}": looked for name in ("model", "text", "view", "out", "top", "temperature", "device")},
    **{f"InspectRecipe.{name}": partial(looked, view="attention") for name in ("head", "part")},
    **{f"InspectRecipe.{name}": partial(looked, view="combined-heads") for name in ("heads", "reduce")},
    "InspectRecipe.columns": partial(looked, view="logit-lens"),
    "InspectRecipe.mask": "lens/test_fill_mask.py::test_places_are_hidden_and_told",
    "InspectRecipe.layout": "lens/test_word_embeddings.py::test_words_are_scattered_by_who_is_near_whom",
    "InspectRecipe.sentences": "lens/test_dependency_heads.py::test_the_number_of_sentences_is_a_setting",
    "InspectRecipe.truncate": partial(looked, text="the cat sat on"),
    "InspectRecipe.layer": partial(looked, view="neurons"),
    "InspectRecipe.target": partial(looked, view="logit-lens"),
    "InspectRecipe.words": partial(looked, view="logit-attribution"),
    "InspectRecipe.metric": partial(looked, view="logit-lens"),
    "InspectRecipe.compare_tokenizer": partial(looked, view="tokens"),
    "InspectRecipe.other_text": "lens/test_interventions.py::test_an_encoder_decoder_is_patched_where_it_reads",
    "InspectRecipe.word": "lens/test_contextual_embeddings.py::test_example_sentences_are_read_from_a_file",
    "InspectRecipe.edit": partial(looked, view="interventions"),
    "InspectRecipe.ablate": partial(looked, view="ablation"),
    **{f"InspectRecipe.{name}": partial(looked, view="generation", max_tokens=4) for name in ("max_tokens", "beam")},
    "InspectRecipe.seed": "lens/test_generation_view.py::test_a_seed_decides_and_greedy_takes_the_likeliest",
    **{
        f"InspectRecipe.{name}": "lens/test_difference.py::test_the_command_prints_the_difference"
        for name in ("compare_model", "compare_text")
    },
    "InspectRecipe.across_checkpoints": "flow/test_over.py::test_a_view_is_shown_at_eight_checkpoints",
    **{
        f"InspectRecipe.{name}": partial(looked, view="neighbours", text="t") for name in ("centre", "remove_components", "max_token_id")
    },
    "InspectRecipe.gate": "lens/test_recurrent_units.py::test_a_gate_is_shown_by_unit",
    "InspectRecipe.sentences_file": "lens/test_contextual_embeddings.py::test_example_sentences_are_read_from_a_file",
    **{f"QuickstartRecipe.{name}": begun for name in ("minutes", "out", "seed")},
    "StudioRecipe.folder": "studio/test_server.py::test_a_studio_serves_asks_nobody_and_ends_on_ctrl_c",
    **{
        f"StudioRecipe.{name}": "studio/test_server.py::test_addresses_that_others_reach_have_a_token"
        for name in ("host", "port", "token")
    },
    "PlanRecipe.model": planned,
    "PlanRecipe.parameters": planned,
    "PlanRecipe.devices": planned,
    "PlanRecipe.batch_size": planned,
    "PlanRecipe.context": planned,
    "PlanRecipe.tokens": planned,
    "PlanRecipe.utilization": planned,
    "PlanRecipe.price": priced,
    "PlanRecipe.measure": lambda recipe: recipe.measure,
    "ConvertRecipe.model": partial(converted, overwrite=True),
    "ConvertRecipe.out": converted,
    "ConvertRecipe.to": partial(converted, out="model.arpa"),
    "ConvertRecipe.dtype": partial(converted, overwrite=True),
    "ConvertRecipe.check": "parity/test_gguf_reading.py::test_convert_check_says_what_is_portable_and_what_is_not",
    "ConvertRecipe.overwrite": converted,
    "DoctorRecipe.measure": "cli/test_contract.py::test_doctor_prints_json",
    "DataRecipe.text": "cli/test_contract.py::test_data_prints_json",
    "DataRecipe.tokenizer": counted,
    "DataRecipe.show": counted,
    "DataRecipe.data.text_field": counted,
    "DataRecipe.data.pairs": counted,
    "DataRecipe.data.source_field": partial(counted, pairs=True),
    "DataRecipe.data.target_field": partial(counted, pairs=True),
    "DataRecipe.data.validation": counted,
    "DataRecipe.data.errors": "text/test_documents.py::test_half_characters_of_jsonl_can_be_replaced",
    "DataRecipe.data.cache": counted,
}
"""By recipe and key."""
