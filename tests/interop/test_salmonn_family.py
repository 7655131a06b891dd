"""SALMONN's parts against transformers, peft and torch; as a whole it is unproven."""

import json

import bare_packages
import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import tokenizers
import torch
import transformers

from alm_jax.interop import filling, names, pretrained, salmonn, tensor_files
from alm_jax.interop.families import salmonn as family
from alm_jax.models.connectors import QFormerConnector
from alm_jax.models.qformer import QFormer, Size
from alm_jax.training.param_names import flatten_canonical

# What peft asks of transformers.
pytestmark = pytest.mark.filterwarnings('ignore:.*deprecated and will be removed:FutureWarning')
RATE = 16_000
SPEECH = {
    'd_model': 32,
    'encoder_layers': 2,
    'encoder_attention_heads': 2,
    'encoder_ffn_dim': 50,
    'max_source_positions': 100,  # 2 s
}
SOUNDS = {
    'encoder_embed_dim': 24,
    'encoder_layers': 2,
    'encoder_attention_heads': 2,
    'encoder_ffn_embed_dim': 40,
    'embed_dim': 16,
    'conv_pos': 8,
    'conv_pos_groups': 2,
    'num_buckets': 16,
    'max_distance': 40,
    'finetuned_model': True,
}
TEXT = {
    'hidden_size': 48,
    'intermediate_size': 80,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'vocab_size': 60,
}
QFORMER = {'hidden_size': 32, 'num_attention_heads': 4, 'intermediate_size': 50}
CONFIG = {
    'audio_config': SPEECH,
    'beats_config': SOUNDS,
    'text_config': TEXT,
    'qformer_config': QFORMER,
    'lora_rank': 3,
}
WHOLE = 'llama_model.base_model.model.'


def random_tensors():
    """All tensors of the whole, under its own names."""
    module = family.module(CONFIG)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *family.inputs(CONFIG))['params']
    rng = np.random.default_rng(0)
    arrays = {
        name: (0.2 * rng.normal(size=leaf.shape) + name.endswith('scale')).astype(np.float32)
        for name, leaf in flatten_canonical(shapes).items()
    }
    return names.their_arrays(family.table(CONFIG), arrays)


def part(tensors, prefix, theirs=''):
    return {theirs + n.removeprefix(prefix): a for n, a in tensors.items() if n.startswith(prefix)}


def write(folder, tensors, config):
    tensor_files.write(folder, tensors)
    (folder / 'config.json').write_text(json.dumps(config))


@pytest.fixture(scope='module')
def assembled(tmp_path_factory):
    """(the model, all its tensors): four folders made into one."""
    tensors = random_tensors()
    root = tmp_path_factory.mktemp('salmonn')
    speech = part(tensors, 'speech_encoder.', 'model.encoder.')
    speech['model.decoder.embed_tokens.weight'] = np.zeros((2, 2), np.float32)  # is left out
    write(root / 'speech', speech, SPEECH)
    front_end = {'feature_size': 80, 'chunk_length': 2}
    (root / 'speech/preprocessor_config.json').write_text(json.dumps(front_end))
    sounds = part(tensors, 'beats.')
    sounds['predictor.weight'] = np.zeros((5, 24), np.float32)  # its tags, likewise
    write(root / 'sounds', sounds, {'model_type': 'beats', 'cfg': SOUNDS})
    text = {n: a for n, a in part(tensors, WHOLE).items() if 'lora' not in n}
    write(root / 'text', text, TEXT)
    words = {'<unk>': 0, '<s>': 1, '</s>': 2} | {f'w{i}': i for i in range(3, 60)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token='<unk>'))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(root / 'text/tokenizer.json'))
    trained = {n: a for n, a in tensors.items() if n.startswith(('ln_', 'speech_q', 'speech_l'))}
    trained |= part(tensors, 'speech_Qformer.', 'speech_Qformer.')
    trained |= {n: a for n, a in tensors.items() if 'lora' in n}
    write(root / 'trained', trained, {'qformer_config': QFORMER})
    folders = [str(root / name) for name in ('speech', 'sounds', 'text', 'trained', 'whole')]
    assert salmonn.main([*folders, '--set', 'lora_rank=3']) == 0
    return pretrained.from_pretrained(root / 'whole'), tensors


