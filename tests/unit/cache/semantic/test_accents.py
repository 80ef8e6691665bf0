"""Accents, doubled letters and language: what quick typists leave out, and what makes another word."""

import pytest

from tests.unit.cache.semantic.deciding import decision
from watchllm.cache.semantic.accents import may_go


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("¿Quién compro la casa?", "¿Quién compró la casa?"),
        ("Trabajo en España. ¿Qué pago?", "Trabajó en España. ¿Qué pago?"),
        ("Est-il salé ?", "Est-il sale ?"),
        ("Il faut pêcher quand ?", "Il faut pécher quand ?"),
        ("Comment enlever une tache ?", "Comment enlever une tâche ?"),
        ("Was heißt drucken?", "Was heißt drücken?"),
        ("Wann konnte ich kommen?", "Wann könnte ich kommen?"),
        ("In welchen Maßen wird getrunken?", "In welchen Massen wird getrunken?"),
        ("Onde fica o coco?", "Onde fica o cocô?"),
        ("Ile kosztuje sad?", "Ile kosztuje sąd?"),
        ("Kde je rada?", "Kde je řada?"),
        ("Hol van a kor?", "Hol van a kör?"),
        ("Có gì trong ma?", "Có gì trong má?"),
        ("Что тут все?", "Что тут всё?"),
        # Letters doubled: no misspelling without a dictionary
        ("Le poisson est-il dangereux ?", "Le poison est-il dangereux ?"),
        ("¿Qué es un cero?", "¿Qué es un cerro?"),
        ("Was ist eine Rate?", "Was ist eine Ratte?"),
        ("Quanto pesa il polo?", "Quanto pesa il pollo?"),
    ],
)
def test_an_accent_that_makes_another_word_counts(a: str, b: str) -> None:
    assert not decision(a, b, similarity=1.0).hit
    assert not decision(b, a, similarity=1.0).hit


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("¿Qué es la inflación?", "que es la inflacion"),
        ("¿Cuál es el número de emergencias?", "cual es el numero de emergencias"),
        ("Por favor, explica la fotosíntesis. Gracias.", "explica la fotosintesis"),
        ("Comment préparer un gâteau ?", "comment preparer un gateau"),
        ("Explique la photosynthèse", "explique la photosynthese svp"),
        ("Pourquoi le ciel est-il bleu ?", "pourquoi le ciel est bleu"),
        ("Wie groß ist der Löwe?", "wie gross ist der loewe"),
        ("Does the museum have a café?", "does the museum have a cafe"),
    ],
)
def test_an_accent_that_makes_none_does_not(a: str, b: str) -> None:
    assert decision(a, b).hit
    assert decision(b, a).hit


@pytest.mark.parametrize(
    ("word", "language", "behind", "expected"),
    [
        ("canción", "es", "", True),
        ("cantó", "es", "", False),
        ("número", "es", "el", True),
        ("número", "es", "", False),
        ("hacía", "es", "", False),
        ("qualité", "fr", "", True),
        ("salé", "fr", "", False),
        ("forêt", "fr", "", False),
        ("fenêtre", "fr", "", True),
        ("maße", "de", "", False),
        ("straße", "de", "", True),
        ("rosé", "en", "", False),
        ("sąd", "", "", False),
    ],
)
def test_endings_and_lists_tell(word: str, language: str, behind: str, expected: bool) -> None:
    assert may_go(word, language, behind, is_word=True) is expected
