"""What every model that writes text has beside its weights: a tokenizer, and where texts end."""

import functools

import tokenizers

from alm_jax.config import ConfigError
from alm_jax.decoding import beam, stops, streaming
from alm_jax.decoding.generate import Writer
from alm_jax.interop import tekken, tensor_files
from alm_jax.interop.family import Pretrained


class LanguageModel(Pretrained):
    """A folder with tokenizer.json and, for some, generation_config.json."""

    @functools.cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """Of the folder: tokenizer.json or tekken.json. Raises ConfigError when there is none."""
        file = self.folder / 'tokenizer.json'
        if not file.is_file():
            if (self.folder / 'tekken.json').is_file():
                return tekken.build(self.folder / 'tekken.json')
            raise ConfigError(f'{self.folder} has no tokenizer.json; give token ids.')
        try:
            return tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise ConfigError(f'{file} is not a tokenizer.json: {error}.') from error

    @functools.cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """eos_token_id of generation_config.json, else of config.json: one or several."""
        places = (self.generation_config, self.config, self.config.get('text_config', {}))
        found = (place.get('eos_token_id') for place in places)
        stops = next((stops for stops in found if stops is not None), None)
        return tuple(stops) if isinstance(stops, list) else () if stops is None else (stops,)

    @functools.cached_property
    def generation_config(self) -> dict:
        """The content of generation_config.json, or nothing."""
        name = 'generation_config.json'
        if not (self.folder / name).is_file():
            return {}
        return tensor_files.read_config(self.folder, name)

    @functools.cached_property
    def _writer(self) -> Writer:
        """Of the part that writes."""
        return Writer(self.module, self.params, stop_ids=self.stop_ids)

    def _written(self, batch, *, stop_strings=(), beams=None, **options) -> list[str]:
        """The texts after prompts of ``decoding.generate.padded``."""
        ids, mask, first = batch
        if beams is None:
            options['stops'] = stop_strings
            return streaming.texts(self._writer, self.tokenizer, ids, mask, first=first, **options)
        found = beam.search(self._writer, ids, mask, beams=beams, first=first, **options)
        return [
            stops.cut(text, stop_strings)[0] for text in self.tokenizer.decode_batch(found.ids())
        ]
