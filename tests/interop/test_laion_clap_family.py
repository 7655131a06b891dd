"""LAION-CLAP's own layout, fused and unfused, against the modules of laion-clap."""

import json
import types

import bare_packages
import jax
import numpy as np
import parity
import pytest
import torch
import transformers
from safetensors.torch import save_file

import alm_jax
from alm_jax.interop import from_torch

pytestmark = pytest.mark.filterwarnings('ignore:torch.meshgrid')  # the package's call
WIDTH, DEPTHS, HEADS, IMAGE, BINS, JOINT = 16, [2, 2], [2, 4], 128, 32, 24
IDS = [[0, 5, 6, 7, 2], [0, 12, 2], [0, 30, 31, 32, 33, 34, 2]]
SECONDS = 5


@pytest.fixture(scope='module')
def library():
    """(htsat, model): modules of laion_clap.clap_module."""
    packages = ('laion_clap', 'laion_clap.clap_module', 'torchvision', 'torchvision.ops')
    packages += ('torchlibrosa', 'h5py')
    return tuple(
        bare_packages.module(f'laion_clap.clap_module.{name}', *packages)
        for name in ('htsat', 'model')
    )


def reference(library, monkeypatch, fusion, depths=DEPTHS, size=None, text=None):
    """CLAP of the package with towers of these sizes, and statistics as after training."""
    htsat, model = library
    torch.manual_seed(0)
    audio = types.SimpleNamespace(
        model_type='HTSAT',
        mel_bins=BINS if size is None else 64,
        window_size=1024,
        hop_size=480,
        sample_rate=48_000,
        fmin=50,
        fmax=14_000,
        class_num=5,
    )
    kind = 'aff_2d' if fusion else 'None'
    size = size or {'spec_size': IMAGE, 'embed_dim': WIDTH, 'num_heads': HEADS}
    encoder = htsat.HTSAT_Swin_Transformer(
        **size, depths=depths, num_classes=5, config=audio, enable_fusion=fusion, fusion_type=kind
    )
    text = text or {'num_hidden_layers': 1, 'intermediate_size': 50, 'vocab_size': 80}
    config = transformers.RobertaConfig(
        **text, layer_norm_eps=1e-5, type_vocab_size=1, max_position_embeddings=514
    )
    roberta = transformers.RobertaModel(config)
    monkeypatch.setattr(model, 'create_htsat_model', lambda *_: encoder)
    monkeypatch.setattr(
        model, 'RobertaModel', types.SimpleNamespace(from_pretrained=lambda _: roberta)
    )
    texts = model.CLAPTextCfg(77, 80, 768, 12, 1, 'roberta')
    joint = JOINT if len(depths) == 2 else 512
    made = model.CLAP(encoder.num_features, audio, texts, joint_embed_shape=joint)
    parity.randomise(made)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.5, 2)
    # Buffers and constants of the front end are no weights.
    with torch.no_grad():
        fresh = htsat.HTSAT_Swin_Transformer(
            **size, depths=depths, num_classes=5, config=audio
        ).state_dict()
        for name, tensor in encoder.state_dict().items():
            if 'extractor' in name:
                tensor.copy_(fresh[name])
    return made.eval()


def fused(mel, longer):
    """What get_audio_embedding takes for ready spectrograms."""
    return [{'mel_fusion': torch.tensor(m), 'longer': torch.tensor(x)} for m, x in zip(mel, longer)]


def saved(made, folder, **config):
    """The folder that from_torch writes of its state_dict."""
    tensors = {name: t.clone().contiguous() for name, t in made.state_dict().items()}
    save_file(tensors, folder / 'model.safetensors')
    written = {'model_type': 'laion_clap', **config}
    (folder / 'config.json').write_text(json.dumps(written))
    return alm_jax.load(folder)


