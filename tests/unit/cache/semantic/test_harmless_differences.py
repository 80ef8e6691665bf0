"""What must not cost a hit: politeness, case, typos, forms, known synonyms, free order, equal quantities."""

import pytest

from tests.unit.cache.semantic.deciding import decision


@pytest.mark.parametrize(
    ("a", "b"),
    [
        # Politeness and filler
        ("How do I prune a rose?", "Hello, could you please tell me how to prune a rose? Thanks in advance!"),
        ("Explain tides to a child.", "Can you explain tides to a child, please?"),
        ("Is the museum free?", "Is the museum actually free?"),
        ("How long do cats live?", "Just curious: how long do cats live?"),
        # Case, punctuation, contractions
        ("What is the capital of Peru?", "what's the capital of peru"),
        ("Why doesn't my code compile?", "Why does my code not compile?"),
        ("I can't find my keys. What now?", "I cannot find my keys, what now"),
        # Typos, in content and in small words
        ("Why do onions make you cry?", "why do onoins make you cry"),
        ("What is the difference between tea and coffee?", "Waht is the diffrence between tea and coffee?"),
        ("How do I unclog a sink?", "hwo do i unlcog a sink"),
        ("Which planets have rings?", "whihc plannets have rings"),
        ("Why do leaves change color?", "why do leafs chnage color"),
        ("What changed in the treaty?", "what chsnged in the treaty"),
        ("Is it safe to swim here?", "is it safe too swim here"),
        # Joined, split, hyphenated; apostrophes left out or set wrong
        ("How do I clean a cast iron pan?", "How to clean a castiron pan?"),
        ("Is there a home office tax?", "is there a home-office tax"),
        ("My neighbour's dog barks. What now?", "my neighbors dog barks what now"),
        ("Give me ideas for a kids' party.", "Give me ideas for a kid's party."),
        ("You should've asked. Why not?", "you shouldve asked. why not?"),
        ("They'd already left. Is that correct?", "They had already left. Is that correct?"),
        ("What can't I bring?", "What can I not bring?"),
        # What is said around a question
        ("How do I thaw pipes?", "Good evening, I'd really appreciate it if someone could tell me how to thaw pipes."),
        ("What is a leap second?", "Sorry to bother you, but what exactly is a leap second? 🙂"),
        ("What does a surveyor do?", "do you by any chance know what a surveyor does?"),
        ("Should I defrost it?", "pls tell me if i should defrost it thx :-)"),
        ("Can dogs swim?", "hey quick question, can dogs swim or not"),
        ("How do I reset my password?", "I need to reset my password. How do I do it?"),
        ("Suggest a name for a boat.", "I'd love it if you could suggest me a name for a boat! Kind regards, Tom"),
        ("How does a fax work?", "Can somebody explain how a fax works?"),
        ("Where is the embassy of Chile?", "Any idea where the embassy of Chile is? Have a nice day!"),
        ("What's the fastest route to Nice?", "Hi, I was hoping you could tell me the fastest route to Nice."),
        ("Suggest good names for twins.", "Could you suggest some good names for twins?"),
        ("Do you have any tips for beginners?", "Any tips for beginners?"),
        ("How do I tie a bowline knot?", "How do you tie a bowline knot?"),
        ("How do I change the language of my phone?", "How do I change my phone's language?"),
        ("Convert 100 USD to EUR.", "convert 100 usd to eur"),
        ("What is an ereader?", "whats an ereader, by any chance"),
        ('What does "pro bono" mean?', 'I was just wondering what "pro bono" means.'),
        ("Why is the dog's tail wet?", "why is the dogs tail wet, anyone"),
        ("How do I write a will?", "Dear team, I hope you are well. How do I write a will? Kind regards, Jo"),
        ("Give me ten ideas.", "Would you be so kind and give me ten ideas? Many thanks :)"),
        ("What is a mutex?", "what is mutex"),
        ("What is the boiling point of water?", "boiling point of water"),
        # Abbreviations, question forms
        ("What is the difference between a crow and a raven?", "whats the difference btw a crow & a raven"),
        ("How do I sharpen a knife?", "steps to sharpen a knife"),
        ("What are the side effects of aspirin?", "side effects of aspirin?"),
        ("Who wrote Emma?", "Who is the author of Emma?"),
        # Forms, spelling, synonyms
        ("How do I install a package?", "How do I install packages?"),
        ("What is your favorite color?", "What is your favourite colour?"),
        ("Where can I buy stamps?", "Where can I purchase stamps?"),
        ("How do I create a database?", "How do I create a data base?"),
        # Order that does not count
        ("Is she a poet and a painter?", "Is she a painter and a poet?"),
        ("Compare Kafka, NATS and Redis.", "Compare Redis, Kafka and NATS."),
        ("Is Mia married to Ben?", "Is Ben married to Mia?"),
        ("How do I sort a list in Python?", "In Python, how do I sort a list?"),
        ("Is Saturn lighter than Jupiter?", "Is Jupiter heavier than Saturn?"),
        ("Was the telephone invented by Bell?", "Did Bell invent the telephone?"),
        ("What is France's capital?", "What is the capital of France?"),
        ("Write a Python function to add two dates.", "Write a function in Python to add two dates."),
        ("What is a good gift for a 10-year-old boy?", "What's a good gift for a ten year old boy?"),
        # Negated opposites
        ("Which plants are unsafe?", "Which plants are not safe?"),
        ("How can I become a happy person?", "How can I become a person who is not sad?"),
        # Quantities
        ("How far is 3 km in miles?", "How far is 3000 m in miles?"),
        ("Give me twelve facts.", "Give me a dozen facts."),
        ("Is 1,500 too many?", "Is 1500 too many?"),
        ("Is the pool open at 6 pm?", "Is the pool open at 18:00?"),
        ("What happened on 20 July 1969?", "What happened on July 20th, 1969?"),
        ("What is 20% of 80?", "What is 20 percent of 80?"),
        ("What is the VAT on £50?", "what's the vat on 50 pounds"),
        ("Is the deadline 12/31/2024?", "Is the deadline December 31, 2024?"),
        ("Who was the 21st president?", "who was the twenty-first president"),
        ("Give me 1/2 cup in ml.", "give me half a cup in ml"),
        ("Upgrade from v1.2 to v2.0", "Upgrade from version 1.2 to version 2.0"),
        ("Is the office open on Mon and Tue?", "is the office open on monday and tuesday"),
        ("What is 2 + 2?", "What is 2 plus 2?"),
        # Other languages
        ("Wie hoch ist der Eiffelturm?", "Hallo, wie hoch ist der Eiffelturm? Danke!"),
        ("Wie funktioniert ein Fax?", "Können Sie mir bitte sagen, wie ein Fax funktioniert?"),
        ("Wo finde ich das Formular?", "Hallo, wo finde ich bitte das Formular? Danke schön!"),
        ("¿Cómo puedo cancelar mi reserva?", "hola como puedo cancelar mi reserva por favor"),
        ("Comment annuler ma commande ?", "bonjour comment annuler ma commande svp merci"),
        ("Wie kündige ich ein Abo?", "wie kuendige ich ein abo"),
        ("¿Cuál es la capital de Perú?", "cual es la capital de peru"),
        ("Où se trouve la gare ?", "Bonjour, où se trouve la gare ?"),
        ("Что такое фотон?", "что такое фотон"),
        ("日本の首都はどこですか", "日本の首都はどこですか？"),
    ],
)
def test_a_harmless_difference_is_a_hit(a: str, b: str) -> None:
    for stored, asked in ((a, b), (b, a)):
        found = decision(stored, asked)
        assert found.hit, found


def test_a_prompt_is_a_hit_for_itself() -> None:
    for prompt in ("What is it?", "`x`", "👍", "שלום עולם", "C++ or C#?"):
        assert decision(prompt, prompt, 1.0).hit, prompt
