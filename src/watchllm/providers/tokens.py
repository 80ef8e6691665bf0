"""Counts tokens offline where a provider reports no usage: estimates by script and shape of words, nothing downloaded.

Calibrated against OpenAI's `o200k_base` on 704 texts of up to 12,000 characters (prose and user interfaces in 100
languages, source code of ten kinds, tables, JSON, base64, emoji) and everyday sentences. Of the texts held out, the
mean error is 10 %, nine of ten are within 21 %, the worst is 37 % off; one token for four characters errs by 26 %, and
by half for one in ten. Other tokenizers differ from `o200k_base` by as much (`cl100k_base`: 15 %). A real tokenizer
would cost every proxy 25 MB (Llama's) to 145 MB (`o200k_base`) of memory.

Of a long text, evenly spaced samples are read, so that an estimate never takes more than about a millisecond.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import msgspec

_SAMPLES = 12
_SAMPLE_LENGTH = 512
_PER_MESSAGE = 3
_PER_ANSWER = 3
_IMAGE = 765
_SMALL_IMAGE = 85
_TEXT_FILE = "data:text/plain;base64,"


def estimate(text: str) -> int:
    """About how many tokens `text` is; 0 only for no text. 0.1 µs a character, 1 ms at most."""
    length = len(text)
    if length <= _SAMPLES * _SAMPLE_LENGTH:
        return max(1, round(_count(text))) if text else 0
    step = (length - _SAMPLE_LENGTH) / (_SAMPLES - 1)
    starts = [round(number * step) for number in range(_SAMPLES)]
    sample = "".join([text[start : start + _SAMPLE_LENGTH] for start in starts])
    return round(_count(sample) * length / len(sample))


def estimate_request(document: dict[str, Any]) -> int:
    """About how many tokens of input a request is: messages, tools, prompts or inputs, images at a usual size.

    Takes about a millisecond beside the walk through the document, whatever its length.
    """
    texts: list[str] = []
    count = 0
    messages = document.get("messages")
    if type(messages) is list:
        count += _PER_ANSWER + _PER_MESSAGE * len(messages)
        for message in messages:
            if type(message) is dict:
                count += _read_message(message, texts)
    described = [document[field] for field in ("tools", "functions", "response_format") if document.get(field)]
    texts.extend(_encode(value).decode() for value in described)
    for field in ("prompt", "input", "instructions", "system", "suffix"):
        count += _read_prompt(document.get(field), texts)
    return count + estimate(" ".join(texts))


def rough(size: int) -> int:
    """A guess from a size in bytes or characters alone, for where nothing may be read: a token for four."""
    return -(-size // 4)


def _read_message(message: dict[str, Any], texts: list[str]) -> int:
    """Put a message's texts on the list; the tokens of what is no text."""
    count = 0
    for field, value in message.items():
        if field == "content" and type(value) is list:
            count += sum(_read_part(part, texts) for part in value if type(part) is dict)
        elif type(value) is str:
            texts.append(value)
        elif field == "tool_calls":
            texts.append(_encode(value).decode())
    return count


def _read_part(part: dict[str, Any], texts: list[str]) -> int:
    text = part.get("text")
    if type(text) is str:
        texts.append(text)
        return 0
    image = part.get("image_url")
    if image is not None:
        return _SMALL_IMAGE if type(image) is dict and image.get("detail") == "low" else _IMAGE
    audio = part.get("input_audio")
    if type(audio) is dict and type(audio.get("data")) is str:
        # Ten tokens a second, and a second of the usual compressed speech is 16 kB in base64.
        return len(audio["data"]) // 1600
    file = part.get("file")
    if type(file) is dict and type(file.get("file_data")) is str:
        return _read_file(file["file_data"], texts)
    return 0


def _read_file(data: str, texts: list[str]) -> int:
    """A file as a data URL: text as it is; of others, PDFs, 2,250 tokens a page (Anthropic's documentation says 1,500
    to 3,000), and a page is guessed to have 45 kB."""
    if data.startswith(_TEXT_FILE):
        try:
            texts.append(base64.b64decode(data[len(_TEXT_FILE) :]).decode())
        except ValueError:
            return rough(len(data))
        return 0
    return len(data) * 3 // 4 // 20


def _read_prompt(given: Any, texts: list[str]) -> int:
    """A text, a list of tokens, or a list of these."""
    if type(given) is str:
        texts.append(given)
        return 0
    if type(given) is not list:
        return 0
    count = 0
    for item in given:
        if type(item) is str:
            texts.append(item)
        elif type(item) is int:
            count += 1
        elif type(item) is list:
            count += len(item)
        elif type(item) is dict:
            count += _read_message(item, texts)
    return count


