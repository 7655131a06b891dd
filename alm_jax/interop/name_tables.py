"""Other people's parameter names in ours (canonical, unstacked), one table a family."""

import re
from collections.abc import Mapping

import numpy as np

# Hugging Face BertModel -> ours; {} is a layer number. A Linear's weight is transposed.
_BERT = {
    'embeddings.word_embeddings.weight': 'word_embedding/embedding',
    'embeddings.position_embeddings.weight': 'position_embedding/embedding',
    'embeddings.token_type_embeddings.weight': 'type_embedding/embedding',
    'embeddings.LayerNorm': 'embedding_norm',
    'encoder.layer.{}.attention.self.query': 'layers/{}/attn/query',
    'encoder.layer.{}.attention.self.key': 'layers/{}/attn/key',
    'encoder.layer.{}.attention.self.value': 'layers/{}/attn/value',
    'encoder.layer.{}.attention.output.dense': 'layers/{}/attn/out',
    'encoder.layer.{}.attention.output.LayerNorm': 'layers/{}/attn_norm',
    'encoder.layer.{}.intermediate.dense': 'layers/{}/mlp/up',
    'encoder.layer.{}.output.dense': 'layers/{}/mlp/down',
    'encoder.layer.{}.output.LayerNorm': 'layers/{}/mlp_norm',
}
# sentence-transformers pools by a mean: BERT's own pooler and its position numbers have no use.
_BERT_UNUSED = re.compile(r'pooler\.dense\.(weight|bias)|embeddings\.position_ids')

_YAMNET_LAYER = 'layer-1/layer/_func/_yamnet/layer_with_weights-{}/{}/.ATTRIBUTES/VARIABLE_VALUE'
_YAMNET_NORM = {
    'beta': '{}/norm/bias',
    'moving_mean': 'batch_stats/{}/norm/mean',
    'moving_variance': 'batch_stats/{}/norm/var',
}


def from_bert(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A Hugging Face BertModel's tensors under the names of models.text.bert.Bert.

    Names this table does not know are kept as they are, so that whoever loads lists them.
    """
    ours = {}
    for name, value in tensors.items():
        name = name.removeprefix('bert.')
        if not _BERT_UNUSED.fullmatch(name):
            new_name, transpose = _bert_name(name)
            ours[new_name] = np.ascontiguousarray(value.T) if transpose else value
    return ours


def _bert_name(name: str) -> tuple[str, bool]:
    if name in _BERT:
        return _BERT[name], False
    number = re.search(r'\.(\d+)\.', name)
    module, _, leaf = re.sub(r'\.\d+\.', '.{}.', name, count=1).rpartition('.')
    if module not in _BERT:
        return name, False
    norm = module.endswith('LayerNorm')
    leaf = 'bias' if leaf == 'bias' else 'scale' if norm else 'kernel'
    target = _BERT[module].format(number[1] if number else '')
    return f'{target}/{leaf}', leaf == 'kernel'


def from_yamnet(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The SavedModel variables of YAMNet under the names of models.audio.yamnet.YamNet.

    Keras numbers the layers that have weights in order: convolution and batch norm alternate,
    and the classifier is last. Batch-norm statistics get the prefix 'batch_stats/'.

    Raises:
      KeyError: for a variable that is missing.
    """
    convs = ['layer1']
    convs += [f'layer{i}_{part}' for i in range(2, 15) for part in ('depthwise', 'pointwise')]
    ours = {}
    for i, name in enumerate(convs):
        if name.endswith('depthwise'):
            kernel = variables[_YAMNET_LAYER.format(2 * i, 'depthwise_kernel')]
            kernel = kernel.transpose(0, 1, 3, 2)
        else:
            kernel = variables[_YAMNET_LAYER.format(2 * i, 'kernel')]
        ours[f'{name}/kernel'] = kernel[0, 0] if name.endswith('pointwise') else kernel
        for theirs, template in _YAMNET_NORM.items():
            ours[template.format(name)] = variables[_YAMNET_LAYER.format(2 * i + 1, theirs)]
    for leaf in ('kernel', 'bias'):
        ours[f'classifier/{leaf}'] = variables[_YAMNET_LAYER.format(2 * len(convs), leaf)]
    return {name: np.ascontiguousarray(value) for name, value in ours.items()}
