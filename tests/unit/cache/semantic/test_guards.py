"""Each kind of material difference is a miss, and a guard that is sure says which; in both directions."""

import pytest

from tests.unit.cache.semantic.deciding import decision

GUARDED = [
    ("negation", "Which plants are toxic to horses?", "Which plants are not toxic to horses?"),
    ("negation", "Can I enter Canada with a visa?", "Can I never enter Canada with a visa?"),
    ("antonym", "How do I enable dark mode?", "How do I disable dark mode?"),
    ("antonym", "Sort the names in ascending order.", "Sort the names in descending order."),
    ("number", "Suggest 5 names for a parrot.", "Suggest 7 names for a parrot."),
    ("number", "Suggest five names for a parrot.", "Suggest fifty names for a parrot."),
    ("unit", "How long does it take to run 5 km?", "How long does it take to run 5 hours?"),
    ("amount", "Is $900 a fair rent?", "Is $1,900 a fair rent?"),
    ("date", "What happened on 4 May 1980?", "What happened on 5 May 1980?"),
    ("date", "Is the pool open at 9 am?", "Is the pool open at 9 pm?"),
    ("date", "Is the museum open on Monday?", "Is the museum open on Tuesday?"),
    ("identifier", "Where is parcel ZX-4417?", "Where is parcel ZX-4471?"),
    ("flag", "What does ls -l do?", "What does ls -a do?"),
    ("code", "What does `x << 2` give?", "What does `x >> 2` give?"),
    ("code", 'Say "good night" in Dutch.', 'Say "good morning" in Dutch.'),
    ("code", "Explain:\n```\na = b + c\n```", "Explain:\n```\na = b - c\n```"),
    ("format", "List the noble gases as JSON.", "List the noble gases as YAML."),
    ("format", "List the noble gases.", "List the noble gases in a table."),
    ("language", "Wo ist der Bahnhof und wann fährt der Zug?", "Where is the station and when does the train leave?"),
    ("order", "How do I convert PNG to WebP?", "How do I convert WebP to PNG?"),
    ("personal", "Did he trust her with the money?", "Did she trust him with the money?"),
    ("role", "Did they tell us of you?", "Did us tell they of you?"),
    ("name", "What does Anna Seghers write about?", "What does Ingeborg Bachmann write about?"),
    ("name", "How do I polish shoes?", "How do I Polish shoes?"),
    ("name", "Tell me about IT.", "Tell me about it."),
    ("quantifier", "Do all snakes lay eggs?", "Do some snakes lay eggs?"),
    ("question_kind", "When was Chopin born?", "Where was Chopin born?"),
    ("personal", "What is my task?", "What is your task?"),
    ("modifier", "Is a shepherd a dog?", "Is a shepherd a large dog?"),
    ("tense", "Is Lena the captain?", "Was Lena the captain?"),
    ("modal", "Can I feed a hedgehog milk?", "Should I feed a hedgehog milk?"),
    ("relative_time", "What is on television today?", "What is on television tomorrow?"),
    ("conjunction", "Is he a painter and a poet?", "Is he a painter or a poet?"),
]


