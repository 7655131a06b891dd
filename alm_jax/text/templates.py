"""Prompts that turn a class name into a sentence for zero-shot classification.

Sources: LAION-CLAP's zero-shot evaluation ("This is a sound of {}.") and GLAP's prompts
(xiaomi-research/dasheng-glap: "The sound of {} can be heard.", "The music in the style of {}.",
and the bare word for speech).
"""

TEMPLATES: dict[str, tuple[str, ...]] = {
    'sound': ('This is a sound of {}.', 'The sound of {} can be heard.', '{}'),
    'instrument': ('This is a sound of {}.', 'The sound of {} can be heard.', '{}'),
    'music': ('This is a sound of {}.', 'The music in the style of {}.', '{}'),
    'speech': ('{}',),
}


def prompts(label: str, kind: str = 'sound') -> list[str]:
    """Every template of ``kind`` (a key of TEMPLATES) filled with ``label``."""
    return [template.replace('{}', label) for template in TEMPLATES[kind]]
