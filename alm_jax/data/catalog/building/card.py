"""The card beside prepared data (README.md and card.json) and the metadata that TFDS reads."""

import collections
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_info, naming, splits

from alm_jax.data.catalog.building import shards
from alm_jax.data.catalog.declaration import Dataset

JSON_NAME = 'card.json'
LEFT_OUT = 'left_out.jsonl'
_FILE_FORMAT = 'array_record'


def split_summary(results: list[Mapping[str, Any]], missing: int) -> dict[str, Any]:
    """What the card says of one split, from the results of its shards."""
    samples: collections.Counter = collections.Counter()
    for result in results:
        samples.update({int(rate): count for rate, count in result['samples'].items()})
    return {
        'records': sum(result['records'] for result in results),
        'hours': round(sum(count / rate for rate, count in samples.items()) / 3600, 4),
        'hours_by_rate': {
            str(rate): round(count / rate / 3600, 4) for rate, count in sorted(samples.items())
        },
        'bytes': sum(result['bytes'] for result in results),
        'missing': missing,
        'unusable': sum(len(result['unusable']) for result in results),
        'shards': [result['records'] for result in results],
        'shard_bytes': [result['bytes'] for result in results],
    }


def write(
    folder: pathlib.Path,
    dataset: Dataset,
    config: str,
    *,
    options: Mapping[str, Any],
    by_split: Mapping[str, Any],
    all_splits: bool,
) -> None:
    """Writes TFDS's metadata, README.md, and card.json last: it makes the dataset complete."""
    summary = {
        'dataset': dataset.name,
        'config': config,
        'version': dataset.version,
        'title': dataset.title,
        'homepage': dataset.homepage,
        'licence': dataset.licence,
        'provenance': dataset.provenance,
        'options': dict(options),
        'all_splits': all_splits,
        'splits': dict(sorted(by_split.items())),
    }
    _write_info(folder, dataset, config, summary['splits'])
    shards.write_text(folder / 'README.md', _readme(summary))
    text = json.dumps(summary, indent=1, ensure_ascii=False)
    shards.write_text(folder / JSON_NAME, text + '\n')


def read(folder: pathlib.Path) -> dict[str, Any]:
    """The card of a prepared dataset, {} when there is none."""
    try:
        return json.loads((folder / JSON_NAME).read_text(encoding='utf-8'))
    except FileNotFoundError:
        return {}


def table(summary: Mapping[str, Any]) -> str:
    """Splits of a card as a table in Markdown."""
    lines = ['| split | records | hours | MB | missing | unusable |', '|---|---|---|---|---|---|']
    for name, split in summary['splits'].items():
        cells = (
            *(name, f'{split["records"]:,}', f'{split["hours"]:,.2f}'),
            *(f'{split["bytes"] / 1e6:,.1f}', f'{split["missing"]:,}', f'{split["unusable"]:,}'),
        )
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def _readme(summary: Mapping[str, Any]) -> str:
    options = summary['options']
    rate = f'{options["sampling_rate"]} Hz' if options['sampling_rate'] else 'the files own rates'
    left_out = sum(s['missing'] + s['unusable'] for s in summary['splits'].values())
    config = f', config {summary["config"]}' if summary['config'] else ''
    return (
        f'# {summary["title"]}\n\n'
        f'Prepared by alm_jax as `{summary["dataset"]}`{config}, version {summary["version"]}, '
        f'from the official distribution: {summary["homepage"]}\n\n'
        f'- Licence: {summary["licence"]}\n'
        f'- Text: {summary["provenance"]}\n'
        f'- Audio: mono, 16 bits, at {rate}, stored as {options["storage"]}\n\n'
        f'{table(summary)}\n\n'
        + (
            f'**{left_out:,} listed records are not here**: "missing" had no audio on disk, '
            f'"unusable" had audio that cannot be decoded. `{LEFT_OUT}` names each.\n\n'
            if left_out
            else 'All listed records are here.\n\n'
        )
        + 'Records: `features.json`. Planning columns: `index-SPLIT.arrow`. '
        'SHA-256 of every shard and index: `checksums.json`.\n'
    )


def _write_info(folder: pathlib.Path, dataset: Dataset, config: str, by_split: Mapping) -> None:
    identity = dataset_info.DatasetIdentity(
        name=dataset.name,
        version=tfds.core.Version(dataset.version),
        data_dir=str(folder),
        module_name=f'alm_jax.data.catalog.{dataset.name}',
        config_name=config or None,
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description=dataset.title,
        features=shards.features(),
        homepage=dataset.homepage,
        license=dataset.licence,
        disable_shuffling=True,
    )
    info.set_file_format(_FILE_FORMAT)
    template = naming.ShardedFileTemplate(
        data_dir=folder, dataset_name=dataset.name, filetype_suffix=_FILE_FORMAT
    )
    infos = [
        splits.SplitInfo(
            name=name,
            shard_lengths=split['shards'],
            num_bytes=split['bytes'],
            filename_template=template.replace(split=name),
        )
        for name, split in sorted(by_split.items())
        if split['records']
    ]
    info.set_splits(splits.SplitDict(infos))
    info.write_to_directory(folder)
