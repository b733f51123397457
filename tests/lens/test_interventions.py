"""Interventions: they change the prediction as they say, and one that changes no number leaves every bit equal."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_residual_stream import MORE, TINY, read_of

from clearstory.errors import BadInput, BadSetting, CannotDo, UnknownName
from clearstory.lens.hooks.activations import ACTIVE_HOOKS, record_activations, replace_activations
from clearstory.lens.hooks.apply_interventions import intervention_replacements, run_interventions, set_weight
from clearstory.lens.hooks.interventions import (
    AddSteeringVector,
    Intervention,
    PatchResidual,
    ScaleOutput,
    SetAttentionWeight,
    interventions_from_json,
    interventions_to_json,
    interventions_to_python,
    parse_intervention,
)
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.probes.activation_patching import activation_patching, patch_every_position
from clearstory.lens.probes.interventions import ablate_every_part, ablation, interventions
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, TINY_GPT2, shaken

TOKENIZER = train_tokenizer("characters", ["abcdefghij klmnopqrst"])
LINES = [
    "head 1.0 off", "head 0.1 x0.5", "head 1.1 mean", "attention 0 off", "feed-forward 1 mean", "layer 1 x2",
    "cell 1.0 3 2 0.9", "steer 0 4 all b a", "steer embedding -1.5 last 'ab c' d", "patch 1 2 'dcba'",
    "patch embedding 0 bbca",
    "encoder head 0.1 off", "cross-head 0.0 off", "cross-attention 0 x0.1", "cross-cell 0.1 0 2 1",
]  # fmt: skip


def model_of(config: Any, **more: Any) -> Any:
    return shaken(replace(config, vocab=TOKENIZER.vocab, **more))


@pytest.mark.parametrize("line", LINES)
def test_interventions_are_text_data_and_python(line: str) -> None:
    wanted = parse_intervention(line)
    assert parse_intervention(str(wanted)) == wanted
    assert interventions_from_json(interventions_to_json([wanted])) == [wanted]
    names = {each.__name__: each for each in (ScaleOutput, SetAttentionWeight, AddSteeringVector, PatchResidual)}
    assert eval(repr(wanted), names) == wanted
    assert repr(wanted) in interventions_to_python("model", "abca", [wanted])


def test_the_generated_python_runs(tmp_path: Any, monkeypatch: Any) -> None:
    from clearstory.formats.folders import save_model
    from clearstory.formats.model_card import ModelCard

    model = model_of(TINY_CLEAR)
    folder = save_model(
        tmp_path / "model", model.float(), TOKENIZER, ModelCard(name="m", family="transformer", parameters=0)
    )
    wanted = [parse_intervention("head 1.0 off"), parse_intervention("cell 0.1 3 2 0.9")]
    names: dict[str, Any] = {}
    exec(interventions_to_python(str(folder), "abca", wanted), names)
    own = run_interventions(model, TOKENIZER, encode_passage(model, TOKENIZER, "abca"), wanted)
    assert names["outcome"].kl == pytest.approx(own.kl, rel=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "clear", "windowed", "recalling", "after", "2017"])
def test_an_intervention_without_effect_leaves_every_bit(name: str) -> None:
    base = {"gpt2": TINY_GPT2, "clear": TINY_CLEAR}.get(name)
    model = model_of(base or MORE[name]().config)
    written = {"target": "abca"} if name == "2017" else {}
    read = encode_passage(model, TOKENIZER, "bca", **written) if written else encode_passage(model, TOKENIZER, "abca")
    activation = f"{'decoder.' if written else ''}blocks.1.attention.pattern"
    with record_activations(model, activation) as seen, torch.no_grad():
        read.forward(model)
    nothing: list[Intervention] = [
        *(
            parse_intervention(f"{part} 1{'.0' * (part == 'head')} x1")
            for part in ("head", "attention", "feed-forward", "layer")
        ),
        parse_intervention("steer 0 0 all a b"),
        SetAttentionWeight(layer=1, head=1, row=3, column=2, weight=float(seen[activation][0, 1, 3, 2])),
    ]
    if not written:
        nothing.append(parse_intervention("patch 1 2 abca"))
    for wanted in nothing:
        outcome = run_interventions(model, TOKENIZER, read, [wanted])
        assert torch.equal(outcome.before, outcome.after), wanted
        assert outcome.kl == 0
    assert torch.equal(run_interventions(model, TOKENIZER, read, []).after, outcome.before)
    assert not ACTIVE_HOOKS


def test_each_intervention_does_what_its_text_says() -> None:
    model = model_of(TINY_CLEAR)
    read = encode_passage(model, TOKENIZER, "abca")
    other = encode_passage(model, TOKENIZER, "dcba")
    with torch.no_grad(), record_activations(model, "**") as at:
        read.forward(model)
    with torch.no_grad(), record_activations(model, "**") as there:
        other.forward(model)

    def after(line: str, activation: str) -> torch.Tensor:
        with (
            torch.no_grad(),
            replace_activations(model, intervention_replacements(model, TOKENIZER, read, parse_intervention(line))),
            record_activations(model, activation) as seen,
        ):
            read.forward(model)
        return seen[activation]

    answer = after("head 1.0 off", "blocks.1.attention.head_outputs")
    assert not answer[:, 0].any()
    assert torch.equal(answer[:, 1:], at["blocks.1.attention.head_outputs"][:, 1:])
    mean = after("head 1.2 mean", "blocks.1.attention.head_outputs")[0, 2]
    assert torch.allclose(mean, at["blocks.1.attention.head_outputs"][0, 2].mean(0).expand_as(mean))
    assert torch.equal(after("feed-forward 0 x0.5", "blocks.0.feed_forward"), at["blocks.0.feed_forward"] * 0.5)
    assert torch.equal(after("layer 0 off", "blocks.0"), at["embedding_output"])
    assert torch.equal(after("attention 0 off", "blocks.0.after_attention"), at["embedding_output"])
    pattern, before = (
        each[0, 1]
        for each in (after("cell 1.1 3 2 0.9", "blocks.1.attention.pattern"), at["blocks.1.attention.pattern"])
    )
    assert float(pattern[3, 2]) == 0.9
    assert float(pattern[3].sum()) == pytest.approx(1)
    assert float(pattern[3, 0] / pattern[3, 1]) == pytest.approx(float(before[3, 0] / before[3, 1]))
    assert torch.equal(pattern[:3], before[:3])
    assert torch.equal(after("patch 0 2 dcba", "blocks.0")[0, 2], there["blocks.0"][0, 2])
    with torch.no_grad(), record_activations(model, "blocks.0") as b:
        encode_passage(model, TOKENIZER, "bb").forward(model)
    with torch.no_grad(), record_activations(model, "blocks.0") as d:
        encode_passage(model, TOKENIZER, "d").forward(model)
    moved = after("steer 0 2 all bb d", "blocks.0")[0] - at["blocks.0"][0]
    assert torch.allclose(moved, (2 * (b["blocks.0"][0, -1] - d["blocks.0"][0, -1])).expand_as(moved))
    last = after("steer 0 2 last bb d", "blocks.0")[0] - at["blocks.0"][0]
    assert not last[:-1].any()
    assert torch.allclose(last[-1], moved[-1])


def test_a_row_with_all_weight_on_one_key_is_rescaled_evenly() -> None:
    pattern = torch.tensor([[[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]]])
    cell = SetAttentionWeight(layer=0, head=0, row=2, column=0, weight=0.4)
    assert set_weight(pattern, cell, torch.tensor([True] * 3))[0, 0, 2].tolist() == pytest.approx([0.4, 0.3, 0.3])
    one = replace(cell, column=2, weight=0.5)
    assert set_weight(pattern, one, torch.tensor([True] * 3))[0, 0, 2].tolist() == pytest.approx([0.5, 0.0, 0.5])


def test_interventions_are_applied_in_order() -> None:
    model = model_of(TINY_GPT2)
    read = encode_passage(model, TOKENIZER, "abca")
    wanted = [
        parse_intervention("head 0.0 x3"),
        parse_intervention("head 0.0 x0.5"),
        parse_intervention("steer 1 2 last b a"),
    ]
    assert torch.allclose(
        run_interventions(model, TOKENIZER, read, wanted[:2]).after,
        run_interventions(model, TOKENIZER, read, [parse_intervention("head 0.0 x1.5")]).after,
    )
    assert torch.equal(
        run_interventions(model, TOKENIZER, read, wanted[:-1]).after,
        run_interventions(model, TOKENIZER, read, wanted[:2]).after,
    )
    outcome = run_interventions(model, TOKENIZER, read, wanted)
    (id, before, after), *_ = outcome.largest_changes(3)
    assert abs(after - before) == pytest.approx(float((outcome.after - outcome.before).abs().max()))
    by_hand = sum(p * math.log2(p / q) for p, q in zip(outcome.before.tolist(), outcome.after.tolist(), strict=True))
    assert outcome.kl == pytest.approx(by_hand)
    view = interventions(model, TOKENIZER, "abca", edit=tuple(map(str, wanted)), top=5)
    assert view.columns == ("token", "before", "change", "after")
    assert TOKENIZER.display_token(id) in view.column("token")
    assert f"KL {outcome.kl:.3g} bits" in (view.caption or "")
    assert "almost no effect" in (interventions(model, TOKENIZER, "abca", edit=("layer 0 x1",)).caption or "")


@pytest.mark.parametrize("name", ["gpt2", "clear", "grouped", "encoder", "t5"])
@pytest.mark.parametrize("ablate", ["zero", "mean"])
def test_ablation_in_a_batch_equals_ablation_one_by_one(name: str, ablate: Any) -> None:
    model, read = MORE[name](), read_of(name)
    seen = ablate_every_part(model, read, 7, ablate=ablate)
    passage = Passage(read.ids, read.pieces, read.source, read.source_pieces)
    prefix = "decoder." if name == "t5" else ""
    with torch.no_grad():
        before = model.logits(read.forward(model)[7]).log_softmax(-1)
    assert seen.answer == int(before.argmax())
    for column in ("h1", "ff", *(("x0",) if prefix else ())):
        part = {"h": "head", "x": "cross-head", "f": "feed-forward"}[column[0]]
        wanted = ScaleOutput(
            part=part,
            layer=0,
            head=None if column == "ff" else int(column[1]),
            factor="mean" if ablate == "mean" else 0.0,
        )
        with torch.no_grad(), replace_activations(model, intervention_replacements(model, TOKENIZER, passage, wanted)):
            after = model.logits(read.forward(model)[7]).log_softmax(-1)
        at = 0, seen.columns.index(column)
        bits = float(after[seen.answer] - before[seen.answer]) / math.log(2)
        assert float(seen.change[at]) == pytest.approx(bits, rel=1e-9, abs=1e-9)
        kl = float((before.exp() * (before - after)).sum()) / math.log(2)
        assert float(seen.kl[at]) == pytest.approx(kl, rel=1e-6, abs=1e-9)


def test_patching_recovers_the_other_text() -> None:
    for config in (TINY_GPT2, TINY_CLEAR):
        model = model_of(config)
        read, other = encode_passage(model, TOKENIZER, "abcab"), encode_passage(model, TOKENIZER, "abdab")
        seen = patch_every_position(model, read, other, (4, 4), (3, 7))
        with torch.no_grad():
            ours, theirs = (model.logits(each.forward(model)[-1]) for each in (read, other))
        assert seen.difference == pytest.approx(float(ours[3] - ours[7]))
        assert seen.other_difference == pytest.approx(float(theirs[3] - theirs[7]))
        # Tokens before the difference are the same; at the embedding only the differing token has an effect.
        assert not seen.recovered[:, :2].any()
        assert not seen.recovered[0, [0, 1, 3, 4]].any()
        assert float(seen.recovered[0, 2]) == pytest.approx(1)
        # After the last layer only the last token has an effect.
        assert seen.recovered[-1].tolist() == pytest.approx([0, 0, 0, 0, 1])
        one = run_interventions(
            model, TOKENIZER, read, [PatchResidual(layer=0, position=3, other_text="abdab")]
        ).after.log()
        assert float(seen.recovered[1, 3]) == pytest.approx(
            (float(one[3] - one[7]) - seen.difference) / (seen.other_difference - seen.difference)
        )


def test_an_encoder_decoder_is_patched_in_its_encoder() -> None:
    model = shaken(replace(T5_SMALL, **TINY | {"vocab": TOKENIZER.vocab, "decoder_start_token_id": 0}))
    view = activation_patching(model, TOKENIZER, "abc", other_text="abd", words=("a", "b"), target="b")
    assert view.column_labels[2] == "c/d"
    assert view.values[0][2] == pytest.approx(1)
    last = "encoder cell 1.0 2 0 0.5"
    assert interventions(model, TOKENIZER, "abc", target="b", edit=(last, "cross-cell 1.1 0 2 0.9")).rows
    assert "encoder" in interventions(model, TOKENIZER, "abc", edit=("encoder patch 0 1 abd",)).title


def test_an_encoder_predicts_at_its_mask() -> None:
    pieces = train_tokenizer("wordpiece:20", ["a b c", "a c b"])
    model = shaken(replace(BERT_TINY, **TINY | {"vocab": pieces.vocab}))
    grid = ablation(model, pieces, "a [MASK] c")
    assert grid.column_labels == ("h0", "h1", "ff")
    assert interventions(model, pieces, "a [MASK] c", edit=("cell 0.1 1 3 0.7",)).rows
    assert activation_patching(model, pieces, "a [MASK] c", other_text="b [MASK] c", words=("a", "b")).values[0][1] != 0
    for view, more in ((ablation, {}), (interventions, {"edit": ("layer 0 off",)})):
        with pytest.raises(BadInput, match=r"predicts at a \[MASK\]"):
            view(model, pieces, "a b c", **more)


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ("hed 1.0 off", UnknownName, "did you mean 'head'"),
        ("head 1 off", BadSetting, r"write head L.H off\|mean\|xN"),
        ("head 1.0", BadSetting, "is malformed"),
        ("head 1.0 xx", BadSetting, "is malformed"),
        ("layer 1.0 off", BadSetting, "write layer L off"),
        ("cell 1.0 3 2", BadSetting, "write cell L.H ROW COLUMN WEIGHT"),
        ("cell a.b 3 2 1", BadSetting, "is malformed"),
        ("steer 1 2 some a b", BadSetting, "write steer L N all"),
        ("patch 1 2 'abca", BadSetting, "an unclosed quote"),
        ("", UnknownName, "unknown intervention ''"),
        ("head 1.9 off", BadSetting, "names head 9, and the layer has 4; give 0 to 3"),
        ("head 7.0 off", BadSetting, "names layer 7, and there are 2"),
        ("attention embedding off", BadSetting, "is malformed"),
        ("patch -2 0 abca", BadSetting, "names layer -2"),
        ("cell 1.0 3 9 0.5", BadSetting, "a token that does not exist; rows go to 3"),
        ("cell 1.0 1 2 0.5", BadSetting, "attends to 0 to 1"),
        ("cell 1.0 0 0 0.5", BadSetting, "changes the only weight of token 0"),
        ("cell 1.0 3 2 1.5", BadSetting, "weights lie between 0 and 1"),
        ("cell 1.0 3 2 nan", BadSetting, "is malformed"),
        ("steer 1 1e308 all a b", BadSetting, "the logits are not finite"),
        ("patch 1 2 abc", BadSetting, "the text has 4 tokens and the other 3"),
        ("patch 1 4 dcba", BadSetting, "names token 4, and there are 4"),
        ("cross-head 1.0 off", CannotDo, "this stack has none"),
        ("encoder layer 1 off", CannotDo, "this model has one stack"),
        ("steer 1 2 all a ''", BadInput, "the text is empty"),
        ("layer 1 xnan", BadSetting, "is malformed"),
    ],
)
def test_invalid_interventions_are_refused(line: str, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        interventions(model_of(TINY_CLEAR), TOKENIZER, "abca", edit=(line,))


def test_other_refusals() -> None:
    model = model_of(TINY_CLEAR)
    with pytest.raises(BadSetting, match="there is no intervention"):
        interventions(model, TOKENIZER, "abca")
    with pytest.raises(BadSetting, match="is not an intervention"):
        interventions_from_json([{"kind": "Scales", "layer": 1}])
    with pytest.raises(BadSetting, match="needs a second text"):
        activation_patching(model, TOKENIZER, "abca")
    with pytest.raises(BadSetting, match="the text has 4 tokens and the other 2"):
        activation_patching(model, TOKENIZER, "abca", other_text="ab")
    with pytest.raises(BadInput, match="both texts have the same most likely token"):
        activation_patching(model, TOKENIZER, "abca", other_text="abca")
    with pytest.raises(BadInput, match="nothing to explain"):
        activation_patching(model, TOKENIZER, "abca", other_text="abca", words=("a", "b"))
    with pytest.raises(BadSetting, match="an ablation shows answer or kl"):
        ablation(model, TOKENIZER, "abca", metric="rank")
