"""A YAML file from anywhere: plain data, or a clear error that names the line; never more than its bounds."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchllm.control.errors import Invalid
from watchllm.control.litellm.document import MAX_BYTES, parse


def test_plain_data_of_every_kind() -> None:
    text = "a: [1, -2, 0x10, 1.5, true, no, null, ~, text, '7', 2024-10-21]\nb:\n  c: |\n    two\n    lines\n"
    values = [1, -2, 16, 1.5, True, False, None, None, "text", "7", "2024-10-21"]
    assert parse(text) == {"a": values, "b": {"c": "two\nlines\n"}}


def test_aliases_and_merges_stand_for_what_they_name() -> None:
    text = (
        "base: &base {api_key: one, rpm: 1}\nother: &other {rpm: 2, tpm: 3}\n"
        "a: {<<: *base, rpm: 9}\nb: {<<: [*base, *other]}\nc: [*base, *base]\n"
    )
    document = parse(text)
    assert document["a"] == {"api_key": "one", "rpm": 9}
    assert document["b"] == {"api_key": "one", "rpm": 1, "tpm": 3}
    assert document["c"] == [{"api_key": "one", "rpm": 1}] * 2


def bomb(item: str) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] if item == "list" else ["a0: &a0 {x: 1}"]
    for level in range(1, 30):
        aliases = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} " + (f"[{aliases}]" if item == "list" else "{<<: [" + aliases + "]}"))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not YAML: line"),
        ("a: b: c", "not YAML: line 1"),
        ("a: *nowhere", "not YAML: line 1"),
        ("a: 1\n---\nb: 2", "not YAML"),
        ("a: \x07", "not YAML"),
        ("", "holds no settings"),
        ("- 1", "holds no settings"),
        ("text", "holds no settings"),
        ("a: 1\nb: 2\na: 3", "line 3: 'a' is there twice"),
        ("1: 2", "line 1: a name is a text"),
        ("? [a]\n: 2", "line 1: a name is a text"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: the tag"),
        ("a: !!python/name:os.system x", "line 1: the tag"),
        ("a: !!binary aGk=", "line 1: the tag"),
        ("a: !custom x", "line 1: the tag"),
        ("a: &a [*a]", "nested deeper"),
        ("a: &a {<<: *a}", "nested deeper"),
        ("a: {<<: 1}", "takes in mappings only"),
        ("a: !!int x", "is no int"),
        ("a: !!map x", "line 1: the tag"),
        ("a: !!int [1]", "line 1: the tag"),
        ("a: " + "9" * 5000, "is no int"),
        ("a: " + "[" * 100 + "]" * 100, "nested deeper"),
        ("a: " + "[" * 20_000, "nested deeper|not YAML"),
        ("a: " + "x" * MAX_BYTES, "longer than"),
        (bomb("list"), "aliases stand for"),
        (bomb("merge"), "aliases stand for|nested deeper"),
    ],
    ids=range(27),
)
def test_anything_else_is_a_clear_error(text: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        parse(text)


def test_an_error_shows_nothing_of_the_file() -> None:
    with pytest.raises(Invalid) as refused:
        parse("master_key: sk-very-secret\nbroken: [sk-very-secret")
    assert "secret" not in str(refused.value)


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"#,?<~ \n\t%@\x00é1."), max_size=60))
def test_any_text_is_a_mapping_or_an_error(text: str) -> None:
    with suppress(Invalid):
        assert isinstance(parse(text), dict)
