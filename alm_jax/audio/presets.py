"""Front ends: every constant that turns a waveform into a log-mel spectrogram, under one name.

``log_mel.py`` (numpy) and ``log_mel_device.py`` (jnp) read the same constants, and
``front_end_sha256`` names them in every score and checkpoint.
"""

import dataclasses
import hashlib
import json
import math
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """The definition of one log-mel spectrogram: [n] samples at ``sampling_rate`` -> [t, n_mels].

    Per frame: optional DC removal and pre-emphasis, Hann window or a power of it, real FFT of
    ``n_fft`` points, |X| ** ``power``, mel bands, logarithm of ``max(mel, floor) + offset``, then
    ``(value - mean) / scale``.

    Frames. A centred front end puts frame i around sample i * hop_length and reflects the signal at
    both ends of the window it is given (the window, not the clip: a clip shorter than its window is
    zero-padded first, as the reference extractors do). The others start frame i at
    i * hop_length and drop the tail that fills no frame (Kaldi's snip_edges). Either way a clip
    that is shorter than one FFT is zero-padded to it, and a clip has at least one frame.

    Attributes:
      sampling_rate: Hz.
      win_length, n_fft, hop_length: samples.
      f_min, f_max: Hz, the outer edges of the mel bands.
      mel: 'slaney' (Slaney's scale, triangles linear in Hz, unit area) or 'htk' (2595 log10(1 +
        f / 700), triangles linear in mel, unit peak, as Kaldi and TensorFlow build them); 'htk_hz'
        is the same scale with triangles linear in Hz, as torchaudio builds them.
      centred: see above.
      drop_last: whether a centred spectrogram leaves out its last frame, as Whisper does.
      symmetric_window: Hann over win_length - 1 intervals (Kaldi) instead of the periodic one.
      window_power: the window is raised to it; 0.85 makes Kaldi's own, the Povey window.
      remove_dc: subtract each frame's mean.
      preemphasis: coefficient within the frame, 0 for none; the sample before the first repeats it.
      power: 1 for magnitude, 2 for power.
      floor, offset: see above; in units of the mel band.
      log: 'db' (10 log10), 'log10' or 'ln'.
      dynamic_range: values are raised to the spectrogram's maximum less this, per window; None for
        no limit. In units of ``log``.
      mean, scale: see above; in units of ``log``.
      beside: another spectrogram of the same signal, whose bands stand behind these. Its frames are
        those with the same numbers; where it has none stand zeros.
    """

    name: str
    sampling_rate: int
    win_length: int
    n_fft: int
    hop_length: int
    n_mels: int
    f_min: float
    f_max: float
    mel: Literal['slaney', 'htk', 'htk_hz']
    log: Literal['db', 'log10', 'ln']
    centred: bool = False
    drop_last: bool = False
    symmetric_window: bool = False
    window_power: float = 1.0
    remove_dc: bool = False
    preemphasis: float = 0.0
    power: int = 2
    floor: float = 0.0
    offset: float = 0.0
    dynamic_range: float | None = None
    mean: float = 0.0
    scale: float = 1.0
    beside: 'FrontEnd | None' = None

    @property
    def bands(self) -> int:
        """Of the result: ``n_mels`` and those of what is beside."""
        return self.n_mels + (self.beside.bands if self.beside else 0)

    def num_frames(self, num_samples: Any) -> Any:
        """Frames of a clip of ``num_samples`` (an int, or an integer array of numpy or jax).

        It is both the length of ``log_mel``'s output for a window of that many samples and, for a
        clip padded into a longer window, the number of leading frames that belong to the clip.
        """
        if self.centred:
            frames = num_samples // self.hop_length + (0 if self.drop_last else 1)
        else:
            frames = (num_samples - self.win_length) // self.hop_length + 1
        return max(frames, 1) if isinstance(frames, int) else frames.clip(1)


_PCM16 = 2.0**15  # some models' waveforms are in units of int16, ours in [-1, 1]
_WHISPER = FrontEnd(
    name='whisper_80',
    sampling_rate=16000,
    win_length=400,
    n_fft=400,
    hop_length=160,
    n_mels=80,
    f_min=0.0,
    f_max=8000.0,
    mel='slaney',
    log='log10',
    centred=True,
    drop_last=True,
    floor=1e-10,
    dynamic_range=8.0,
    mean=-4.0,
    scale=4.0,
)