class _Script(NamedTuple):
    """Letters that tokenizers cut alike: tokens for each run of them and for each of them."""

    runs: re.Pattern[str]
    per_run: float
    per_character: float


class _Shapes(NamedTuple):
    word: re.Pattern[str]
    digits: re.Pattern[str]
    punctuation: re.Pattern[str]
    space: re.Pattern[str]
    space_before_digit: re.Pattern[str]
    accented: re.Pattern[str]
    not_ascii: re.Pattern[str]
    scripts: tuple[_Script, ...]


@cache
def _shapes() -> _Shapes:
    """Compiled at the first use: most proxies never estimate anything, and all of them start."""
    return _Shapes(
        word=re.compile("[A-Z]?[a-z]+|[A-Z]+"),
        digits=re.compile("[0-9]+"),
        punctuation=re.compile(r"[!-/:-@\[-`{-~]+"),
        space=re.compile(r"\n\s*|[ \t]{2,}"),
        space_before_digit=re.compile(" [0-9]"),
        accented=re.compile("[\u00c0-\u024f]"),
        not_ascii=re.compile("[^\x00-\x7f]+"),
        scripts=tuple(_Script(re.compile(runs), *rates) for runs, *rates in _scripts()),
    )


def _scripts() -> Iterator[tuple[str, float, float]]:
    yield "[\u0400-\u052f]+", 1.800, 0.0  # Cyrillic
    yield "[\u0370-\u03ff]+", 2.296, 0.0  # Greek
    yield "[\u0600-\u06ff]+", 0.0, 0.311  # Arabic
    yield "[\u0590-\u05ff]+", 0.0, 0.479  # Hebrew
    yield "[\u3400-\u9fff\uf900-\ufaff]+", 1.199, 0.569  # Han
    yield "[\u3040-\u30ff]+", 0.0, 0.479  # Kana
    yield "[\uac00-\ud7af]+", 0.0, 0.727  # Hangul
    yield "[\u0900-\u097f]+", 0.0, 0.357  # Devanagari
    yield "[\u0980-\u0aff\u0b80-\u0dff]+", 1.125, 0.223  # Bengali to Sinhala
    yield "[\u0b00-\u0b7f\u0f00-\u0fff]+", 0.0, 1.212  # Oriya, Tibetan
    yield "[\u0e00-\u0eff]+", 0.0, 0.415  # Thai, Lao
    yield "[\u10a0-\u10ff\u0530-\u058f]+", 0.249, 0.331  # Georgian, Armenian
    yield "[\u1000-\u109f\u1200-\u18ff]+", 0.0, 0.538  # Burmese, Ethiopic, Khmer, Mongolian
    yield "[\u2000-\u2bff\u3000-\u303f\uff00-\uffef]", 0.0, 1.406  # punctuation, symbols, full width
    yield "[\U0001f000-\U0001ffff]", 0.0, 1.508  # emoji


# English, whose words tokenizers know best, shows in these.
_ENGLISH = frozenset(
    ("the", "of", "to", "and", "in", "is", "for", "that", "it", "on", "with", "be", "this", "are", "as", "or", "by")
)
_ENGLISH_SHARE = 0.15

_encode = msgspec.json.Encoder().encode


def _count(text: str) -> float:
    shapes = _shapes()
    words = shapes.word.findall(text)
    total = _count_words(words)
    total += sum(1.197 * times * -(-length // 3) for length, times in _lengths(shapes.digits, text))
    for length, times in _lengths(shapes.punctuation, text):
        total += times * (0.330 + 0.585 * (min(length, 4) - 1))
    total += 2.037 * len(shapes.space.findall(text)) + 1.269 * len(shapes.space_before_digit.findall(text))
    if text.isascii():
        return total
    rest = " ".join(shapes.not_ascii.findall(text))
    total += 0.566 * len(shapes.accented.findall(rest))
    for script in shapes.scripts:
        runs = script.runs.findall(rest)
        if runs:
            total += script.per_run * len(runs) + script.per_character * sum(map(len, runs))
    return total


def _count_words(words: list[str]) -> float:
    if not words:
        return 0.0
    foreign = 1 - min(1.0, sum(map(_ENGLISH.__contains__, words)) / len(words) / _ENGLISH_SHARE)
    past_four = past_eight = 0
    for length, times in Counter(map(len, words)).items():
        past_four += times * max(0, min(length, 20) - 4)
        past_eight += times * max(0, length - 8)
    return 0.891 * len(words) + (0.077 + 0.128 * foreign) * past_four + 0.090 * past_eight


def _lengths(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    yield from Counter(map(len, pattern.findall(text))).items()
