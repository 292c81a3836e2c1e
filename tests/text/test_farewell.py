"""The word by which a conversation ends, and what only looks like it."""

from __future__ import annotations

import pytest

from augesc_builder.text.farewell import says_goodbye


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("bye", True),
        ("Ok, BYE!", True),
        ("'bye'--see you", True),
        ("good bye then", True),
        ("goodbye", False),
        ("good-bye", False),
        ("bye-bye", False),
        ("bye\u2019s", False),
        ("byes and lullabye", False),
        ("by the way", False),
    ],
)
def test_bye_is_a_word_of_its_own(text, ends):
    assert says_goodbye(text, ["bye"]) is ends


def test_other_words_end_too_where_the_recipe_has_them():
    assert says_goodbye("Good-bye!", ["bye", "good-bye"])
    assert says_goodbye("See you (all)", ["you (all)"])
    assert not says_goodbye("see youall", ["you (all)", "you.all"])
    assert not says_goodbye("bye", [])
    assert says_goodbye("Well, Take Care.", ["take care"])
