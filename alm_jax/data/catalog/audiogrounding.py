"""AudioGrounding v2: when each phrase of a caption of AudioCaps is heard.

``times`` holds a phrase once for each of its segments, in the order of the captions; a clip with
several annotated captions is one record. A phrase that is never heard has no segment and no time.
"""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item, time, youtube, youtube_id
from alm_jax.data.catalog.files import Files
from alm_jax.data.catalog.rows import Row

_SPLITS = {'train': 'train', 'val': 'validation', 'test': 'test'}


def _items(files: Files, config: str) -> Iterator[Item]:
    for name, split in _SPLITS.items():
        clips: dict[str, list[Row]] = {}
        for _, row in files.json_rows(f'{name}.json'):
            clips.setdefault(row.text('audio_id'), []).append(row)
        for audio_id, rows in clips.items():
            clip = files.audio(audio_id, name, f'audio/{name}', 'audio', '')
            fields = {
                'captions': list(dict.fromkeys(row.text('tokens') for row in rows)),
                'times': [part for row in rows for part in _times(row)],
            }
            if video := youtube_id(audio_id):
                fields['recording_id'] = youtube(video)
            yield Item(split, audio_id, (clip,) if clip else (), fields)


def _times(row: Row) -> Iterator[dict[str, object]]:
    for phrase in row.rows('phrases'):
        try:
            segments = [(float(onset), float(offset)) for onset, offset in phrase['segments']]
        except (TypeError, ValueError) as error:
            raise phrase.error('segments', 'expected pairs of seconds') from error
        for onset, offset in segments:
            if not 0 <= onset <= offset:
                raise phrase.error('segments', 'a segment ends before it begins')
            yield time(onset, offset, phrase.text('phrase'))


DATASET = Dataset(
    name='audiogrounding',
    version='1.0.0',
    title='AudioGrounding v2',
    homepage='https://github.com/wsntxxn/TextToAudioGrounding',
    licence='as Zenodo states for the annotations; audio: AudioSet videos',
    provenance='human',
    layout='{train,val,test}.json and the audio in train/, val/ and test/\n'
    'from https://doi.org/10.5281/zenodo.7269161',
    items=_items,
)
