"""The simulator's words: cut into tokens without loss, fixed by their seed."""

from hypothesis import given
from hypothesis import strategies as st

from watchllm.sim.text import digest, pseudo_tokens, tokenize


@given(st.text())
def test_tokens_join_to_the_text(text: str) -> None:
    assert "".join(tokenize(text)) == text


def test_a_digest_knows_where_its_parts_end() -> None:
    assert digest(b"ab", b"c") != digest(b"a", b"bc")
    assert digest(b"a") != digest(b"a", b"")


@given(seed=st.binary(min_size=16, max_size=32), count=st.integers(1, 3000))
def test_an_answer_has_as_many_tokens_as_asked_and_names_its_seed(seed: bytes, count: int) -> None:
    tokens = pseudo_tokens(seed, count)
    assert len(tokens) == count
    assert tokens == pseudo_tokens(seed, count)
    assert seed[:6].hex() in "".join(pseudo_tokens(seed))
