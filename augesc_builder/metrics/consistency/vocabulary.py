"""English words that the rules of consistency know, as sets and tables."""

from __future__ import annotations


def word_set(words: str) -> frozenset[str]:
    """Return words that stand in one text, apart by blanks."""
    return frozenset(words.split())


NEGATORS = word_set("not never no nobody none nothing nowhere neither nor hardly without")

STOP_WORDS = word_set(
    "a about after again all also always am an and any are as at be been before being both but by "
    "can come could did do does doing done each else even ever every for from get go good great "
    "had has have he hello her here hers hey hi him his how i if in into is it its just know let "
    "like lot make many may maybe me mean might mine more most much must my no not now of oh ok "
    "okay on one only or other our out over own please quite really right say see shall she "
    "should so some something still such sure tell than thank thanks that the their them then "
    "there these they thing think this those though to too up us very want was way we well were "
    "what when where which while who why will with wo would yeah yes yet you your yours feel "
    "understand hope need help"
)
"""Words that two utterances share without being about the same."""

HYPOTHETICAL = word_set(
    "if unless whether would could should might may wish hope want future imagine maybe"
)
"""Words of a clause that does not say how things are."""

WHOLE_OF = {"ca": "can", "wo": "will", "ai": "be", "sha": "shall"}
_AUXILIARIES = "did does do is was are were have has had would should could ca wo ai"
NOT_WITHOUT_APOSTROPHE = {f"{word}nt": WHOLE_OF.get(word, word) for word in _AUXILIARIES.split()}
NOT_WITHOUT_APOSTROPHE["cannot"] = "can"
ENDINGS = {"m": "am", "re": "are", "ve": "have", "ll": "will", "d": "would"}
HAVE_IS_BEHIND = word_set("he she it that this there what who where how here everything")
"""Words behind which ``'s`` means a verb; behind others it is a genitive."""

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
UNITS = {word: number for number, word in enumerate(_UNITS.split())}
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
TENS = {word: 20 + 10 * i for i, word in enumerate(_TENS.split())}

_IRREGULAR = {
    "be": "am is are was were being been",
    "become": "became", "begin": "began begun", "break": "broke broken", "bring": "brought",
    "buy": "bought", "catch": "caught", "choose": "chose chosen", "come": "came", "do": "did done "
    "does doing", "drink": "drank drunk", "drive": "drove driven", "eat": "ate eaten",
    "fall": "fell fallen", "feel": "felt", "fight": "fought", "find": "found", "forget": "forgot "
    "forgotten", "get": "got gotten", "give": "gave given", "go": "went gone goes going",
    "grow": "grew grown", "have": "had has having", "hear": "heard", "hold": "held", "keep": "kept",
    "know": "knew known", "lead": "led", "leave": "left", "lose": "lost", "make": "made",
    "meet": "met", "pay": "paid", "run": "ran", "say": "said", "see": "saw seen", "sell": "sold",
    "send": "sent", "sing": "sang sung", "sit": "sat", "sleep": "slept", "speak": "spoke spoken",
    "spend": "spent", "stand": "stood", "swim": "swam", "take": "took taken", "teach": "taught",
    "tell": "told", "think": "thought", "wear": "wore worn", "win": "won", "write": "wrote written",
    "child": "children", "wife": "wives", "man": "men", "woman": "women", "kid": "kids",
    "mother": "mom mum mommy mummy mama momma mam", "father": "dad daddy papa", "dog": "puppy",
}  # fmt: skip
BASES = {form: word for word, forms in _IRREGULAR.items() for form in forms.split()}

PAST = word_set(
    "was were became began broke brought bought caught chose came did drank drove ate fell felt "
    "fought found forgot got gave went grew had heard held kept knew led left lost made met paid "
    "ran said saw sold sent sang sat slept spoke spent stood swam took taught told thought wore "
    "won wrote used"
)
"""Past forms that do not end in ``ed``."""

