"""Names that settings have in transformers and peft, for suggestions in error messages."""

from __future__ import annotations

from collections.abc import Collection

from clearstory.errors import nearest

OTHER_NAMES = {
    # TrainingArguments of transformers, and its example scripts
    "per_device_train_batch_size": "training.batch_size",
    "per_gpu_train_batch_size": "training.batch_size",
    "train_batch_size": "training.batch_size",
    "num_epochs": "training.num_train_epochs",
    "epochs": "training.num_train_epochs",
    "max_steps": "steps",
    "num_train_steps": "steps",
    "lr": "training.learning_rate",
    "lr_scheduler_type": "training.schedule",
    "lr_scheduler": "training.schedule",
    "max_grad_norm": "training.gradient_clip",
    "label_smoothing_factor": "training.label_smoothing",
    "adam_beta1": "training.beta1",
    "adam_beta2": "training.beta2",
    "optim": "training.optimizer",
    "bf16": "training.precision",
    "fp16": "training.precision",
    "eval_strategy": "training.eval_steps",
    "evaluation_strategy": "training.eval_steps",
    "save_strategy": "training.save_steps",
    "save_total_limit": "training.keep_checkpoints",
    "early_stopping_patience": "training.patience",
    "no_cuda": "training.device",
    "use_cpu": "training.device",
    "num_threads": "training.threads",
    "output_dir": "out",
    "overwrite_output_dir": "overwrite",
    "resume_from_checkpoint": "resume",
    "model_name_or_path": "model",
    "train_file": "data",
    "validation_file": "validation",
    "test_file": "test",
    "dataset_name": "data",
    "text_column_name": "text_column",
    "summary_column": "pair_column",
    "source_column": "text_column",
    "target_column": "pair_column",
    "source_lang": "text_column",
    "target_lang": "pair_column",
    "val_max_target_length": "max_target_length",
    "generation_num_beams": "num_beams",
    "generation_max_length": "max_target_length",
    "max_tokens_per_batch": "training.batch_tokens",
    "num_return_sequences": "n_best",
    "label_column_name": "label_column",
    "task_name": "task",
    "label_list": "labels",
    "id2label": "labels",
    "problem_type": "problem",
    "max_seq_length": "truncate",
    "max_length": "truncate",
    "truncation": "truncate",
    "doc_stride": "stride",
    "ignore_mismatched_sizes": "new_head",
    "freeze_layers": "freeze",
    # generate of transformers, CTranslate2 and OpenNMT, for commands that have `beam`
    "num_beams": "beam",
    "beam_size": "beam",
    "max_new_tokens": "max_tokens",
    # LoraConfig of peft
    "r": "lora.rank",
    "lora_r": "lora.rank",
    "lora_rank": "lora.rank",
    "use_peft": "lora.rank",
    "lora": "lora.rank",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "target_modules": "lora.targets",
    "lora_target_modules": "lora.targets",
    "lora_targets": "lora.targets",
    "modules_to_save": "lora.modules_to_save",
    "lora_modules_to_save": "lora.modules_to_save",
}
"""From a name in transformers or peft to the setting that has its meaning here; of each command those it has."""


def nearest_setting(name: str, known: Collection[str], *, listed: Collection[str] | None = None) -> str:
    """A suggestion for a name that is no setting: the one with that meaning, the one of a section, or a similar one;
    else the names that are `listed`, by default all.

    >>> nearest_setting("per_device_train_batch_size", ["training.batch_size", "out"])
    "did you mean 'training.batch_size'?"
    >>> nearest_setting("lora.r", ["lora.rank"]), nearest_setting("seed", ["seeds", "training.seed"])
    ("did you mean 'lora.rank'?", "did you mean 'training.seed'?")
    """
    last = name.rpartition(".")[2]
    meant = OTHER_NAMES.get(last)
    if meant is None or meant not in known:
        same = [each for each in known if each.rpartition(".")[2] == last]
        meant = same[0] if len(same) == 1 else None
    if meant is not None:
        return f"did you mean '{meant}'?"
    close = nearest(name, known)
    return close if close.startswith("did") else nearest(name, known if listed is None else listed)