def llama(tensors):
    """transformers' Llama with peft's low-rank terms, as the original makes it."""
    peft = bare_packages.whole('peft', 'accelerate')
    config = transformers.LlamaConfig(**TEXT, rms_norm_eps=1e-6, attn_implementation='eager')
    lora = peft.LoraConfig(task_type='CAUSAL_LM', r=3, lora_alpha=32, lora_dropout=0.1)
    reference = peft.get_peft_model(transformers.LlamaForCausalLM(config), lora)
    state = part(newer_names(tensors), 'llama_model.')
    reference.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    return reference.eval()


def newer_names(tensors):
    """A kernel with a low-rank term is a base layer in today's peft; it was not in earlier ones."""
    newer = {}
    for name, array in tensors.items():
        if name.removesuffix('.weight') + '.lora_A.default.weight' in tensors:
            name = name.replace('.weight', '.base_layer.weight')
        newer[name] = array
    return newer


def qformers(memory_width, queries=3, **size):
    """(our module, its parameters, transformers' that queries in every layer, the queries)."""
    torch.manual_seed(0)
    config = transformers.Blip2QFormerConfig(
        **size,
        num_hidden_layers=2,
        encoder_hidden_size=memory_width,
        cross_attention_frequency=1,
        attn_implementation='eager',
    )
    reference = transformers.Blip2QFormerModel(config)
    parity.randomise(reference)
    rules = [*names.norm('layernorm', 'embedding_norm'), *family.qformer_table('attention')]
    rules += names.array('queries', 'queries')
    tensors = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    shape = (queries, config.hidden_size)
    tensors['queries'] = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    module = QFormer(
        family.qformer_size({'qformer_config': size, 'num_speech_query_token': queries})
    )
    memory = jnp.zeros((1, 4, memory_width))
    shapes = jax.eval_shape(module.init, jax.random.key(0), memory)['params']
    entries = names.match(rules, tensors, flatten_canonical(shapes))
    return module, filling.fill(shapes, tensors, entries), reference.eval(), tensors['queries']


