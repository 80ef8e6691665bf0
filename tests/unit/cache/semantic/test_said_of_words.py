"""A word that is talked about, and a courtesy that is: what is used and what is mentioned."""

import pytest

from tests.unit.cache.semantic.deciding import decision


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Find a synonym of big", "Find a synonym of large"),
        ("What is the opposite of start?", "What is the opposite of begin?"),
        ("How many syllables in begin?", "How many syllables in start?"),
        ("How many r in strawberry?", "How many r in strawbery?"),
        ("What is the etymology of kid?", "What is the etymology of child?"),
        ("Conjugate the verb eat", "Conjugate the verb eating"),
        ("What does penny mean?", "What does pennies mean?"),
        ("Count the words: I do not know", "Count the words: I don't know"),
        ("Is there a comma in: yes, please", "Is there a comma in: yes please"),
        ("Let's eat grandma - is this sentence odd?", "Let's eat, grandma - is this sentence odd?"),
        ("Check for typos: the quik fox", "Check for typos: the quick fox"),
        ("When do I use big?", "When do I use large?"),
        ("How is ü pronounced?", "How is u pronounced?"),
        ("Was bedeutet rasch?", "Was bedeutet schnell?"),
        ("Quel est le contraire de finir ?", "Quel est le contraire de terminer ?"),
        # Courtesies
        ("Who wrote Good Morning, Vietnam?", "Who wrote Vietnam?"),
        ("Who wrote the song Please Mr. Postman?", "Who wrote the song Mr. Postman?"),
        ("Who sang Thank You?", "Who sang?"),
        ("Translate please into Finnish", "Translate into Finnish"),
        ("Wie sage ich bitte auf Polnisch?", "Wie sage ich auf Polnisch?"),
        ("Comment dit-on s'il vous plaît en russe ?", "Comment dit-on en russe ?"),
        ("¿Cómo se dice por favor en alemán?", "¿Cómo se dice en alemán?"),
    ],
)
def test_what_is_talked_about_is_content(a: str, b: str) -> None:
    assert not decision(a, b, similarity=1.0).hit
    assert not decision(b, a, similarity=1.0).hit


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("How do I spell necessary?", "how do i spell necessary, please"),
        ("What's a synonym for angry?", "what is a synonym for angry"),
        ("What does ubiquitous mean?", "what does ubiquitous mean"),
        ("Was heißt Hund auf Englisch?", "Was heisst Hund auf Englisch?"),
        ("How do I boil an egg?", "Hi there, could you please tell me how I boil an egg? Thanks!"),
        ("How far is the moon?", "any idea how far the moon is?"),
        ("It is raining, what should I wear?", "its raining, what should i wear"),
        (
            "Draft a template with one sentence of text per heading.",
            "Could you draft a template with 1 sentence of text per heading?",
        ),
    ],
)
def test_what_is_said_around_it_is_not(a: str, b: str) -> None:
    assert decision(a, b).hit
    assert decision(b, a).hit


@pytest.mark.parametrize(
    ("guard", "a", "b"),
    [
        (
            "negation",
            "Can a horse eat raw onions and cooked carrots in cold winter weather?",
            "Can a goat not eat raw onions and cooked carrots in cold winter weather?",
        ),
        (
            "name",
            "Is Anna older than the captain of the winning football team?",
            "Is Emma taller than the captain of the winning football team?",
        ),
        (
            "relative_time",
            "Who plays the first violin in the big concert in Lyon today?",
            "Who holds the first violin in the big concert in Lyon tomorrow?",
        ),
    ],
)
def test_a_guard_speaks_whatever_else_differs_where_most_is_the_same(guard: str, a: str, b: str) -> None:
    assert decision(a, b).guard == guard
    assert decision(b, a).guard == guard


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Can a horse eat onions?", "Can a goat not eat onions?"),
        ("Is the flat expensive?", "Is the flat not cheap at all?"),
        ("How tall is Ann?", "What height does Bob have?"),
    ],
)
def test_where_much_differs_no_guard_is_sure_and_nothing_is_served(a: str, b: str) -> None:
    assert not decision(a, b).hit
    assert decision(a, b).guard is None
