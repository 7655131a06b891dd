"""What the tests of dialogues share: a tokenizer, a table of vectors, a config."""

import chat_templates
import numpy as np

from alm_jax import config as config_lib
from alm_jax.data import dialogue_rows

RATE, WINDOW = 16_000, 16_000
VECTORS = ((np.arange(101) + 7) // 8).astype(np.int32)  # of 100 frames a second
TOKENIZER = chat_templates.byte_level()
FRONT_END = {'sampling_rate': RATE, 'window_samples': WINDOW}


def make_config(recordings):
    """Captions of real recordings, written as chats."""
    config = config_lib.base()
    config.batch_size = 4
    config.text.lengths = (128,)
    config.front_end.preset = 'whisper_80'
    config.front_end.seconds = 1.0
    config.data.workers = 0
    config.data.text.dialogue = 'chat'
    config.data.train = ({'folder': str(recordings), 'captions': 'captions.csv'},)
    return config


def rows_of(config, vectors_of_frames=VECTORS):
    """What makes the rows of a config."""
    return dialogue_rows.build(
        config, **FRONT_END, tokenizer=TOKENIZER, vectors_of_frames=vectors_of_frames
    )
