"""Tokens counted offline: near a real tokenizer's count, quick for any length, without a download."""

import subprocess
import sys
from time import thread_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchllm.providers.tokens import estimate, estimate_request, rough


@pytest.mark.parametrize(
    ("kind", "tokens", "text"),
    [  # Counted with o200k_base.
        (
            "English",
            26,
            (
                "The quick brown fox jumps over the lazy dog while the committee considers whether add"
                "itional documentation is necessary for the upcoming release of the software."
            ),
        ),
        (
            "German",
            27,
            (
                "Die Geschwindigkeitsbegrenzung gilt auf allen Straßen, sofern keine anderen Verkehrsz"
                "eichen aufgestellt sind, und wird regelmäßig überprüft."
            ),
        ),
        (
            "French",
            22,
            (
                "Le conseil municipal a décidé de reporter la réunion à la semaine prochaine afin que "
                "tous les habitants puissent y participer."
            ),
        ),
        (
            "Russian",
            21,
            (
                "Сегодня утром в городе открылась новая библиотека, в которой можно бесплатно читать к"
                "ниги и пользоваться интернетом."
            ),
        ),
        ("Chinese", 23, "今天早上，城市里开了一家新的图书馆，大家可以在那里免费看书和上网。"),
        ("Japanese", 36, "今朝、町に新しい図書館が開館し、誰でも無料で本を読んだりインターネットを使ったりできます。"),
        (
            "Korean",
            29,
            "오늘 아침 도시에 새로운 도서관이 문을 열었고 누구나 무료로 책을 읽고 인터넷을 사용할 수 있습니다.",
        ),
        (
            "Arabic",
            22,
            "افتتحت هذا الصباح مكتبة جديدة في المدينة يمكن للجميع فيها قراءة الكتب واستخدام الإنترنت مجانا.",
        ),
        (
            "Hindi",
            28,
            "आज सुबह शहर में एक नया पुस्तकालय खुला जहाँ सभी लोग मुफ्त में किताबें पढ़ सकते हैं और इंटरनेट का उपयोग कर सकते हैं।",
        ),
        (
            "Python",
            38,
            (
                "def total(items: list[int]) -> int:\n    result = 0\n    for item in items:\n        if "
                "item is not None:\n            result += item\n    return result\n"
            ),
        ),
        (
            "JSON",
            53,
            (
                '{"id": 17, "name": "Widget", "price": 12.50, "tags": ["new", "sale"], "active": true,'
                ' "created_at": "2026-03-01T12:00:00Z"}'
            ),
        ),
        ("numbers", 39, "| 1024 | 99812 | 7 | 31337 | 2048000 |\n| 12 | 887 | 56123 | 9 | 4400 |\n"),
        ("hex", 43, "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
    ],
)
def test_an_estimate_is_near_a_real_count(kind: str, tokens: int, text: str) -> None:
    assert 0.75 <= estimate(text) / tokens <= 1.45, (kind, estimate(text))


@given(st.text())
def test_any_text_has_a_count_and_only_no_text_has_none(text: str) -> None:
    count = estimate(text)
    assert (count == 0) == (text == "")
    # No token is shorter than a byte.
    assert count <= 2 + 2 * len(text.encode("utf-8", "surrogatepass"))


def test_a_long_text_is_sampled_evenly() -> None:
    sentence = "A cache answers again what was asked before, and says how old the answer is. "
    count = estimate(sentence * 100)
    assert estimate(sentence * 10_000) == pytest.approx(count * 100, rel=0.03)
    # Half of it in another script, at its end: the sample sees both.
    mixed = sentence * 5000 + "今天早上城市里开了一家新的图书馆大家可以在那里免费看书和上网" * 5000
    apart = estimate(sentence * 5000) + estimate("今天早上城市里开了一家新的图书馆大家可以在那里免费看书和上网" * 5000)
    assert estimate(mixed) == pytest.approx(apart, rel=0.25)


@pytest.mark.parametrize("unit", ["word ", "x", "1", "\n", "é", "漢", "😀", " ", "{", "aB"])
def test_a_huge_text_takes_no_longer_than_a_long_one(unit: str) -> None:
    estimate(unit)  # Compiles.

    def seconds(text: str) -> float:
        took = []
        for _ in range(5):
            began = thread_time()
            estimate(text)
            took.append(thread_time() - began)
        return min(took)

    assert seconds(unit * 8_000_000) < 0.05


def message(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def test_all_that_is_sent_to_the_model_counts() -> None:
    bare = {"model": "m", "messages": [message("Hello there")]}
    counts = [estimate_request(bare)]
    for more in (
        {"messages": [message("Hello there"), message("And again")]},
        {
            "messages": [
                message("Hello there", tool_calls=[{"function": {"name": "f", "arguments": '{"city": "Rome"}'}}])
            ]
        },
        {"tools": [{"type": "function", "function": {"name": "weather", "description": "Tells the weather"}}]},
        {"messages": [message([{"type": "text", "text": "Hello there"}, {"type": "text", "text": "my friend"}])]},
    ):
        counts.append(estimate_request(bare | more))
    assert counts[0] > 0
    assert all(count > counts[0] for count in counts[1:]), counts


def test_an_image_counts_as_an_image_and_not_as_its_base64() -> None:
    def asked(detail: str) -> int:
        image = {"url": "data:image/png;base64," + "iVBORw0KGgo" * 100_000, "detail": detail}
        return estimate_request({"messages": [message([{"type": "image_url", "image_url": image}])]})

    assert asked("low") < 100
    assert 700 < asked("high") < 800


@pytest.mark.parametrize(
    ("given", "tokens"),
    [([1, 2, 3], 3), ([[1, 2], [3]], 3), ("one two", 2), (["one", "two"], 2), (["one", [7, 8]], 3), (None, 0), (5, 0)],
)
def test_inputs_and_prompts(given: Any, tokens: int) -> None:
    assert estimate_request({"input": given}) == tokens
    assert estimate_request({"prompt": given}) == tokens


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["content", "text"]), inner),
    ),
    st.sampled_from(["messages", "prompt", "input", "tools", "system"]),
)
def test_a_request_of_any_shape_has_an_estimate(value: Any, field: str) -> None:
    assert estimate_request({field: value}) >= 0


def test_a_guess_from_a_size_alone() -> None:
    assert [rough(size) for size in (0, 1, 4, 5, 400)] == [0, 1, 1, 2, 100]


def test_nothing_is_compiled_or_loaded_before_the_first_estimate() -> None:
    script = (
        "import sys, watchllm.providers.tokens as tokens\n"
        "assert tokens._shapes.cache_info().currsize == 0\n"
        "assert not {'tokenizers', 'tiktoken', 'numpy'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