def check_qformer(module, params, reference, queries, length):
    """Every layer of a padded batch, and the gradient with respect to what is queried."""
    rng = np.random.default_rng(1)
    width = reference.config.encoder_hidden_size
    memory, mask = (
        rng.normal(size=(2, length, width)).astype(np.float32),
        np.ones((2, length), bool),
    )
    mask[1, length // 2 :] = False
    queries = torch.tensor(queries).expand(2, -1, -1)

    def theirs(x, **options):
        return reference(
            queries,
            encoder_hidden_states=x,
            encoder_attention_mask=torch.tensor(mask).long(),
            **options,
        )

    def ours(x):
        return module.apply({'params': params}, x, mask)

    got = jax.jit(ours)(memory)
    want = theirs(torch.tensor(memory), output_hidden_states=True)
    pairs = {'tokens': (got['tokens'], want.last_hidden_state)}
    for i in range(2):
        pairs[f'layer {i}'] = (got['hidden'][i], want.hidden_states[i + 1])
    parity.check(pairs)
    target = rng.normal(size=got['tokens'].shape).astype(np.float32)
    parity.check_input_gradient(
        jax.jit(lambda x: ours(x)['tokens']),
        lambda x: theirs(x).last_hidden_state,
        memory,
        target,
    )


def test_qformer():
    check_qformer(*qformers(20, **QFORMER), length=7)


@pytest.mark.slow_local
def test_qformer_of_the_published_size():
    """Over a window of 17 of Whisper large's and BEATs' vectors."""
    check_qformer(*qformers(1280 + 768, queries=1), length=17)


def test_windows_are_those_of_torch():
    """Overlapping ones, the last vectors filling none."""
    x = np.random.default_rng(0).normal(size=(2, 23, 6)).astype(np.float32)
    module = QFormerConnector(5, Size(width=8, depth=1, heads=2, mlp_width=8, queries=2), 4, 3)
    everything = np.ones((2, 23), bool)
    variables = jax.jit(module.init)(jax.random.key(0), x, everything)
    apply = jax.jit(module.apply)
    out, mask = apply(variables, x, everything)
    unfolded = torch.nn.functional.unfold(torch.tensor(x).mT[:, :, None], (1, 4), stride=(1, 3))
    cut = unfolded.reshape(2, 6, 4, -1).permute(0, 3, 2, 1).reshape(-1, 4, 6).numpy()
    one_by_one, _ = apply(variables, cut, np.ones(cut.shape[:2], bool))
    np.testing.assert_allclose(out, one_by_one.reshape(2, -1, 5), atol=1e-5)
    assert mask.sum() == 2 * module.num_vectors(23) == 2 * 14


def test_a_folder_of_four_is_the_whole(assembled, tmp_path):
    model, tensors = assembled
    read = tensor_files.TensorFiles(model.folder)
    for name, array in tensors.items():
        np.testing.assert_array_equal(read[name], array)
    parity.check_round_trip(model, tmp_path / 'again')


def test_newer_names_of_peft_are_read(assembled, tmp_path):
    model, tensors = assembled
    newer = {n.replace('.default', ''): a for n, a in newer_names(tensors).items()}
    write(tmp_path, newer, dict(model.config))
    again = pretrained.from_pretrained(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)


def test_answers_are_those_of_llama_after_the_same_vectors(assembled):
    """The question in its template, the vectors in their place, and low-rank terms: 20 tokens."""
    model, tensors = assembled
    reference = llama(tensors)
    rng = np.random.default_rng(0)
    clips = [(0.3 * rng.normal(size=n)).astype(np.float32) for n in (20_000, 40_000)]
    heard = model.listen([model.windows(clip) for clip in clips])
    assert [len(vectors) for vectors in heard] == [5, 5]  # of 17 of the 100, whatever is heard
    ids = model.prompt_ids('w5 w6')
    place = ids.index(salmonn.AUDIO_ID)
    assert ids[0] == 1
    assert [i for i in ids[place:] if i > 2] == [5, 6]
    answers = model._answers(model._expanded([ids, ids], heard), 20)
    embed = reference.get_input_embeddings()
    for vectors, answer in zip(heard, answers):
        before, after = (embed(torch.tensor(part)) for part in (ids[:place], ids[place + 1 :]))
        whole = torch.cat([before, torch.tensor(vectors), after])[None]
        greedy = reference.generate(
            inputs_embeds=whole,
            attention_mask=torch.ones(whole.shape[:2]).long(),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=2,
            pad_token_id=0,
        )[0].tolist()
        assert answer == greedy[: greedy.index(2) if 2 in greedy else None]
    texts = model.generate(clips, 'w5 w6', sampling_rate=RATE, max_tokens=20)
    assert texts == model.tokenizer.decode_batch(answers)


def test_silence_behind_a_clip_is_heard_by_whisper_only(assembled):
    """Vectors of BEATs stand where the clip is, zeros behind it."""
    model, _ = assembled
    clip = (0.3 * np.random.default_rng(0).normal(size=20_000)).astype(np.float32)
    windows = model.windows(clip)
    assert windows.mel_wtf.shape == (1, 200, 208)
    assert windows.num_frames_w.tolist() == [(1 + (20_000 - 400) // 160) // 16 * 16]
    audio = model.module.audio
    program = jax.jit(audio.apply)
    outputs = program({'params': model.params['audio']}, windows.mel_wtf, windows.num_frames_w)
    count = int(windows.num_frames_w[0]) // 2
    assert outputs['tokens'].shape == (1, 100, 56)
    assert not outputs['tokens'][0, count:, 32:].any()
    assert np.abs(outputs['tokens'][0, :count, 32:]).min(axis=1).all()
