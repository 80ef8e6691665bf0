"""Management tokens and project keys have one form behind two prefixes, and neither is taken for the other."""

import re

import pytest

from watchllm.domain import keys, tokens


def test_a_token_has_the_form_of_a_key_behind_its_own_prefix() -> None:
    made = {tokens.generate() for _ in range(100)}
    assert len(made) == 100
    for token in made:
        assert re.fullmatch(r"lgw_admin_[0-9A-Za-z]{40}", token)
        assert tokens.is_well_formed(token)
        assert tokens.display_prefix(token) == token[:16] + "…"


def test_a_mistyped_token_is_known_without_a_look_up() -> None:
    token = tokens.generate()
    for at in range(len(token)):
        other = "x" if token[at] != "x" else "y"
        assert not tokens.is_well_formed(token[:at] + other + token[at + 1 :])
    for wrong in (token[:-1], token + "0", token.replace("lgw_admin_", "lgw_proj_"), "", "lgw_admin_" + "é" * 40):
        assert not tokens.is_well_formed(wrong)


@pytest.mark.parametrize("test", [False, True])
def test_a_key_is_no_token_and_a_token_no_key(test: bool) -> None:
    assert not tokens.is_well_formed(keys.generate(test=test))
    assert not keys.is_well_formed(tokens.generate())