@pytest.fixture(scope='module', params=[False, True], ids=['unfused', 'fused'])
def pair(request, library, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        made = reference(library, patch, request.param)
    folder = tmp_path_factory.mktemp('laion')
    features = {'truncation': 'fusion' if request.param else 'rand_trunc', 'max_length_s': SECONDS}
    features |= {'feature_size': BINS, 'frequency_min': 50}
    (folder / 'preprocessor_config.json').write_text(json.dumps(features))
    audio = {'patch_embeds_hidden_size': WIDTH, 'depths': DEPTHS, 'num_attention_heads': HEADS}
    audio |= {'spec_size': IMAGE, 'num_mel_bins': BINS}
    text = {'num_hidden_layers': 1, 'intermediate_size': 50, 'vocab_size': 80}
    options = {'audio_config': audio, 'text_config': text, 'projection_dim': JOINT}
    return saved(made, folder, enable_fusion=request.param, **options), made


def test_texts(pair):
    model, made = pair
    ids, mask = parity.padded(IDS, 9, 1)
    given = {'input_ids': torch.tensor(ids).long(), 'attention_mask': torch.tensor(mask).long()}
    theirs = made.get_text_embedding(given)
    ours = model.embed_text(input_ids=ids, attention_mask=mask)
    parity.check({'text': (ours, theirs)})


def test_waveforms_and_stages(pair):
    """Unfused, the package's model makes the spectrograms itself; fused, it is given them."""
    model, made = pair
    generator = np.random.default_rng(0)
    hidden = {}
    hooks = [
        layer.register_forward_hook(lambda _, x, y, i=i: hidden.update({f'stage_{i}': y[0]}))
        for i, layer in enumerate(made.audio_branch.layers)
    ]
    if model.module.audio.fusion:
        mel = generator.normal(-20, 10, (3, 4, 500, BINS)).astype(np.float32)
        longer = np.array([False, True, False])
        theirs = made.get_audio_embedding(
            [
                {'mel_fusion': torch.tensor(m), 'longer': torch.tensor(x)}
                for m, x in zip(mel, longer)
            ]
        )
        ours = model.embed_audio(input_features=mel, is_longer=longer)
    else:
        clips = [generator.normal(0, 0.1, n).astype(np.float32) for n in (240_000, 100_000)]
        filled = [np.pad(np.tile(x, 240_000 // len(x)), (0, 240_000 % len(x))) for x in clips]
        theirs = made.get_audio_embedding([{'waveform': torch.tensor(x)} for x in filled])
        ours = model.embed_audio(clips, sampling_rate=48_000)
    for hook in hooks:
        hook.remove()
    pairs = {'audio': (ours, theirs)}
    if model.module.audio.fusion:
        variables = {name: tree['audio'] for name, tree in model.extra.items()}
        variables |= {'params': model.params['audio']}
        outputs = jax.jit(model.module.audio.apply)(variables, mel, longer_b=longer)
        for name, stage in hidden.items():
            pairs[name] = np.asarray(outputs[name]).reshape(stage.shape), stage
    parity.check(pairs)


def test_scales_and_round_trip(pair, tmp_path):
    model, made = pair
    scales = [(model.params['logit_scale'], made.logit_scale_a)]
    scales.append((model.params['text_logit_scale'], made.logit_scale_t))
    parity.check({str(i): pair for i, pair in enumerate(scales)})
    parity.check_round_trip(model, tmp_path / 'again')


@pytest.mark.slow_local
@pytest.mark.parametrize(
    ('amodel', 'width', 'depths', 'fusion'),
    [('HTSAT-tiny', 96, [2, 2, 6, 2], True), ('HTSAT-base', 128, [2, 2, 12, 2], False)],
)
def test_published_size(library, monkeypatch, tmp_path, amodel, width, depths, fusion):
    """With roberta-base, from a .pt file as the package's, whose tensors say which towers."""
    size = {'spec_size': 256, 'embed_dim': width, 'num_heads': [4, 8, 16, 32]}
    text = {'vocab_size': 50_265}
    made = reference(library, monkeypatch, fusion, depths, size, text)
    state = {f'module.{name}': tensor for name, tensor in made.state_dict().items()}
    torch.save({'state_dict': state, 'epoch': 3, 'best': np.float64(0.5)}, tmp_path / 'best.pt')
    words = [str(tmp_path / 'best.pt'), str(tmp_path / 'clap'), '--model_type=laion_clap']
    assert from_torch.main(words) == 0
    model = alm_jax.load(tmp_path / 'clap')
    assert (model.config['amodel'], model.config['enable_fusion']) == (amodel, fusion)
    ids, mask = parity.padded(IDS, 9, 1)
    given = {'input_ids': torch.tensor(ids).long(), 'attention_mask': torch.tensor(mask).long()}
    generator = np.random.default_rng(0)
    if fusion:
        mel = generator.normal(-20, 10, (2, 4, 1001, 64)).astype(np.float32)
        longer = np.array([False, True])
        inputs = [
            {'mel_fusion': torch.tensor(m), 'longer': torch.tensor(x)} for m, x in zip(mel, longer)
        ]
        ours = model.embed_audio(input_features=mel, is_longer=longer)
    else:
        x = generator.normal(0, 0.1, 480_000).astype(np.float32)
        inputs = [{'waveform': torch.tensor(x)}]
        ours = model.embed_audio(x, sampling_rate=48_000)
    with torch.no_grad():
        theirs = made.get_audio_embedding(inputs)
        texts = made.get_text_embedding(given)
    parity.check(
        {
            'audio': (ours, theirs),
            'text': (model.embed_text(input_ids=ids, attention_mask=mask), texts),
        }
    )