@pytest.mark.parametrize(("guard", "a", "b"), GUARDED)
def test_a_material_difference_is_named_by_its_guard(guard: str, a: str, b: str) -> None:
    for stored, asked in ((a, b), (b, a)):
        found = decision(stored, asked, similarity=1.0)
        assert not found.hit
        expected = {guard, "order", "role"} if guard in ("order", "role") else {guard}
        assert found.guard in expected, found


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("How do I paint a fence?", "How do I build a fence?"),
        ("Can I feed my turtle salad?", "Can I feed my cat salad?"),
        ("What do spiders eat?", "What eats spiders?"),
        ("Who was sued?", "Who sued?"),
        ("Who killed the king?", "Who was killed by the king?"),
        ("Did Nathan receive the island?", "Was Nathan received by the island?"),
        ("Will you die of rabies?", "Can you die of rabies?"),
        ("Is it too cold to swim?", "Is it cold to swim?"),
        ("Why did he stop to talk?", "Why did he stop talking?"),
        ("Send the report for Anna.", "Send the report Anna."),
        ("What is a desert?", "What is a dessert?"),
        ("How do I use the canvas?", "How do I use Canva?"),
        ("Does a princess pay taxes?", "Do princes pay taxes?"),
        ("How do I cook a filled pepper?", "How do I cook a filed pepper?"),
        ("How do you say hello in Thai?", "how do you say hello in this"),
        ("How do you spell accomodate?", "How do you spell accommodate?"),
        ("Which words rhyme with buy?", "Which words rhyme with purchase?"),
        ("What does :) mean?", "What does :( mean?"),
        ("What does 🙃 mean?", "What does 🙂 mean?"),
        ("Run curl with -k", "Run curl with -K"),
        ("What is the regex \\d+ for?", "What is the regex \\D+ for?"),
        ("Explain foo.Bar in Java.", "Explain foo.bar in Java."),
        ("Explain why I should help.", "Explain how I should help."),
        ("Tell me if I should call.", "Tell me when I should call."),
        ("I need to cancel my order. How do I do it?", "I need to change my order. How do I do it?"),
        ("I want to lose weight. How long will it take?", "How do I lose weight?"),
        ("What is the head of the dog eating?", "Is the head of the dog eating?"),
        ("How do I say sorry in Welsh?", "How do I say thanks in Welsh?"),
        ("Can I help you?", "Can you help me?"),
        # Quantities that look alike
        ("Is the deadline 03/04/2024?", "Is the deadline 04/03/2024?"),
        ("Is the deadline 31.12.2024?", "Is the deadline 30.12.2024?"),
        ("Is 50 pounds heavy?", "Is £50 heavy?"),
        ("Upgrade to version 1.2", "Upgrade to version 1.20"),
        ("Who was the twenty-first president?", "Who was the twenty-second president?"),
        ("What is 12 + 5?", "What is 12 - 5?"),
        # Words that look misspelt and are others
        ("What is the dose of prednisone?", "What is the dose of prednisolone?"),
        ("What is hypertension?", "What is hypotension?"),
        ("What is dysphagia?", "What is dysphasia?"),
        ("Is sulfite bad for me?", "Is sulfate bad for me?"),
        ("What is a kilobyte?", "What is a kibibyte?"),
        # Words that mostly say nothing, where they say something
        ("Write a thank you card.", "Write a card."),
        ("Is the word please necessary?", "Is the word necessary?"),
        ("What does actually mean?", "What does really mean?"),
        ("What does lol mean?", "What does tho mean?"),
        ("Should I use do or does here?", "Should I use is or are here?"),
        ("Where do I put the article a?", "Where do I put the article the?"),
        ("How do I say thank you?", "How do I say cheers?"),
        ("How do I say in French: thank you", "How do I say in French: good morning"),
        ("What is the Spanish word for please?", "What is the Spanish word for thanks?"),
        # The same words in another order, where order is what is asked about
        ("Subtract 3 and 5.", "Subtract 5 and 3."),
        ("Concatenate foo and bar.", "Concatenate bar and foo."),
        ("What is the ratio of cats and dogs?", "What is the ratio of dogs and cats?"),
        ("Which is the first of Paris and Rome?", "Which is the first of Rome and Paris?"),
        ("What is foo followed by bar and baz?", "What is foo followed by baz and bar?"),
        ("Join users and orders with a left join.", "Join orders and users with a left join."),
        ("Anna said hello. Ben left. Who left last?", "Ben left. Anna said hello. Who left last?"),
        ("Mix the eggs. Heat the oven. What is step 1?", "Heat the oven. Mix the eggs. What is step 1?"),
        ("In welcher Reihenfolge stehen Anna und Ben?", "In welcher Reihenfolge stehen Ben und Anna?"),
        ("Reply to: thanks so much", "Reply to: hi there"),
        ("Count the words: a a a", "Count the words: a a"),
        ("Reverse: a b c", "Reverse: the b c"),
        ("Antworte auf: danke", "Antworte auf: bitte"),
        ("Did she give me the keys?", "Did she show me the keys?"),
        ("What is a fuse for?", "What is a fuse?"),
        ("Is the water very hot?", "Is the water hot?"),
        ("Is the whole cake vegan?", "Is the cake vegan?"),
        ("Was heißt danke auf Englisch?", "Was heißt bitte auf Englisch?"),
        ("Ist das nur für Kinder?", "Ist das für Kinder?"),
        ("¿Cómo se dice gracias en inglés?", "¿Cómo se dice hola en inglés?"),
        ("Comment dit-on merci en anglais ?", "Comment dit-on bonjour en anglais ?"),
        ("¿Quién mató a Julio César?", "¿A quién mató Julio César?"),
        # You and I, statements and questions, phrasal verbs
        ("Can you cancel my order?", "Can I cancel my order?"),
        ("How do you use my data?", "How do I use my data?"),
        ("What is the cat on the mat?", "The cat is on the mat."),
        ("How do I take out a loan?", "How do I remove a loan?"),
        ("How do I set up a date?", "How do I install a date?"),
        ("Who is Will?", "Who will?"),
        ("What is .NET?", "What is net?"),
        ("Is 100 Mbps fast?", "Is 100 MBps fast?"),
        ("What does a ? b : c do?", "What does a ? c : b do?"),
        ('echo "$x"', "echo '$x'"),
        ("Who was Marx?", "Who was Mars?"),
        ("How big is a 10 MB file?", "How big is a 10 Mb file?"),
        ("What is new in Python 3.1?", "What is new in Python 3.10?"),
        ("Correct the spelling: recieve the parcel", "Correct the spelling: receive the parcel"),
        ('Translate "please wait" into Czech.', 'Translate "wait" into Czech.'),
        ("Should I wash it before I cut it?", "Should I cut it before I wash it?"),
        ("Is Ben Paul's uncle?", "Is Paul Ben's uncle?"),
        ("Jeder darf parken?", "Niemand darf parken?"),
        ("Kann ich hier parken?", "Kann ich hier nicht parken?"),
        ("¿Dónde puedo comprar un piso?", "¿Dónde puedo alquilar un piso?"),
        ("Comment ouvrir un compte ?", "Comment fermer un compte ?"),
        ("Что такое фотон?", "Что такое протон?"),
        ("日本の首都はどこですか", "韓国の首都はどこですか"),
        ("👍", "👎"),
        (
            "The cat is black and the dog is white. Which is black?",
            "The dog is black and the cat is white. Which is black?",
        ),
        ("Is the red car faster and the blue car slower?", "Is the blue car faster and the red car slower?"),
        ("When A and B hold and C fails, what follows?", "When A and C hold and B fails, what follows?"),
        ("Set x, y and z to 1, 2 and 3.", "Set x, z and y to 1, 2 and 3."),
        ("Is every square a rectangle?", "Is every rectangle a square?"),
        ("Is x <5 here?", "Is x >5 here?"),
        ("Is 1 in [0, 1]?", "Is 1 in (0, 1)?"),
        ("What is 5! times two?", "What is 5 times two?"),
        ("Look up agent 007.", "Look up agent 7."),
        ("Find 1234567890123456 now", "Find 1234567890123457 now"),
    ],
)
def test_what_cannot_be_explained_is_a_miss_whatever_the_similarity(a: str, b: str) -> None:
    assert not decision(a, b, similarity=1.0).hit
    assert not decision(b, a, similarity=1.0).hit


def test_the_reason_tells_what_happened_and_quotes_no_prompt() -> None:
    for a, b in (("How do I paint a fence?", "How do I build a fence?"), ("Is Lena here?", "Was Lena here?")):
        reason = decision(a, b).reason
        assert reason
        assert not {"fence", "paint", "build", "lena"} & set(reason.lower().replace(":", " ").split())


def test_an_answer_about_today_is_not_served_on_another_day() -> None:
    from watchllm.cache.semantic.decide import Candidate, decide
    from watchllm.cache.semantic.features import features

    candidate = Candidate(1.0, features("What is on television today?"))
    asked = features("what's on television today")
    assert decide(asked, candidate, same_day=True).hit
    found = decide(asked, candidate, same_day=False)
    assert (found.hit, found.guard) == (False, "relative_time")
