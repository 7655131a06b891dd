"""What a caption says about time: its parts in the order heard, and captions that say otherwise.

After ACBA (arXiv:2303.10667), CompA (arXiv:2310.08753) and T-CLAP (arXiv:2404.17806), whose
negatives tell the same events in another order.
"""

import dataclasses
import functools
import itertools
import re

from alm_jax.data import english, lexicon

# Between two parts; the group that matched names the kind. A quoted text is never looked into.
_LINK = re.compile(
    r',?\s+(?:(?:and|which|is|are|being|then)\s+)*(?P<followed>followed\s+by)\s+'
    r'|,?\s+(?:(?:and|which|is|are|being)\s+)*(?P<preceded>preceded\s+by)\s+'
    r'|\s*[.,;]?(?:\s+and)?\s+(?P<then>(?:then|finally)\b,?)\s+'
    r'|,?\s+(?:(?:just|right|shortly|immediately)\s+)?(?P<before>before)\s+'
    r'|,?\s+(?:(?:just|right|shortly|immediately)\s+)?(?P<after>after)\s+',
    re.IGNORECASE,
)
_LEADING = re.compile(r'(?P<link>before|after)\s+(?P<first>[^,]+),\s+(?P<second>.+)', re.IGNORECASE)
_FIRST = re.compile(r'(at\s+)?first,?\s+', re.IGNORECASE)
_QUOTED = re.compile(r'(?<!\w)(\'.*\'|".*")(?!\w)')
_FORWARD = {'followed': True, 'then': True, 'before': True, 'preceded': False, 'after': False}
_OTHER_WAY = {
    'before': 'after',
    'after': 'before',
    'followed by': 'preceded by',
    'preceded by': 'followed by',
}
# Parts that are no event: what they say stays true, or means nothing, at the other side.
_NO_EVENT = re.compile(
    r'(that|this|which|it|again|another|each other|one another|the other|silence|quiet$|paus\w+|'
    r'stop\w*|(a|an|some|several)\s+(\w+\s+)?(while|pause|moment|second|seconds|few|time|bit|'
    r'silence|break)|a few)\b',
    re.IGNORECASE,
)
_SIMULTANEOUS = re.compile(
    r'(?:,\s*|\s+)(?:and|while|whilst|as|with)\s+|,\s*|\s+at the same time', re.IGNORECASE
)
_UNSAID = (
    'a an the and or as while with of in on at to into from by for is are be being can heard hear '
    'again more once one some sound recording then first noise'
)
_ALIKE = 0.6  # share of common content words above which two parts may be one event


@dataclasses.dataclass(frozen=True)
class Order:
    """A caption as parts and the links between them, in the order of the text.

    Attributes:
      opening: text before the first part.
      parts: the events, as written.
      links: the texts between them.
      kinds: of each link: followed, preceded, then, before or after.
      ending: text after the last part.
      is_capital: whether the text begins with a capital.
      is_forward: whether the text tells the parts as they are heard.
    """

    opening: str
    parts: tuple[str, ...]
    links: tuple[str, ...]
    kinds: tuple[str, ...]
    ending: str
    is_capital: bool
    is_forward: bool

    def heard(self) -> tuple[str, ...]:
        """The parts, first heard first."""
        return self.parts if self.is_forward else self.parts[::-1]

    def text(self, parts: tuple[str, ...], links: tuple[str, ...] | None = None) -> str:
        """The caption with other parts, or other links; its first letter and its end stay."""
        links = self.links if links is None else links
        between = itertools.chain.from_iterable(zip(links, parts[1:]))
        text = ''.join([self.opening, parts[0], *between])
        return (text[:1].upper() + text[1:] if self.is_capital else text) + self.ending


def masked(text: str) -> str:
    """``text`` with quoted passages blotted out, character by character."""
    return _QUOTED.sub(lambda match: '_' * len(match.group()), text)


@functools.lru_cache(maxsize=4096)
def parse(caption: str) -> Order | None:
    """How a caption orders its events; None for one that tells no order, or one not understood."""
    body = caption.strip()
    ending = re.search(r'[.!?]*$', body).group()
    body = body[: len(body) - len(ending)]
    found = _leading(body, ending) or _linked(body, ending)
    if found is None or any(_NO_EVENT.match(part) or not part.strip() for part in found.parts):
        return None
    if any(re.search(r'[.!?;]\s', masked(part)) for part in found.parts):
        return None
    return found


def _leading(body: str, ending: str) -> Order | None:
    """'After A, B' and 'Before A, B'."""
    match = _LEADING.fullmatch(masked(body))
    if not match or any(_LINK.search(' ' + match[name]) for name in ('first', 'second')):
        return None
    (a, b), (c, d) = match.span('first'), match.span('second')
    kind = match['link'].lower()
    parts = (body[a:b], body[c:d])
    is_forward = kind == 'after'
    return Order(body[:a], parts, (body[b:c],), (kind,), ending, body[:1].isupper(), is_forward)


def _linked(body: str, ending: str) -> Order | None:
    opening = _FIRST.match(body)
    begin = opening.end() if opening else 0
    parts, links, kinds = [], [], []
    for match in _LINK.finditer(masked(body), begin):
        parts.append(body[begin : match.start()])
        links.append(match.group())
        kinds.append(match.lastgroup)
        begin = match.end()
    parts.append(body[begin:])
    is_chain = all(kind in ('then', 'followed') for kind in kinds)
    if not kinds or (len(kinds) > 1 and not is_chain):
        return None
    start = opening.group() if opening else ''
    told = (english.clause(parts[0]), *parts[1:])
    is_forward = _FORWARD[kinds[0]]
    return Order(start, told, tuple(links), tuple(kinds), ending, body[:1].isupper(), is_forward)


