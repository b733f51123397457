"""Chat end to end: fine-tuned on conversations, saved, and talked to in Python and in the terminal."""

from __future__ import annotations

import io
import json
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

import clearstory
from clearstory.cli.chat_terminal import HELP, ChatTerminal
from clearstory.cli.command import Output
from clearstory.errors import BadInput, BadSetting, CannotDo, ContextOverflow
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.generation.engine import generate
from clearstory.generation.settings import Sampling
from clearstory.models.build import build
from clearstory.recipes.finetuning.loop import finetune_events
from clearstory.recipes.inference.chat_answer import ChatAnswer
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.training.events import ModelSaved
from clearstory.text.chat_prompt import encode_chat
from clearstory.training.checkpoint import load_checkpoint
from generation.test_chat_prompts import TEMPLATE, chat_tokenizer
from text.test_assistant_tokens import THINKING
from tiny import TINY_CLEAR, TINY_LSTM

Cli = Callable[..., Any]

CHAT = chat_tokenizer()
SMALL = replace(TINY_CLEAR, vocab=CHAT.vocab, context=160)
TRAINING: dict[str, Any] = {
    "num_train_epochs": 4, "learning_rate": 1e-2, "precision": "fp32", "threads": 1, "device": "cpu", "eval_steps": 8,
    "matmul": "mkl", "batch_size": 8,
}  # fmt: skip