_OPPOSITES = (
    "love hate,like hate,like dislike,love dislike,enjoy hate,enjoy dislike,good bad,great bad,"
    "great terrible,good terrible,happy sad,happy unhappy,always never,often never,often rarely,"
    "usually rarely,everyone nobody,everything nothing,everybody nobody,early late,easy hard,"
    "easy difficult,old young,old new,big small,hot cold,warm cold,rich poor,alive dead,"
    "live die,win lose,arrive leave,start stop,begin end,open close,married single,"
    "married divorced,married unmarried,employed unemployed,first last,more less,most least,"
    "better worse,best worst,healthy sick,well sick,full empty,strong weak,close distant,"
    "agree disagree,agree refuse,accept refuse,accept reject,trust distrust,remember forget,"
    "pass fail,succeed fail,increase decrease,cheap expensive,true false,right wrong,safe "
    "dangerous,calm angry,calm nervous,proud ashamed,interesting boring,fun boring,alone together,"
    "near far,inside outside,before after,day night,morning evening,morning night,up down,"
    "able unable,possible impossible,friendly unfriendly,kind cruel,guilty innocent,"
    "beautiful ugly,clean dirty,quiet loud,busy free,awake asleep,fast slow,high low,long short"
)
OPPOSITES = frozenset(frozenset(pair.split()) for pair in _OPPOSITES.split(","))

TIMES = word_set(
    "monday tuesday wednesday thursday friday saturday sunday january february march april june "
    "july august september october november december spring summer autumn fall winter today "
    "tonight yesterday tomorrow morning noon afternoon evening night midnight weekend week month "
    "year day hour minute daily weekly monthly yearly season ago last next"
)

FEMALE = word_set(
    "mother wife daughter sister girlfriend aunt niece grandmother grandma granny fiancee bride "
    "girl woman lady stepmother stepdaughter queen"
)
MALE = word_set(
    "father husband son brother boyfriend uncle nephew grandfather grandpa fiance groom boy man "
    "guy gentleman stepfather stepson king"
)
UNSAID_GENDER = word_set(
    "friend boss partner teacher neighbour neighbor ex kid child baby someone somebody anyone "
    "anybody person cousin parent sibling spouse colleague coworker co roommate "
    "doctor nurse dog cat pet puppy horse manager team student driver other bf gf "
    "family guest twin lover crush date bully god lord fellow folk landlord "
    "infant toddler relative inlaw therapist counselor agent"
)
_COUNTERPARTS = (
    "mother father,wife husband,daughter son,sister brother,girlfriend boyfriend,aunt uncle,"
    "niece nephew,grandmother grandfather,grandma grandpa,fiancee fiance,girl boy,woman man,"
    "she he,her him,her his,hers his,herself himself,lady gentleman"
)
COUNTERPARTS = frozenset(frozenset(pair.split()) for pair in _COUNTERPARTS.split(","))
KIN_CLASS = {
    "sister": "siblings", "brother": "siblings", "sibling": "siblings",
    "son": "children", "daughter": "children", "child": "children", "kid": "children",
    "husband": "spouse", "wife": "spouse", "spouse": "spouse",
    "boyfriend": "boyfriend", "girlfriend": "girlfriend",
    "dog": "dog", "cat": "cat", "pet": "pet", "roommate": "roommate", "car": "car",
}  # fmt: skip
"""What one can say to have none of, and the name of what is lacking then."""

COUNTED = frozenset(KIN_CLASS) | word_set("horse aunt uncle cousin degree house bedroom")

JOBS = word_set(
    "accountant actor actress architect artist attorney baker banker barista bartender builder "
    "butcher carpenter cashier chef cook dentist detective developer doctor driver electrician "
    "engineer farmer firefighter gardener hairdresser journalist judge lawyer librarian mechanic "
    "miner musician nurse painter pharmacist photographer physician pilot plumber policeman "
    "postman professor programmer psychologist receptionist reporter salesman scientist secretary "
    "singer soldier surgeon tailor teacher therapist veterinarian vet waiter waitress writer "
    "housewife model nanny"
)

LIKES, DISLIKES = word_set("love lov like enjoy adore"), word_set("hate dislike")
"""Stems of verbs."""

VAGUE_VERBS = word_set(
    "know think guess mean feel want see say tell try hope need get seem look do make let thank "
    "help understand wish believe remember worry wonder talk"
)
"""Verbs that people deny and affirm of different things from one utterance to the next."""

DAYS = {"minute": 1 / 1440, "hour": 1 / 24, "day": 1.0, "week": 7.0, "month": 30.4, "year": 365.0}
