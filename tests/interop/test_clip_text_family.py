"""Folders of CLIP's text encoder against transformers."""

import jax
import numpy as np
import parity
import pytest
import tokenizers
import torch
import transformers

SIZE = {
    'hidden_size': 48,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'intermediate_size': 80,
    'vocab_size': 90,
    'max_position_embeddings': 24,
    'projection_dim': 20,
    'bos_token_id': 87,
    'eos_token_id': 88,
    'pad_token_id': 0,
}
BEGIN, END = 87, 88
IDS = [[BEGIN, 5, 6, 7, 8, 9, 10, 11, END], [BEGIN, 12, END], [BEGIN, 20, 21, END]]
VISION = {
    'hidden_size': 32,
    'num_hidden_layers': 1,
    'num_attention_heads': 4,
    'intermediate_size': 40,
    'image_size': 32,
    'patch_size': 16,
}
# Added tokens, whose ids are larger, come before the end: the two ways to find it differ.
ADDED = [[BEGIN, 5, 89, 7, 8, END], [BEGIN, 89, END], [BEGIN, 21, END]]
KINDS = {
    'bare': ('CLIPTextModel', {}, IDS),
    'projected': ('CLIPTextModelWithProjection', {}, ADDED),
    'legacy': ('CLIPTextModelWithProjection', {'eos_token_id': 2}, ADDED),
}


@pytest.fixture(scope='module', params=KINDS)
def pair(request, tmp_path_factory):
    kind, options, ids = KINDS[request.param]
    config = transformers.CLIPTextConfig(**{**SIZE, **options}, attn_implementation='eager')
    reference = getattr(transformers, kind)(config)
    return parity.saved(reference, tmp_path_factory.mktemp(request.param)), reference, ids


def check_intermediates(model, reference, rows, length, pad, gradient=True):
    """Every one; then the gradient with respect to the table of token embeddings."""
    ids, mask = parity.padded(rows, length, pad)
    head = 'projected' if hasattr(reference, 'text_projection') else 'pooled'

    def run(params, target):
        def loss(table):
            decoder = {**params['decoder'], 'token_embedding': {'embedding': table}}
            outputs = model.module.apply({'params': {**params, 'decoder': decoder}}, ids, mask)
            return (outputs[head] * target).sum(), outputs

        table = params['decoder']['token_embedding']['embedding']
        if not gradient:
            return loss(table)[1], None
        return jax.grad(loss, has_aux=True)(table)[::-1]

    theirs = reference(
        torch.tensor(ids).long(), torch.tensor(mask).long(), output_hidden_states=True
    )
    value = theirs.text_embeds if head == 'projected' else theirs.pooler_output
    target = np.random.default_rng(0).standard_normal(value.shape).astype(np.float32)
    ours, of_table = jax.jit(run)(model.params, target)
    pairs = {'embeddings': (ours['embeddings'], theirs.hidden_states[0])}
    for i, hidden in enumerate(theirs.hidden_states[1:]):
        pairs[f'layer {i}'] = ours['hidden'][i], hidden
    pairs['tokens'] = ours['tokens'], theirs.last_hidden_state
    masks = dict.fromkeys(pairs, mask)
    pairs[head] = ours[head], value
    if gradient:
        (value * torch.tensor(target)).sum().backward()
        pairs['table gradient'] = of_table, reference.get_input_embeddings().weight.grad
    return parity.check(pairs, masks)


def test_every_intermediate_and_the_gradient_of_a_padded_batch(pair):
    projects = hasattr(pair[1], 'text_projection')
    legacy = pair[1].config.eos_token_id == 2
    check_intermediates(*pair, 12, pad=0, gradient=projects and not legacy)


def test_it_is_written_as_it_was_read(pair, tmp_path):
    model, reference, _ = pair
    parity.check_round_trip(model, tmp_path / 'again')
    again = type(reference).from_pretrained(tmp_path / 'again')
    for name, tensor in reference.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_texts_of_a_whole_clip(tmp_path):
    """The text encoder of a folder with pictures; texts as the tokenizer.json has them."""
    config = transformers.CLIPConfig(text_config=SIZE, vision_config=VISION, projection_dim=20)
    reference = transformers.CLIPModel(config)
    model = parity.saved(reference, tmp_path / 'clip')
    words = {f'w{i}': i for i in range(90)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token='w1'))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single='w87 $A w88', special_tokens=[('w87', 87), ('w88', 88)]
    )
    tokenizer.save(str(model.folder / 'tokenizer.json'))
    texts = ['w5 w6', ' '.join(['w7', 'w8'] * 15)]
    ids, mask = parity.padded([[87, 5, 6, 88], [87, *[7, 8] * 11, 88]], 24)
    with torch.no_grad():
        theirs = reference.get_text_features(torch.tensor(ids).long(), torch.tensor(mask).long())
    theirs = torch.nn.functional.normalize(getattr(theirs, 'pooler_output', theirs), dim=-1)
    ours = model.embed_text(texts)
    parity.check({'embedding': (ours, theirs)})
    ready = model.embed_text(input_ids=ids[:1, :5], attention_mask=mask[:1, :5])
    assert np.abs(ready - ours[:1]).max() <= 1e-5


@pytest.mark.slow_local
def test_published_size(tmp_path):
    """openai/clip-vit-base-patch32."""
    reference = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig())
    model = parity.saved(reference, tmp_path / 'saved')
    rng = np.random.default_rng(0)
    rows = [[49406, *rng.integers(5, 49_000, n).tolist(), 49407] for n in (60, 7)]
    check_intermediates(model, reference, rows, 77, 49407)