def conversations(path: Path, count: int) -> Path:
    """Questions about letters, all answered alike."""
    rng, lines = random.Random(1), []
    for _ in range(count):
        word = "".join(rng.choices("abcdefgh", k=5))
        lines.append({"messages": [{"role": "user", "content": word}, {"role": "assistant", "content": "ahoy"}]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder and a file of conversations; no test changes them."""
    home = tmp_path_factory.mktemp("chat")
    conversations(home / "chats.jsonl", 60)
    card = ModelCard(name="base", family="transformer", parameters=0)
    save_model(home / "base", build(SMALL, seed=3), CHAT, card)
    save_model(home / "plain", build(SMALL, seed=3), replace(CHAT, config={}), card)
    return home


@pytest.fixture(scope="module")
def tuned(home: Path) -> Any:
    """A run with all weights trained."""
    return clearstory.finetune(
        home / "base",
        home / "chats.jsonl",
        task="chat",
        out=home / "run",
        training={**TRAINING, "num_train_epochs": 12},
    )


def random_model(context: int | None = 400, template: str = TEMPLATE, config: Any = SMALL) -> Any:
    """A model with random weights, which rarely ends a turn."""
    kind = replace(config, vocab=CHAT.vocab, **({} if context is None else {"context": context}))
    return SimpleNamespace(model=build(kind, seed=1), tokenizer=chat_tokenizer(template))


def test_it_learns_to_answer_and_its_folder_chats(tuned: Any, home: Path) -> None:
    session = clearstory.chat(home / "run", temperature=0, max_tokens=12)
    answer = session.ask("hgfed")
    assert (answer.text, answer.finished) == ("ahoy", "eos")
    assert clearstory.generate(home / "run", "hgfed", temperature=0, max_tokens=12).text == "ahoy"
    assert tuned.metric == "log_likelihood"
    config = json.loads((tuned.folder / "tokenizer_config.json").read_text())
    assert config["chat_template"] == TEMPLATE
    report = json.loads((home / "run" / "report.json").read_text())["validation"]
    assert report["details"]["tokens"] == 5 * report["examples"]  # four letters and the end of the turn
    assert report["metrics"]["perplexity"] == pytest.approx(2.718281828 ** report["loss"])
    assert "Least likely answers" in (home / "run" / "report.html").read_text()
    assert open_model(tuned.folder).generation_config.eos_token_ids[0] == CHAT.ids["<|im_end|>"]


def test_evaluate_scores_the_same_answers(tuned: Any, home: Path, cli: Cli) -> None:
    before, after = (
        clearstory.evaluate(home / name, home / "chats.jsonl", task="chat").metrics["log_likelihood"]
        for name in ("base", "run")
    )
    assert after > before + 1
    said = json.loads(cli("evaluate", home / "run", home / "chats.jsonl", "--task", "chat", "--json").out)
    assert said["metrics"]["log_likelihood"] == pytest.approx(after, rel=1e-4)
    assert said["intervals"]["log_likelihood"][0] <= after <= said["intervals"]["log_likelihood"][1]
    answers = json.loads(
        cli("evaluate", home / "run", home / "chats.jsonl", "--task", "chat", "--no-assistant_only_loss", "--json").out
    )
    assert answers["details"]["tokens"] > said["details"]["tokens"]


def test_lora_trains_a_base_model_with_an_added_template(home: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotDo, match=r"no chat template.*--chat-template chatml"):
        clearstory.finetune(home / "plain", home / "chats.jsonl", task="chat", out=tmp_path / "run")
    result = clearstory.finetune(
        home / "plain", home / "chats.jsonl", task="chat", out=tmp_path / "run", chat_template="chatml",
        lora={"rank": 2}, training={**TRAINING, "num_train_epochs": 1},
    )  # fmt: skip
    tokenizer = open_model(result.folder).tokenizer
    assert tokenizer is not None
    assert "<|im_start|>assistant" in tokenizer.config["chat_template"]
    assert tokenizer.eos_token_id == CHAT.ids["<|im_end|>"]
    session = clearstory.chat(result.folder, max_tokens=2)
    assert tokenizer.eos_token_id in session.partner.prompt_format.eos_token_ids
    assert session.ask("a").ids


def test_a_resumed_run_is_the_uninterrupted_one(home: Path, tmp_path: Path) -> None:
    values = {"model": str(home / "base"), "data": (str(home / "chats.jsonl"),), "task": "chat", "steps": 6}
    whole = build_settings(
        FinetuneRecipe, {**values, "out": tmp_path / "whole", "training": {**TRAINING, "save_steps": 2}}
    )
    part = replace(whole, out=tmp_path / "part")
    list(finetune_events(whole))
    for event in finetune_events(part):
        if isinstance(event, ModelSaved) and event.kind == "checkpoint" and event.step == 4:
            break
    list(finetune_events(replace(part, resume=True)))
    one, other = (load_checkpoint(max((tmp_path / name / "checkpoints").glob("step-*"))) for name in ("whole", "part"))
    assert one.step == other.step
    assert all(torch.equal(value, other.model[name]) for name, value in one.model.items())


def test_long_conversations_are_refused_or_lose_their_first_turns(home: Path, tmp_path: Path) -> None:
    turns = [{"role": ("user", "assistant")[at % 2], "content": f"{at} " + "abcd " * 4} for at in range(8)]
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps({"messages": [{"role": "system", "content": "S"}, *turns]}) + "\n", encoding="utf-8")
    with pytest.raises(ContextOverflow, match=r"long.jsonl, line 1: the conversation has \d+ tokens, but .* 160; pass"):
        clearstory.evaluate(home / "base", file, task="chat")
    with pytest.warns(clearstory.errors.ModelWarning, match="1 of 1 conversations are longer than the context of 160"):
        scores = clearstory.evaluate(home / "base", file, task="chat", truncate="left")
    assert scores.details["tokens"] == 2 * len(turns[7]["content"].strip()) + 2  # two answers are left
    turns[6]["content"] = "x" * 200
    file.write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")
    with pytest.raises(ContextOverflow, match="its last turn alone has"):
        clearstory.evaluate(home / "base", file, task="chat", truncate="left")


@pytest.mark.parametrize("config", [SMALL, TINY_LSTM], ids=["transformer", "lstm"])
@pytest.mark.parametrize("template", [TEMPLATE, THINKING], ids=["chatml", "rewriting"])
def test_each_turn_reads_what_is_new_and_answers_as_if_all_were_read(config: Any, template: str) -> None:
    opened = random_model(None if config is TINY_LSTM else 400, template, config)
    session = clearstory.chat(opened, temperature=0, max_tokens=6, precision="fp32")
    for turn, text in enumerate(("a</think>b", "c<|im_end|>", "  d\n")):
        answer = session.ask(text)
        shown = session.messages[: 2 * turn + 1]
        prompt = encode_chat(opened.tokenizer, shown, today=session.partner.today).ids
        ends = session.partner.prompt_format.eos_token_ids
        anew = generate(opened.model, prompt, Sampling(temperature=0, max_tokens=6), eos_token_id=ends)
        assert [each.id for each in anew] == list(answer.ids)
        assert answer.prompt_tokens == len(prompt)
        assert (answer.read_tokens == len(prompt)) == (turn == 0 or (template is THINKING and turn == 1))
    before = session.answers[-1]
    *_, again = session.retry()
    assert isinstance(again, ChatAnswer)
    assert (again.ids, len(session.messages)) == (before.ids, 6)
    assert again.read_tokens < before.prompt_tokens  # the turn's own prompt is read again, what came before is not


def test_messages_are_taken_back_changed_saved_and_loaded(tmp_path: Path) -> None:
    session = clearstory.chat(random_model(), system="Be.", max_tokens=3, seed=1)
    session.ask("one")
    session.ask("two")
    *_, answer = session.edit("three")
    assert [each["content"] for each in session.messages if each["role"] == "user"] == ["one", "three"]
    assert answer.text == session.messages[-1]["content"]
    file = session.save(tmp_path / "talk.json")
    session.save(file)  # its own file may be written again
    other = clearstory.chat(random_model(), load=file, max_tokens=3)
    assert other.messages == session.messages
    assert other.system == "Be."
    assert other.undo() == "three"
    other.clear()
    assert other.messages == [{"role": "system", "content": "Be."}]
    other.system = None
    assert other.messages == []
    with pytest.raises(BadInput, match="no message to remove"):
        other.undo()
    fresh = clearstory.chat(random_model())
    with pytest.raises(BadSetting, match=r"talk\.json exists; save to another file"):
        fresh.save(file)
    for contents, sentence in (
        ("[]", "at least one"),
        ("{", "not valid JSON"),
        ('{"a": 1}', "not a supported conversation"),
    ):
        (tmp_path / "bad.json").write_text(contents, encoding="utf-8")
        with pytest.raises(BadInput, match=sentence):
            fresh.load(tmp_path / "bad.json")
    with pytest.raises(BadInput, match="does not exist"):
        fresh.load(tmp_path / "none.json")


def test_a_full_context_is_one_sentence_or_loses_its_first_turns() -> None:
    session = clearstory.chat(random_model(120), temperature=0, max_tokens=200)
    answer = session.ask("a" * 20)
    assert answer.finished in ("context", "eos")
    assert answer.prompt_tokens + len(answer.ids) <= 121
    kept = list(session.messages)
    with pytest.raises(ContextOverflow, match=r"the conversation has \d+ tokens and the model's context holds 120"):
        session.ask("b" * 60)
    assert session.messages == kept
    moving = clearstory.chat(random_model(160), system="Be.", temperature=0, max_tokens=10, truncate="left")
    for number in range(6):
        answer = moving.ask(f"message {number}")
    assert answer.left_out > 0
    assert answer.prompt_tokens <= 120
    assert len(moving.messages) == 13  # all are kept, though not all are read
    with pytest.raises(ContextOverflow, match="the last message has"):
        moving.ask("c" * 300)


def test_an_interrupted_answer_is_kept_and_the_next_turn_goes_on() -> None:
    session = clearstory.chat(random_model(), temperature=0, max_tokens=30)
    events = session.send("a")
    pieces = [next(events), next(events)]
    session.interrupt()
    *_, answer = events
    assert isinstance(answer, ChatAnswer)
    assert answer.finished == "interrupted"
    assert answer.text.startswith("".join(each.text for each in pieces))  # type: ignore[union-attr]
    assert session.ask("b").read_tokens < session.answers[-1].prompt_tokens
    abandoned = session.send("c")  # closed by its reader
    next(abandoned)
    abandoned.close()
    assert [each["role"] for each in session.messages[-2:]] == ["user", "assistant"]


def test_what_cannot_chat_is_refused_with_the_way_out(home: Path) -> None:
    with pytest.raises(CannotDo, match=r"use clearstory generate .*--chat-template chatml"):
        clearstory.chat(home / "plain")
    assert clearstory.chat(home / "plain", chat_template="chatml", max_tokens=1).ask("a").ids
    refusing = random_model(
        template="{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    with pytest.raises(BadInput, match="no system"):
        clearstory.chat(refusing, system="Be.")
    session = clearstory.chat(random_model())
    for text, sentence in ((" ", "the message is empty"), ("a\ud800", "half of a surrogate")):
        with pytest.raises(BadInput, match=sentence):
            session.ask(text)
    with pytest.raises(BadSetting, match="the setting 'heat' does not exist; supported: max_tokens, temperature"):
        session.set("heat", "1")
    with pytest.raises(BadSetting, match="temperature"):
        session.set("temperature", "-1")
    for setting in ({"beam": 2}, {"length_penalty": 0.5}):
        with pytest.raises(BadSetting, match="is for beam search"):
            clearstory.chat(random_model(), **setting)


def test_settings_of_sampling_reach_the_answer() -> None:
    plain = clearstory.chat(random_model(), max_tokens=8, seed=1).ask("a").ids
    penalties = ({"repetition_penalty": 9.0}, {"presence_penalty": 2.0}, {"frequency_penalty": 2.0})
    for setting in ({"top_k": 1}, {"top_p": 0.01}, {"min_p": 0.99}, *penalties):
        assert clearstory.chat(random_model(), max_tokens=8, seed=1, **setting).ask("a").ids != plain, setting
    session = clearstory.chat(random_model(), max_tokens=8, seed=1)
    assert session.ask("a").ids == plain
    *_, again = session.retry()
    assert again.ids != plain  # another draw


def talk(lines: list[str], **settings: Any) -> tuple[ChatTerminal, Iterator[str]]:
    """A terminal in which these lines are typed."""
    typed = iter(lines)

    def read_line(prompt: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    session = clearstory.chat(random_model(), temperature=0, max_tokens=4, **settings)
    return ChatTerminal(session, Output(), read_line), typed


def test_the_terminal_runs_its_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "talk.json"
    lines = [
        "/help", "/undo", "hello", '"""', "two", "lines", '"""', "one \\", "more", "//slash", "/retry", "/edit other",
        "/system Be brief.", "/system", "/set", "/set temperature 0.5", "/set heat 1", "/stats", f"/save {file}",
        f"/save {tmp_path / 'no' / 'talk.json'}", "/undo", f"/load {file}", "/nothing", "", "/exit", "never read",
    ]  # fmt: skip
    terminal, typed = talk(lines)
    terminal.run()
    shown = capsys.readouterr()
    assert next(typed) == "never read"
    assert HELP in shown.out
    asked = [each["content"] for each in terminal.session.messages if each["role"] == "user"]
    assert asked == ["hello", "two\nlines", "one \nmore", "other"]
    assert terminal.session.system == "Be brief."
    assert terminal.session.sampling.temperature == 0.5
    assert json.loads(file.read_text())["messages"] == terminal.session.messages
    for sentence in (
        "there is no message to remove", "tokens per second", "system message: Be brief.", "max_tokens 4,",
        "the setting 'heat' does not exist", "tokens of the context", "9 messages written", "removed: other",
        "9 messages read", "the command /nothing does not exist",
    ):  # fmt: skip
        assert sentence in shown.err.replace("\n", " "), sentence
    assert "Traceback" not in shown.err


def test_ctrl_c_ends_an_answer_or_a_line_and_not_the_conversation(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[Any] = ["hello", KeyboardInterrupt, "again", EOFError]
    terminal, _ = talk([])

    def read_line(prompt: str) -> str:
        line = lines.pop(0)
        if isinstance(line, str):
            return line
        raise line

    terminal.read_line = read_line
    write, written = terminal.output.write, []

    def interrupted_write(text: str) -> None:
        write(text)
        written.append(text)
        if len(written) == 1:
            signal.raise_signal(signal.SIGINT)

    terminal.output = cast(Any, SimpleNamespace(write=interrupted_write, stderr=terminal.output.stderr))
    before = signal.getsignal(signal.SIGINT)
    terminal.run()
    assert signal.getsignal(signal.SIGINT) is before
    assert terminal.session.answers[0].finished == "interrupted"
    assert [each["role"] for each in terminal.session.messages] == ["user", "assistant"] * 2
    shown = capsys.readouterr().err
    assert "interrupted" in shown
    assert "Ctrl-D or /exit exits" in shown


def test_lines_of_standard_input_are_messages(home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(text: str, *words: str) -> Any:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return cli("chat", home / "base", "--max-tokens", "3", "--temperature", "0", *words)

    said = json.loads(given("a\n\n/help\n", "--json").out)
    assert [each["role"] for each in said["messages"]] == ["user", "assistant"] * 2
    assert said["messages"][2]["content"] == "/help"
    assert [each["text"] for each in said["answers"]] == [each["content"] for each in said["messages"][1::2]]
    plain = given("a\n/help\n")
    assert plain.out == "".join(f"{each['text']}\n" for each in said["answers"])
    assert given("a\n", "--system", "Be.", "--seed", "1", "--stop", "x", "--int8", "--json").status == 0
    assert "is 'odd'" in given("a\n", "--chat-template", "odd").last
    assert given("b" * 300 + "\n").status == 1
