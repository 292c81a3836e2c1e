"""Facts of a kind that can be seen in a text: numbers, kin and names. English, and by rules."""

from __future__ import annotations

import re
from collections.abc import Iterator

from augesc_builder.metrics.topic_correlates.counts import stop_words
from augesc_builder.text.words import tokenize

_DIGITS = re.compile(r"\d[\d,.:]*")
_NAME = re.compile(r"[A-Z][a-z]+(?:[-'][A-Za-z]+)?")
_ENDS = frozenset({".", "?", "!", "...", "``", '"', ":"})

_NUMBER_FORMS = {
    **{"2": "two twice", "3": "three", "4": "four", "5": "five", "6": "six", "7": "seven"},
    **{"8": "eight", "9": "nine", "10": "ten", "11": "eleven", "12": "twelve dozen"},
    **{"13": "thirteen", "14": "fourteen", "15": "fifteen", "16": "sixteen", "17": "seventeen"},
    **{"18": "eighteen", "19": "nineteen", "20": "twenty", "30": "thirty", "40": "forty"},
    **{"50": "fifty", "60": "sixty", "70": "seventy", "80": "eighty", "90": "ninety"},
    **{"100": "hundred", "1000": "thousand", "1000000": "million"},
}
"""Number words; "one" is left out, which mostly counts nothing."""

_KIN_FORMS = {
    "mother": "mom mum mommy mummy mama mothers moms mums",
    "father": "dad daddy papa fathers dads",
    "parent": "parents",
    "brother": "brothers bro",
    "sister": "sisters sis",
    "sibling": "siblings",
    "son": "sons",
    "daughter": "daughters",
    "child": "children kid kids",
    "baby": "babies",
    "husband": "hubby husbands",
    "wife": "wives",
    "spouse": "spouses",
    "partner": "partners",
    "girlfriend": "gf girlfriends",
    "boyfriend": "bf boyfriends",
    "fiance": "fiancee fianc\u00e9 fianc\u00e9e",
    "ex": "exes ex-husband ex-wife ex-boyfriend ex-girlfriend",
    "grandmother": "grandma granny nana grandmothers",
    "grandfather": "grandpa granddad grandad grandfathers",
    "grandparent": "grandparents",
    "grandchild": "grandson granddaughter grandchildren grandkids grandkid",
    "aunt": "auntie aunty aunts",
    "uncle": "uncles",
    "cousin": "cousins",
    "niece": "nieces",
    "nephew": "nephews",
    "in-law": "in-laws mother-in-law father-in-law sister-in-law brother-in-law",
    "stepmother": "stepmom stepmum",
    "stepfather": "stepdad",
    "stepchild": "stepson stepdaughter",
    "friend": "friends bestie",
    "roommate": "roommates flatmate roomie",
    "boss": "manager supervisor",
    "coworker": "coworkers co-worker co-workers colleague colleagues",
    "dog": "dogs puppy pup puppies",
    "cat": "cats kitten kitty kittens",
}
_NUMBERS = {form: number for number, forms in _NUMBER_FORMS.items() for form in forms.split()}
_KIN = {form: kin for kin, forms in _KIN_FORMS.items() for form in [kin, *forms.split()]}


def facts(text: str) -> Iterator[tuple[str, str]]:
    """Yield the facts of a text as they come, each as its kind and what it is.

    - ``number``: in digits or words ("14", "fourteen"; not "one")
    - ``kin``: who is spoken of, by what they are to somebody ("mom" is "mother"); pets too
    - ``name``: a word with a capital that does not begin a sentence, and is no stop word
    """
    begins = True
    for word in tokenize(text):
        lower = word.lower()
        if kin := _KIN.get(lower):
            yield "kin", kin
        elif number := _NUMBERS.get(lower):
            yield "number", number
        elif _DIGITS.match(word):
            yield "number", word.replace(",", "").rstrip(".:")
        elif not begins and lower not in stop_words() and _NAME.fullmatch(word):
            yield "name", lower
        begins = word in _ENDS
