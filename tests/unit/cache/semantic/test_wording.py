"""Words that answer for each other in one place and not in another: number, tense, synonyms, articles, titles."""

import pytest

from tests.unit.cache.semantic.deciding import decision

NUMBER = [
    ("Generate a password", "Generate passwords"),
    ("Name a river in Ghana.", "Name the rivers in Ghana."),
    ("Give me a tip for hikers.", "Give me tips for hikers."),
    ("What is the solution of the riddle?", "What are the solutions of the riddle?"),
    ("My sister owns a mill. Who pays?", "My sisters own a mill. Who pays?"),
    ("Should I hire a baker?", "Should I hire bakers?"),
    ("Name the king's daughters.", "Name the kings' daughters."),
    ("What does GET /shop/user return?", "What does GET /shop/users return?"),
    ("Write a class Cat in Ruby", "Write a class Cats in Ruby"),
    ("What is a custom?", "What are customs?"),
    ("How do I sell an arm?", "How do I sell arms?"),
    ("Who scored in the World Cup Final?", "Who scored in the World Cup Finals?"),
    ("I had one hen and two hens came. Where is the hen?", "I had one hen and two hens came. Where are the hens?"),
]
TENSE = [
    ("The store opens at nine. Is it open?", "The store opened at nine. Is it open?"),
    ("Why is my parcel delayed?", "Why was my parcel delayed?"),
    ("My back hurts.", "My back hurt."),
    ("We doubled the rent. They deliver daily.", "We doubled the rent. They delivered daily."),
    ("Show open tickets", "Show opened tickets"),
    ("Wo wohnt Kafka?", "Wo wohnte Kafka?"),
    ("Should I resign the lease?", "Should I re-sign the lease?"),
    ("You are sure.", "You are sure?"),
    ("May be he is late?", "Maybe he is late?"),
]
FIXED = [
    ("What is the right hand rule?", "What is the correct hand rule?"),
    ("What is big endian?", "What is large endian?"),
    ("What is a quick ratio?", "What is a fast ratio?"),
    ("What is a rich text editor?", "What is a wealthy text editor?"),
    ("How long should I fast?", "How long should I quick?"),
    ("How do I store milk?", "How do I shop milk?"),
    ("How do I keep fit?", "How do I retain fit?"),
    ("How do I look up a word?", "How do I glance up a word?"),
    ("What is the cost function?", "What is the price function?"),
    ("Who wrote The Big Sleep?", "Who wrote The Large Sleep?"),
    ("What is the Matrix?", "What is a matrix?"),
    ("Who are the Doors?", "Who are doors?"),
    ("Explain SQL BEGIN TRANSACTION", "Explain SQL START TRANSACTION"),
    ("A child is not a kid. What is a kid?", "A child is not a kid. What is a child?"),
]


@pytest.mark.parametrize(("a", "b"), [*NUMBER, *TENSE, *FIXED])
def test_a_word_in_another_form_is_material_where_nothing_shows_that_it_is_not(a: str, b: str) -> None:
    assert not decision(a, b, similarity=1.0).hit
    assert not decision(b, a, similarity=1.0).hit


@pytest.mark.parametrize(
    ("a", "b"),
    [
        # Of any such thing, whether one or many are named
        ("What do otters eat?", "what does an otter eat"),
        ("Do spiders have ears?", "Does a spider have ears?"),
        ("Can parrots learn words?", "can a parrot learn words"),
        ("Are tomatoes fruits?", "Is a tomato a fruit?"),
        ("How are volcanoes formed?", "How is a volcano formed?"),
        ("How do I prune a lemon tree?", "How do I prune lemon trees?"),
        ("Do all bats sleep in winter?", "Does every bat sleep in winter?"),
        ("What are the symptoms of a stroke?", "What are the symptoms of strokes?"),
        # A verb with the -s of its subject
        ("How does a tide work?", "Explain how a tide works."),
        ("How many bones does a shark have?", "I was wondering how many bones a shark has."),
        ("Did Eiffel design the tower?", "Was the tower designed by Eiffel?"),
        # Synonyms that are shown to be what the list says
        ("Where can I buy stamps?", "Where can I purchase stamps?"),
        ("How do I fix a leaking tap?", "How do I repair a leaking faucet?"),
        ("Is it hard to learn Dutch?", "Is it difficult to learn Dutch?"),
        ("Where can I find a cheap hotel?", "Where can I find an inexpensive hotel?"),
        ("How much does a lawyer earn?", "How much does an attorney earn?"),
        ("How many MB are 3 GB?", "how many megabytes are 3 gigabytes"),
        ("What is the Matrix?", "what is the matrix"),
        ("Wie kaufe ich ein Auto?", "Wie kaufe ich einen Wagen?"),
    ],
)
def test_it_is_harmless_where_that_is_shown(a: str, b: str) -> None:
    assert decision(a, b).hit
    assert decision(b, a).hit
