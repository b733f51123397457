"""Progress: long readings of a text tell how far they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearstory.cli.command import Output
from clearstory.cli.reading_display import ReadingDisplay
from clearstory.text import progress
from clearstory.text.corpus import Corpus, train_corpus_tokenizer
from clearstory.text.settings import DataSettings


def test_reading_training_and_encoding_report_their_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REPORT_BYTES", 1000)
    monkeypatch.setattr("clearstory.text.corpus.REPORT_BYTES", 1000)
    for number in range(40):
        (tmp_path / f"{number:02}.txt").write_text(f"number {number} " * 20)
    seen: list[tuple[str, int | None, int]] = []
    with progress.listening(lambda *report: seen.append(report)):
        corpus = Corpus.open(tmp_path, DataSettings(cache=tmp_path / "cache"))
        corpus.encode(train_corpus_tokenizer(corpus, "bpe:300"))
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    training = "training the tokenizer bpe:300"
    assert stages == ["reading the text", training, f"{training}: computing its vocabulary", "encoding the text"]
    encoded = [done for stage, done, total in seen if stage == "encoding the text" and total == corpus.text_bytes]
    assert encoded == sorted(encoded, key=lambda done: done or 0)  # one count for both splits
    assert encoded[-1] is not None
    assert 0.8 < encoded[-1] / corpus.text_bytes <= 1
    assert [stage for stage, done, _ in seen if done is None] == ["reading the text", training, "encoding the text"]
    seen.clear()
    Corpus.open(tmp_path)
    assert not seen  # nobody listens


def test_lines_are_printed_at_intervals_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    display = ReadingDisplay(Output())
    for second in range(25):
        clock[0] = float(second)
        display.show("encoding the text", second * 10**6, 25 * 10**6)
    display.show("encoding the text", None, 0)
    assert capsys.readouterr().err == "encoding the text: 10 of 25 MB\nencoding the text: 20 of 25 MB\n"