PRESETS: dict[str, FrontEnd] = {
    # transformers ClapFeatureExtractor without fusion (laion/clap-htsat-unfused).
    'clap': FrontEnd(
        name='clap',
        sampling_rate=48000,
        win_length=1024,
        n_fft=1024,
        hop_length=480,
        n_mels=64,
        f_min=50.0,
        f_max=14000.0,
        mel='slaney',
        log='db',
        centred=True,
        floor=1e-10,
    ),
    # transformers WhisperFeatureExtractor; 128 mels from large-v3 on.
    'whisper_80': _WHISPER,
    'whisper_128': dataclasses.replace(_WHISPER, name='whisper_128', n_mels=128),
    # transformers ASTFeatureExtractor: Kaldi's fbank with a Hann window, AudioSet mean and 2 sigma.
    'fbank': FrontEnd(
        name='fbank',
        sampling_rate=16000,
        win_length=400,
        n_fft=512,
        hop_length=160,
        n_mels=128,
        f_min=20.0,
        f_max=8000.0,
        mel='htk',
        log='ln',
        symmetric_window=True,
        remove_dc=True,
        preemphasis=0.97,
        floor=1.192092955078125e-07,  # f32 epsilon
        mean=-4.2677393,
        scale=2 * 4.5689974,
    ),
    # BEATs (speechbrain's beats.py): torchaudio's Kaldi fbank of int16 units, its mean and 2 sigma.
    # The factor on the waveform is a constant on the logarithm, and divides the floor.
    'beats': FrontEnd(
        name='beats',
        sampling_rate=16000,
        win_length=400,
        n_fft=512,
        hop_length=160,
        n_mels=128,
        f_min=20.0,
        f_max=8000.0,
        mel='htk',
        log='ln',
        symmetric_window=True,
        window_power=0.85,
        remove_dc=True,
        preemphasis=0.97,
        floor=1.192092955078125e-07 / _PCM16**2,
        mean=15.41663 - 2 * math.log(_PCM16),
        scale=2 * 6.55582,
    ),
    # transformers SeamlessM4TFeatureExtractor (w2v-BERT 2.0), before each clip's own normalisation.
    'w2v_bert': FrontEnd(
        name='w2v_bert',
        sampling_rate=16000,
        win_length=400,
        n_fft=512,
        hop_length=160,
        n_mels=80,
        f_min=20.0,
        f_max=8000.0,
        mel='htk',
        log='ln',
        symmetric_window=True,
        window_power=0.85,
        remove_dc=True,
        preemphasis=0.97,
        floor=1.192092955078125e-07 / _PCM16**2,
        mean=-2 * math.log(_PCM16),
    ),
    # panns-inference Cnn14 (torchlibrosa): librosa's power_to_db without its range limit.
    'cnn14': FrontEnd(
        name='cnn14',
        sampling_rate=32000,
        win_length=1024,
        n_fft=1024,
        hop_length=320,
        n_mels=64,
        f_min=50.0,
        f_max=14000.0,
        mel='slaney',
        log='db',
        centred=True,
        floor=1e-10,
    ),
    # hear21passt AugmentMelSTFT without augmentation, of a signal after x[n + 1] - 0.97 x[n].
    'passt': FrontEnd(
        name='passt',
        sampling_rate=32000,
        win_length=800,
        n_fft=1024,
        hop_length=320,
        n_mels=128,
        f_min=0.0,
        f_max=15000.0,
        mel='htk',
        log='ln',
        centred=True,
        symmetric_window=True,
        offset=1e-5,
        mean=-4.5,
        scale=5.0,
    ),
    # tensorflow/models research/audioset/yamnet/{params,features}.py.
    'yamnet': FrontEnd(
        name='yamnet',
        sampling_rate=16000,
        win_length=400,
        n_fft=512,
        hop_length=160,
        n_mels=64,
        f_min=125.0,
        f_max=7500.0,
        mel='htk',
        log='ln',
        power=1,
        offset=0.001,
    ),
    # AF-CLAP of Audio Flamingo 2, HTS-AT at 16 kHz (arXiv:2503.03983, section 3.1).
    'af_clap': FrontEnd(
        name='af_clap',
        sampling_rate=16000,
        win_length=1024,
        n_fft=1024,
        hop_length=160,
        n_mels=64,
        f_min=50.0,
        f_max=8000.0,
        mel='slaney',
        log='db',
        centred=True,
        floor=1e-10,
    ),
}
# SALMONN's encoders side by side (arXiv:2310.13289, section 3.1).
PRESETS['salmonn'] = dataclasses.replace(_WHISPER, name='salmonn', beside=PRESETS['beats'])


def front_end_sha256(front_end: FrontEnd, **context: Any) -> str:
    """SHA-256 (hex) of every constant of ``front_end`` and of ``context``, as sorted JSON.

    Args:
      front_end: the constants.
      **context: what else decides the features of a clip, such as ``seconds=5.0`` (the window) and
        ``policy='windows'`` (how a long clip is cut); JSON types only.
    """
    constants = dataclasses.asdict(front_end)
    for name, default in (('window_power', 1.0), ('beside', None)):  # younger than published hashes
        if constants[name] == default:
            del constants[name]
    content = {'front_end': constants, **context}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
