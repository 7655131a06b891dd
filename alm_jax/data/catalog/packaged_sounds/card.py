"""The dataset card written beside the records: README.md, card.json and classes.json."""

import collections
import hashlib
import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from alm_jax.data.catalog.packaged_sounds import classes, splits
from alm_jax.data.catalog.packaged_sounds.package import write_atomic
from alm_jax.data.catalog.packaged_sounds.splits import SPLITS, Placed

JSON_NAME = 'card.json'
_EXAMPLES = 10
_LISTED = 20  # members in the README; all are in card.json


def write(folder: pathlib.Path, tier: str, placed: Sequence[Placed], report: Mapping) -> None:
    """Writes the three files; card.json last, since its presence means that the build is done."""
    summary = summarise(tier, placed, report)
    labels = json.dumps(_classes(placed), indent=1, ensure_ascii=False, sort_keys=True)
    write_atomic(folder / 'classes.json', labels.encode())
    write_atomic(folder / 'README.md', _readme(summary).encode())
    text = json.dumps(summary, indent=1, ensure_ascii=False)
    write_atomic(folder / JSON_NAME, text.encode())


def table(folder: pathlib.Path) -> str:
    """The table of a written card, for the terminal."""
    return _split_table(json.loads((folder / JSON_NAME).read_text(encoding='utf-8')))


def summarise(tier: str, placed: Sequence[Placed], report: Mapping) -> dict:
    """The card as JSON types."""
    sounds = [item for item in placed if item.recording.clip.kind == 'sound']
    return {
        'tier': tier,
        'records': len(placed),
        'splits': {name: _totals(p for p in placed if p.split == name) for name in SPLITS},
        'by_package': _by(placed, lambda item: item.recording.clip.package),
        'languages': _by(placed, lambda item: item.recording.clip.language or 'none'),
        'licences': _by(placed, lambda item: item.recording.clip.licence),
        'labels': _by(placed, lambda item: item.recording.clip.label or 'none'),
        'unseen': sorted(label for label, info in classes.CLASSES.items() if info.unseen),
        'packages': report['packages'],
        'dropped': report['dropped'],
        'left_out': report['left_out'],
        'missing': report['missing'],
        'leaks': splits.leaks(placed),
        'captions': _variety(placed),
        'caption_to_package': caption_to_package(
            [(i.recording.clip.label, i.recording.clip.package, i.captions[0]) for i in sounds]
        ),
        'examples': _examples(placed),
    }


def caption_to_package(sounds: Iterable[tuple[str, str, str]]) -> dict:
    """Do captions give away their package? Naive Bayes over words, leaving one clip out.

    Only classes found in two packages or more count, and only words within a class: the class
    itself says much about the package, and may.

    Args:
      sounds: (label, package, caption) each.

    Returns:
      n clips; accuracy; chance: always the commonest other package of the class; both in [0, 1].
    """
    of_class = collections.defaultdict(list)
    for label, package, caption in sounds:
        if label:
            of_class[label].append((package, set(re.findall(r'\w+', caption.casefold()))))
    right = chance = n = 0
    for items in of_class.values():
        total = collections.Counter(package for package, _ in items)
        if len(total) < 2:
            continue
        words = collections.Counter((package, word) for package, ws in items for word in ws)
        for package, mine in items:
            others = total - collections.Counter([package])
            held = words - collections.Counter((package, word) for word in mine)
            right += _most_likely(mine, others, held) == package
            chance += max(sorted(others), key=lambda name: others[name]) == package
            n += 1
    return {'n': n, 'accuracy': right / max(n, 1), 'chance': chance / max(n, 1)}


def _most_likely(words: set[str], packages: collections.Counter, counts: Mapping) -> str:
    def log_posterior(package: str) -> float:
        size = packages[package]
        seen = [np.log((counts[package, word] + 1) / (size + 2)) for word in sorted(words)]
        return np.log(size) + sum(seen)

    return max(sorted(packages), key=log_posterior)


def _totals(items: Iterable[Placed]) -> dict:
    items = list(items)
    seconds = [item.recording.num_samples / item.recording.rate for item in items]
    kinds = collections.Counter(item.recording.clip.kind for item in items)
    return {
        'records': len(items),
        'seconds': round(sum(seconds), 1),
        'median_seconds': round(float(np.median(seconds)), 2) if seconds else 0.0,
        **{kind: kinds[kind] for kind in ('sound', 'instrument', 'speech')},
        'labels': len({item.recording.clip.label for item in items} - {''}),
    }


def _by(placed: Sequence[Placed], key) -> dict[str, dict[str, int]]:
    counts: dict = collections.defaultdict(lambda: dict.fromkeys(SPLITS, 0))
    for item in placed:
        counts[key(item)][item.split] += 1
    return {name: counts[name] for name in sorted(counts)}


