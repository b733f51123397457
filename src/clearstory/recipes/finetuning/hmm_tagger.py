"""Tags by a hidden Markov model, counted from the training sentences: the baseline of `finetune --task tag`.

Trigrams of tags by deleted interpolation, unknown words by their suffixes: TnT (Brants 2000).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import count_parameters
from clearstory.models.hmm.config import HMMConfig
from clearstory.models.hmm.model import HMM
from clearstory.models.hmm.tag_counts import fit_tag_counts
from clearstory.models.hmm.tagger import Tagger
from clearstory.recipes.finetuning.baselines import FittedBaseline, baseline_events, check_settings
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.training.events import TrainingEvent
from clearstory.recipes.training.tagged_text import encode_tagged, with_tags
from clearstory.tasks.data.examples import DataSplits, LabeledData, LabeledWords
from clearstory.tasks.evaluation import TaskEvaluation
from clearstory.tasks.hmm_tags import evaluate_tagger, single_words
from clearstory.text.conllu import TaggedSentence
from clearstory.text.train_tokenizer import train_tokenizer

TRIGRAM_TAGS = 64
"""Tags up to which the chain is of trigrams: their Viterbi takes time and memory by the cube of the tags."""


def hmm_tagger_events(recipe: FinetuneRecipe) -> Iterator[TrainingEvent]:
    """Events of counting a tagger. Raises BadSetting for settings of networks."""
    check_settings(recipe, "tag", "whose tags are counted in one pass")
    return baseline_events(recipe, fit_hmm_tagger)


def fit_hmm_tagger(recipe: FinetuneRecipe, data: DataSplits[LabeledWords]) -> FittedBaseline:
    """The tagger of a recipe, counted from its training examples."""
    sentences = [TaggedSentence(single_words(each.words), each.tags, each.location) for each in data.train.examples]
    tokenizer = train_tokenizer("words", [each.text for each in sentences])
    text = encode_tagged(sentences, tokenizer)
    order = 3 if len(text.tags) <= TRIGRAM_TAGS else 2
    model = HMM(with_tags(HMMConfig(vocab=tokenizer.vocab, learn="tags", order=order), text)).eval()
    fit_tag_counts(model, text)
    tagger = Tagger(model, tokenizer)
    size = sum(len(each.text.encode("utf-8", "surrogatepass")) for each in data.train.examples)
    card = ModelCard(family="hmm", trained_on=((Path(data.train.name).name, size),))

    def evaluate(part: LabeledData[LabeledWords]) -> TaskEvaluation:
        return evaluate_tagger(tagger, part)

    def save(folder: Path) -> Path:
        return save_model(folder, model, tokenizer, replace(card, name=folder.parent.name), overwrite=True)

    summary = model.config.summary
    return FittedBaseline(summary, count_parameters(model), evaluate, save, 'clearstory tag {run} "..."')
