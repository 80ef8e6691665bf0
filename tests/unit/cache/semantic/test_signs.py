"""Punctuation that is none: what differs in a sign alone is not served; what people punctuate otherwise still is."""

import pytest

from tests.unit.cache.semantic.deciding import decision

DIFFERENT = [
    # Signs that are asked about.
    ("What does () mean in JavaScript?", "What does {} mean in JavaScript?"),
    ("What does !! mean in Kotlin?", "What does ?: mean in Kotlin?"),
    ("What does ?? do in JavaScript?", "What does ?. do in JavaScript?"),
    ("What does !! do in JavaScript?", "What does ! do in JavaScript?"),
    ("What does ;; do in bash?", "What does ! do in bash?"),
    ("What does ... do in JavaScript?", "What does ?? do in JavaScript?"),
    ("What does -- do in SQL?", "What does # do in SQL?"),
    ("What does - mean in a regex?", "What does _ mean in a regex?"),
    ("What does ? mean in a regex?", "What does . mean in a regex?"),
    ("When do I use : in Python?", "When do I use , in Python?"),
    ("Was bedeutet ! in C?", "Was bedeutet ? in C?"),
    ("Que signifie !! en Kotlin ?", "Que signifie ?: en Kotlin ?"),
    # Brackets.
    ("What is (2 + 3) * 4?", "What is 2 + 3 * 4?"),
    ("Evaluate 2 * (3 + 4)", "Evaluate 2 * 3 + 4"),
    ("What is {1,2} in Python?", "What is (1,2) in Python?"),
    ("What is the set {a}?", "What is the set a?"),
    # Minus signs, factorials, primes.
    ("What is 5 - 3?", "What is 5 3?"),
    ("What is x - y?", "What is x y?"),
    ("Simplify n! / k!", "Simplify n / k"),
    ("What is the derivative of n!?", "What is the derivative of n?"),
    ("Simplify (n)! twice", "Simplify (n) twice"),
    ("Solve y' = 2y", "Solve y = 2y"),
    ("Solve y'' = 2y", "Solve y' = 2y"),
    ("How long is 5' in cm?", 'How long is 5" in cm?'),
    ("How long is 5\u2032 in cm?", "How long is 5\u2033 in cm?"),
    # What normalising folds.
    ("What is 2² + 1?", "What is 22 + 1?"),
    ("How much is 10⁶ seconds in days?", "How much is 106 seconds in days?"),
    ("How much is 10⁻³ m?", "How much is 10³ m?"),
    ("Simplify x² + x", "Simplify x2 + x"),
    ("Convert 1½ cups to ml", "Convert 11/2 cups to ml"),
    ('What is the ASCII code of "A"?', 'What is the ASCII code of "a"?'),
]


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_questions_that_differ_in_a_sign_are_not_served_for_each_other(a: str, b: str) -> None:
    for stored, asked in ((a, b), (b, a)):
        assert decision(stored, stored, 1.0).hit
        assert not decision(stored, asked, 1.0).hit


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("What is entropy ?", "What is entropy?"),
        ("Quelle est la capitale du Pérou ?", "Quelle est la capitale du Pérou?"),
        ("What is entropy ??? Explain it briefly .", "What is entropy? Explain it briefly."),
        ("What is entropy (in physics)?", "What is entropy in physics?"),
        ("Where is Lima - in Peru or Chile?", "Where is Lima in Peru or Chile?"),
        ("- eggs\n- milk\nWhat can I bake?", "eggs\nmilk\nWhat can I bake?"),
        ("How do I season a pan!", "How do I season a pan?"),
        ("How large is 50 m² of floor in square feet?", "How large is 50 m2 of floor in square feet?"),
        ("Solve x² = 9", "Solve x^2 = 9"),
        ("Solve y\u2032 = 2y", "Solve y' = 2y"),
        ("Convert 1½ cups to ml", "Convert 1 1/2 cups to ml"),
        ('Is "Python" hard to learn?', 'Is "python" hard to learn?'),
        ("What is the boys' record?", "What is the boys record?"),
    ],
)
def test_other_punctuation_costs_no_hit(a: str, b: str) -> None:
    for stored, asked in ((a, b), (b, a)):
        assert decision(stored, asked).hit, decision(stored, asked)
