"""ESC-50: 2,000 clips of 5 s in 50 classes, cut from Freesound.

Zero-shot scores are over all clips, so all are split 'test'. The five official folds are the
``group``: cross-validation takes esc50:test with where={'group': ['fold1', 'fold2', ...]}.
"""

import re
from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item, freesound
from alm_jax.data.catalog.files import Files

_CREDIT = re.compile(
    r'- \[(?P<clip>[\w-]+)\.\w+\].*\(http\S+\) by (?P<author>.+) \[(?P<licence>[^]]+)\]$'
)


def _items(files: Files, config: str) -> Iterator[Item]:
    credits = _credits(files)
    for row in files.csv('meta/esc50.csv', required=('filename', 'fold', 'category', 'esc10')):
        name = row.text('filename')
        # 1-100032-A-0.wav is credited without its class, as 1-100032-A.
        author, licence = credits.get(name.rsplit('-', 1)[0], ('', ''))
        clip = files.audio(name, 'audio')
        yield Item(
            split='test',
            id=name,
            audio=(clip,) if clip else (),
            fields={
                'label': row.text('category').replace('_', ' '),
                'tags': ['esc10'] if row.text('esc10').lower() == 'true' else [],
                'recording_id': freesound(name.split('-')[1]),
                'group': f'fold{row.text("fold")}',
                'author': author,
                **({'licence': licence} if licence else {}),
            },
        )


def _credits(files: Files) -> dict[str, tuple[str, str]]:
    """Clip -> (author, licence) from the file LICENSE, when it is there."""
    lines = files.lines('LICENSE') if files.has('LICENSE') else ()
    found = filter(None, map(_CREDIT.match, lines))
    return {match['clip']: (match['author'], match['licence']) for match in found}


DATASET = Dataset(
    name='esc50',
    version='1.0.0',
    title='ESC-50',
    homepage='https://github.com/karolpiczak/ESC-50',
    licence='CC-BY-NC-3.0',
    provenance='human',
    layout="""ESC-50-master.zip (github.com/karolpiczak/ESC-50), or unpacked:
  meta/esc50.csv
  audio/*.wav
  LICENSE  author and licence of every clip; may be left out""",
    items=_items,
)
