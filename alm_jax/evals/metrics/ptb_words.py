"""The words of a caption as the COCO evaluation counts them.

COCO runs Stanford's PTBTokenizer (CoreNLP 3.4.1, in Java), lower-cases, and drops most punctuation.
This follows its rules for English captions: contractions are split (do n't, it 's, can not);
hyphenated words, numbers and abbreviations stay whole; brackets become words (-lrb-), as they do
there. Not followed: smileys, and words of two or more apostrophes that are no contraction.
"""

import html
import re

_DROPPED = frozenset(("''", "'", '``', '`', '.', '?', '!', ',', ':', '-', '--', '...', ';'))
_BRACKETS = dict(zip('()[]{}', ('-lrb-', '-rrb-', '-lsb-', '-rsb-', '-lcb-', '-rcb-')))
_ABBREVIATIONS = (
    *('mr', 'mrs', 'ms', 'dr', 'prof', 'st', 'jr', 'sr', 'vs', 'etc', 'inc', 'ltd', 'corp', 'co'),
    *('gen', 'sen', 'gov', 'rep', 'lt', 'sgt', 'capt', 'col', 'maj', 'adm', 'rev', 'hon', 'ave'),
    *('blvd', 'rd', 'mt', 'ft', 'bros', 'dept', 'est', 'fig', 'mon', 'tues', 'wed', 'thurs', 'fri'),
    *(
        'jan',
        'feb',
        'mar',
        'apr',
        'jun',
        'jul',
        'aug',
        'sep',
        'sept',
        'oct',
        'nov',
        'dec',
        r'ph\.d',
    ),
)
_SPLIT = {
    'cannot': ('can', 'not'),
    'gonna': ('gon', 'na'),
    'gotta': ('got', 'ta'),
    'wanna': ('wan', 'na'),
    'lemme': ('lem', 'me'),
    'gimme': ('gim', 'me'),
    "'tis": ("'t", 'is'),
    "'twas": ("'t", 'was'),
}
_TOKEN = re.compile(
    rf"""
    (?: https?:// | www\. ) \S*[^\W_]
    | [\w.+-]+ @ [\w-]+ (?: \.[\w-]+ )+              # an address
    | </? [a-z] [^<>;]* >                            # a tag
    | '\d0s\b | '(?: tis | twas | cause | em )\b | 'n\b'? | n't\b | y'(?=all)
    | (?<!\w)(?: [^\W\d_]\. )+ | (?: {'|'.join(_ABBREVIATIONS)} )\. | no\.(?=\s*\d)
    | [+-]? \d+ (?: [.,:/]\d+ )+ (?: -\w+ )*           # 3.5, 1,000, 10:30, 1/2
    | [^\W_]* [^\W\d_] (?: [/&][^\W\d_]+ )+        # and/or, r&b
    | (?: [od]'|ma'|c' ) [^\W\d_]+
    | [+-]? \d+ (?: -\w+ )+ | [+-](?=\d) \d+
    | [^\W\d_]{{2,}} (?: \.[^\W\d_]+ )+                # no space behind a full stop: one word
    | \w+? (?=n't\b) | \w+ (?: -\w+ )*
    | '(?: s | m | d | re | ve | ll | t )\b
    | \.{{3}} | -{{2,}} | [!?]+ | \S
    """,
    re.VERBOSE,
)


def ptb_words(text: str) -> list[str]:
    """Lower-case words of a text, in order; [] when it has none."""
    text = html.unescape(text.lower()).replace('\u2019', "'").replace('\u2018', "'")
    text = re.sub('[\u2013\u2014]', ' -- ', text).replace('\u2026', ' ... ')
    text = re.sub('["\u201c\u201d]', ' ', text)
    words: list[str] = []
    for token in _TOKEN.findall(text):
        words += _SPLIT.get(token, (_BRACKETS.get(token, token),))
    return [word for word in words if word not in _DROPPED]