def misordered(caption: str) -> list[str]:
    """Captions that tell the events of ``caption`` in another order, and are therefore false.

    The connective is turned (before to after, followed by to preceded by) or parts change places,
    where the result reads well. [] for a caption without an order, or whose parts are alike, so
    that any order of them would be true.
    """
    order = parse(caption)
    if order is None or any(alike(a, b) for a, b in itertools.combinations(order.parts, 2)):
        return []
    turned = _turned(order)
    made = [turned] if turned else []
    if _exchangeable(order):
        size = len(order.parts)
        for places in dict.fromkeys(
            [tuple(reversed(range(size))), *(_transposed(size, i) for i in range(size - 1))]
        ):
            made.append(order.text(tuple(order.parts[place] for place in places)))
    true = meaning(caption)
    return [text for text in dict.fromkeys(made) if meaning(text) != true]


def _transposed(size: int, first: int) -> tuple[int, ...]:
    places = list(range(size))
    places[first], places[first + 1] = places[first + 1], places[first]
    return tuple(places)


def _turned(order: Order) -> str | None:
    """The caption with its one connective turned round."""
    if len(order.links) > 1 or order.kinds[0] == 'then':
        return None
    if order.opening and not _FIRST.fullmatch(order.opening):  # 'After A, B'
        turned = _OTHER_WAY[order.kinds[0]] + ' '
        return dataclasses.replace(order, opening=turned).text(order.parts)
    link = re.sub(r'\bthen\s+', '', order.links[0])
    for word, other in _OTHER_WAY.items():
        pattern = word.replace(' ', r'\s+')
        if re.search(rf'\b{pattern}\b', link, re.IGNORECASE):
            turned = re.sub(rf'\b{pattern}\b', other, link, count=1, flags=re.IGNORECASE)
            return order.text(order.parts, (turned,))
    raise AssertionError(link)


def _exchangeable(order: Order) -> bool:
    """Whether the parts can change places and still read well."""
    firsts = [masked(part).split()[0].lower().strip(',') for part in order.parts]
    words = [set(re.findall(r'\w+', masked(part).lower())) for part in order.parts]
    if any(words[i] & lexicon.PRONOUNS for i in range(len(words))):
        return False
    if not all(map(_opens_phrase, firsts)) and not all(word.endswith('ing') for word in firsts):
        return False
    if {'followed', 'preceded'} & set(order.kinds):
        return len({is_clause(part) for part in order.parts}) == 1
    return True


def _opens_phrase(word: str) -> bool:
    return (
        word in lexicon.DETERMINERS
        or word in lexicon.ADJECTIVES
        or word in lexicon.PLURALS
        or word in lexicon.BARE
        or word in lexicon.MASS
    )


def is_clause(part: str) -> bool:
    """Whether a verb of ``part`` is finite: 'a dog barks', but not 'a dog barking'."""
    words = re.findall(r'[\w-]+', masked(part).lower())
    is_plural = words[:1] and words[0] in (*lexicon.NUMBERS, 'several', 'many', 'multiple')
    for before, word in zip(['', *words], words):
        if word in ('is', 'are', 'was', 'were', 'can', 'has', 'have'):
            return True
        if word in lexicon.VERBS and before in lexicon.PLURALS:
            return True
        if is_plural or not before or before in lexicon.NEVER_SUBJECTS:
            continue  # 'three engine hums', 'the barks'
        if word.endswith('s') and word not in lexicon.PLURALS and stem(word, ''):
            return True
    return False


def stem(word: str, unknown: str | None = None) -> str:
    """The plain verb of one of its forms, by one of its synonyms: 'talking' -> 'speak'.

    Args:
      word: lower case.
      unknown: what to return for a word that is no known verb; by default the word without its
        plural s.
    """
    bases = [word]
    for suffix in ('ing', 'ed', 'es', 's', 'd'):
        if word.endswith(suffix):
            base = word[: -len(suffix)]
            bases += [base, base + 'e', base[:-1] if base[-1:] == base[-2:-1] else base]
            bases.append(base[:-1] + 'y' if base.endswith('i') else base)
    verb = next((base for base in bases if base in lexicon.VERBS), None)
    if verb is not None:
        return lexicon.CANONICAL.get(verb, verb)
    return word.removesuffix('s') if unknown is None else unknown


def content(part: str) -> frozenset[str]:
    """The words that tell one event from another."""
    words = re.findall(r'\w+', part.lower())
    unsaid = _UNSAID.split()
    return frozenset(stem(word) for word in words if word not in unsaid)


def alike(one: str, other: str) -> bool:
    """Whether two parts may be the same event, so that no order of them is wrong."""
    a, b = content(one), content(other)
    return a <= b or b <= a or len(a & b) > _ALIKE * len(a | b)


@functools.lru_cache(maxsize=4096)
def meaning(caption: str) -> tuple[tuple[str, ...], ...]:
    """What a caption says: events in the order heard; those at the same time are sorted.

    Captions of equal meaning are true of the same audio, whatever their connectives.
    """
    order = parse(caption)
    return tuple(map(_together, order.heard() if order else (caption,)))


def _together(part: str) -> tuple[str, ...]:
    quoted = _QUOTED.findall(part)
    said = [english.normalised(piece) for piece in _SIMULTANEOUS.split(masked(part))]
    said = [re.sub(r'\b(an?|the)\s+', '', piece) for piece in said if piece]
    return (*sorted(said), *map(english.normalised, quoted))
