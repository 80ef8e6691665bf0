"""When "A and B" is "B and A": in comparisons and of things asked about alike, and not of what has its order."""

import pytest

from tests.unit.cache.semantic.deciding import decision


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Is parking free between 9 and 5?", "Is parking free between 5 and 9?"),
        ("Which birds migrate between December and March?", "Which birds migrate between March and December?"),
        ("Subtract 5 and 3", "Subtract 3 and 5"),
        ("What is 10 mod 3 and 4?", "What is 10 mod 4 and 3?"),
        ("Concatenate the strings foo and bar", "Concatenate the strings bar and foo"),
        ("Sort the list by name and date", "Sort the list by date and name"),
        ("Write a CSV with columns name, age and town", "Write a CSV with columns town, age and name"),
        ("Write a function that takes host and port", "Write a function that takes port and host"),
        ("Open and close the file, is it open?", "Close and open the file, is it open?"),
        ("Should I sand and paint the door?", "Should I paint and sand the door?"),
        ("I moved and married. Which came first?", "I married and moved. Which came first?"),
        ("Heat the oil. Add the garlic.", "Add the garlic. Heat the oil."),
        ("Print x or y", "Print y or x"),
        ("How do I say salt and pepper in Greek?", "How do I say pepper and salt in Greek?"),
        ("Welche Züge fahren zwischen Bonn und Köln?", "Welche Züge fahren zwischen Köln und Bonn?"),
        ("Ordena por precio y fecha", "Ordena por fecha y precio"),
    ],
)
def test_what_has_its_order_keeps_it(a: str, b: str) -> None:
    assert not decision(a, b, similarity=1.0).hit
    assert not decision(b, a, similarity=1.0).hit


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("What is the difference between a moth and a fly?", "What is the difference between a fly and a moth?"),
        ("Compare rent and lease.", "Compare lease and rent."),
        ("Is Zoe a doctor and a pilot?", "Is Zoe a pilot and a doctor?"),
        ("Is it healthier to run or swim?", "Is it healthier to swim or run?"),
        ("Should I repair or replace my phone?", "Should I replace or repair my phone?"),
        ("What do cats and dogs have in common?", "What do dogs and cats have in common?"),
        ("What is the sum of 3 and 5?", "What is the sum of 5 and 3?"),
        ("Was ist der Unterschied zwischen Miete und Pacht?", "was ist der unterschied zwischen pacht und miete"),
        ("Quelle est la différence entre miel et sucre ?", "quelle est la difference entre sucre et miel"),
    ],
)
def test_things_that_are_asked_about_alike_have_none(a: str, b: str) -> None:
    assert decision(a, b).hit
    assert decision(b, a).hit