def _variety(placed: Sequence[Placed]) -> dict[str, dict[str, int]]:
    """label (or kind, without a label) -> clips and distinct captions in train."""
    clips, distinct = collections.Counter(), collections.defaultdict(set)
    for item in placed:
        if item.split == 'train':
            name = item.recording.clip.label or item.recording.clip.kind
            clips[name] += 1
            distinct[name].update(item.captions)
    return {n: {'clips': clips[n], 'distinct_captions': len(distinct[n])} for n in sorted(clips)}


def _classes(placed: Sequence[Placed]) -> dict:
    counts = _by(placed, lambda item: item.recording.clip.label)
    return {
        label: {
            'synonyms': list(info.synonyms),
            'audioset_parent': info.audioset_parent,
            'unseen': info.unseen,
            'counts': counts.get(label, dict.fromkeys(SPLITS, 0)),
        }
        for label, info in classes.CLASSES.items()
    }


def _examples(placed: Sequence[Placed]) -> list[dict]:
    """Ten records, spread over packages, the same each time."""
    order = sorted(placed, key=lambda item: hashlib.sha256(_key(item).encode()).digest())
    of_package = collections.defaultdict(list)
    for item in order:
        of_package[item.recording.clip.package].append(item)
    rounds = [column for row in range(_EXAMPLES) for column in _row(of_package, row)]
    return [
        {
            'id': _key(item),
            'split': item.split,
            'seconds': round(item.recording.num_samples / item.recording.rate, 2),
            'label': item.recording.clip.label,
            'captions': list(item.captions),
            'caption_own': item.caption_own,
        }
        for item in rounds[:_EXAMPLES]
    ]


def _row(of_package: Mapping[str, list], row: int) -> list:
    return [items[row] for _, items in sorted(of_package.items()) if row < len(items)]


def _key(item: Placed) -> str:
    return f'{item.recording.clip.package}/{item.recording.clip.member}'


def _split_table(summary: Mapping) -> str:
    columns = ('records', 'seconds', 'median_seconds', 'sound', 'instrument', 'speech', 'labels')
    rows = [[name, *(summary['splits'][name][column] for column in columns)] for name in SPLITS]
    return _markdown(('split', *columns), rows)


def _markdown(head: Sequence[str], rows: Iterable[Sequence]) -> str:
    """A table of the same width in every row, so that it reads well as plain text too."""
    cells = [list(map(str, head)), *([str(cell).replace('|', '/') for cell in r] for r in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ['| ' + ' | '.join(c.ljust(w) for c, w in zip(row, widths)) + ' |' for row in cells]
    lines.insert(1, '|' + '|'.join('-' * (width + 2) for width in widths) + '|')
    return '\n'.join(lines)


def _histogram(name: str, counts: Mapping[str, Mapping[str, int]]) -> str:
    return _markdown((name, *SPLITS), ([key, *row.values()] for key, row in counts.items()))


def _readme(summary: Mapping) -> str:
    leak = summary['caption_to_package']
    return (
        '\n\n'.join(
            [
                f'# packaged_sounds, tier {summary["tier"]}',
                'Recordings that Debian packages ship, with English captions made from the text '
                'that comes with them. Each record names its package, member, licence and author.',
                _split_table(summary),
                f'Test packages of sounds: {", ".join(splits.TEST_PACKAGES)}. '
                f'Classes kept out of training: {", ".join(summary["unseen"]) or "none"}.',
                '## Packages',
                _markdown(('Debian package', 'version'), summary['packages'].items()),
                _histogram('source', summary['by_package']),
                '## Licences',
                _histogram('licence', summary['licences']),
                '## Languages of speech',
                _histogram('language', summary['languages']),
                '## Labels',
                _histogram('label', summary['labels']),
                '## Left out',
                _markdown(('reason', 'clips'), summary['dropped'].items()),
                _listed('Not decoded', [f'{s}/{m}: {why}' for s, m, why in summary['left_out']]),
                _listed(
                    'Pinned members that the package lacks',
                    [f'{name}: {m}' for name, ms in summary['missing'].items() for m in ms],
                ),
                '## Captions',
                'Do captions give away the package? A naive Bayes classifier over the words of the '
                'first caption, within classes that two packages or more have: accuracy '
                f'{leak["accuracy"]:.3f} against {leak["chance"]:.3f} for the commonest package '
                f'of the class (n = {leak["n"]}).',
                _markdown(
                    ('train label', 'clips', 'distinct captions'),
                    ([name, *row.values()] for name, row in summary['captions'].items()),
                ),
                '## Ten examples',
                *(
                    f'- `{e["id"]}` ({e["split"]}, {e["seconds"]} s): ' + ' / '.join(e['captions'])
                    for e in summary['examples']
                ),
            ]
        )
        + '\n'
    )


def _listed(title: str, lines: Sequence[str]) -> str:
    shown = '\n'.join(f'- {line}' for line in lines[:_LISTED])
    more = f'\n- ... and {len(lines) - _LISTED} more in card.json' if len(lines) > _LISTED else ''
    return f'{title}: {len(lines)}\n\n{shown}{more}' if lines else f'{title}: none'
