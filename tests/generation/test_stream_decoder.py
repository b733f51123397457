"""StreamDecoder: no partial character, no partial stop string, and nothing lost."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from clearstory.generation.stream_decoder import StreamDecoder


class Bytes:
    """A tokenizer whose tokens are bytes."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return bytes(ids)


class Words:
    """A tokenizer that sets a space between words."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return " ".join(f"w{id}" for id in ids).encode()


def pieces(data: bytes, stop: tuple[str, ...] = ()) -> tuple[list[str], StreamDecoder]:
    decoder = StreamDecoder(Bytes(), stop)
    return [*(decoder.push(byte) for byte in data), decoder.flush()], decoder


@given(st.text(), st.lists(st.text(min_size=1, max_size=3), max_size=3))
def test_the_pieces_are_the_text_up_to_the_first_stop(text: str, stops: list[str]) -> None:
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    said, decoder = pieces(text.encode(), tuple(stops))
    # The earliest end wins; of stops found at once, the earliest beginning.
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert "".join(said) == text
        assert not decoder.stopped
    else:
        first = min(ends)
        begins = [text[:first].find(stop) for stop in stops if stop in text[:first]]
        assert "".join(said) == text[: min(begins)]
        assert decoder.stopped
        assert min(begins) >= min(places)


@given(st.binary())
def test_bytes_that_are_not_utf8_are_replaced_as_in_python(data: bytes) -> None:
    assert "".join(pieces(data)[0]) == data.decode("utf-8", "replace")


def test_a_character_is_never_split() -> None:
    assert pieces("a€b".encode())[0] == ["a", "", "", "€", "b", ""]


def test_what_may_become_a_stop_string_is_held_back_until_it_cannot() -> None:
    assert pieces(b"a\n\nb", ("\n\n\n",))[0] == ["a", "", "", "\n\nb", ""]
    said, decoder = pieces(b"a\n\n\nb", ("\n\n\n",))
    assert said == ["a", "", "", "", "", ""]
    assert decoder.stopped


def test_a_stop_string_ends_within_a_token() -> None:
    decoder = StreamDecoder(Words(), ("5 w",))
    assert [decoder.push(4), decoder.push(5), decoder.push(6)] == ["w4", " w", ""]
    assert decoder.stopped
    assert decoder.push(7) == ""
    assert decoder.flush() == ""


def test_words_are_joined_as_the_tokenizer_joins_them_also_to_the_prompt() -> None:
    decoder = StreamDecoder(Words())
    assert "".join(decoder.push(id) for id in range(20)) == " ".join(f"w{id}" for id in range(20))
    assert StreamDecoder(Words(), prompt_ids=[1, 2]).push(3) == " w3"


def test_an_empty_stop_string_stops_nothing() -> None:
    assert "".join(pieces(b"abc", ("",))[0]) == "abc"
