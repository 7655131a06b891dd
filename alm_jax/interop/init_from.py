"""Starting parts of a model from other weights: ``config.init_from``."""

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from alm_jax import config as config_lib
from alm_jax.interop import name_tables, packaged_weights, pretrained, tensor_files
from alm_jax.text.language_tokenizer import LanguageTokenizer
from alm_jax.training import checkpoint
from alm_jax.training.param_names import flatten_canonical, unflatten_canonical

PACKAGED = 'packaged:'
IDENTITY = 'identity'
CLASS_NAMES = 'class_names:'
EmbedText = Callable[[Any, Any, Sequence[str]], np.ndarray]
EXTRA = 'batch_stats/'  # prefix, in weight files, of names that live in that collection of extra


@dataclasses.dataclass
class Report:
    """What ``initialise`` did; names are canonical and start with the part ('audio/...').

    As text, the layers of a stack that share a fate are one line: 'text/layers/*/attn/...'.

    Attributes:
      loaded: names set from weights.
      missing: names of an initialised part that the weights lack; they keep their random start.
      unused: names in the weights that the part has no place for.
      scratch: part -> why its weights cannot be had; the part keeps its random start.
    """

    loaded: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    unused: list[str] = dataclasses.field(default_factory=list)
    scratch: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f'init_from: {len(self.loaded)} arrays loaded.']
        lines += [f'  {n}: not in the weights, starts from scratch' for n in _folded(self.missing)]
        lines += [f'  {n}: in the weights, not in the model' for n in _folded(self.unused)]
        lines += [f'  {part} STARTS FROM SCRATCH: {why}' for part, why in self.scratch.items()]
        return '\n'.join(lines)


def initialise(
    params: Any,
    extra: Any,
    spec: Mapping[str, str],
    data_dir: pathlib.Path,
    embed_text: EmbedText | None = None,
) -> tuple[Any, Any, Report]:
    """Replaces parts of a model by pretrained weights.

    A projection may start from more than a file: 'identity' keeps its encoder's space as the shared
    one, and 'class_names:yamnet' maps the classifier scores that end an audio encoder's output to
    the text embeddings of the classes' names, and the rest of it to zero. So a sound that the
    classifier knows starts near its name, and training moves on from there. A connector of one map
    may start so too.

    Args:
      params: parameter tree whose first level are the parts; jax or numpy arrays. Stacked layers
        are matched by their canonical names.
      extra: other collections ({'batch_stats': {part: ...}}), or {}.
      spec: part, or a part of one ('audio/whisper') -> 'packaged:yamnet', 'packaged:minilm',
        'packaged:smollm2', 'packaged:whisper_tiny_en', a safetensors file or a folder with one, in
        our names or those of a Hugging Face BertModel, a folder that ``from_pretrained`` reads, or
        a workdir or checkpoint of a run; or, for a linear projection, 'identity' or
        'class_names:yamnet'. Of a run the part of the same name is taken, of any other whole
        system's weights the one that fits best, such as Whisper's encoder.
      data_dir: where packaged weights are cached.
      embed_text: (params, extra, texts) -> [texts, d], for class names; they are embedded after all
        else is in place. See ``mean_token`` for language models.

    Returns:
      (params, extra, report): new trees of the same structure, dtypes and shardings.

    Raises:
      ConfigError: an unknown part, an unreadable file, weights of which no name fits, or a shape
        that differs, naming the parameter.
    """
    check_parts(params, spec)
    report = Report()
    flat = flatten_canonical(params)
    flat |= {EXTRA + key: v for key, v in flatten_canonical(extra.get('batch_stats', {})).items()}
    for part, source in sorted(spec.items(), key=lambda item: item[1].startswith(CLASS_NAMES)):
        try:
            if source == IDENTITY:
                name = _kernel(flat, part)
                weights = {name: np.eye(*flat[f'{part}/{name}'].shape)}
            elif source.startswith(CLASS_NAMES):
                # The text tower has its weights by now: class names come last.
                embed = functools.partial(embed_text, *_trees(flat, params, extra))
                classifier, name = source.removeprefix(CLASS_NAMES), _kernel(flat, part)
                shape = flat[f'{part}/{name}'].shape
                weights = {name: _class_name_head(classifier, data_dir, embed, shape, part)}
            else:
                weights = _part_that_fits(_read(source, data_dir), part, _names(flat, part))
        except packaged_weights.WeightsUnavailable as error:
            report.scratch[part] = str(error)
            continue
        flat |= _fitting(flat, _under(part, weights), part, source, report)
    return *_trees(flat, params, extra), report


def check_parts(params: Any, spec: Mapping[str, str]) -> None:
    """Raises ConfigError for a part of ``spec`` that is none of ``params``; shapes will do."""
    names = flatten_canonical(params)
    for part in spec:
        if not _names(names, part):
            hint = config_lib.did_you_mean(part, list(params))
            raise config_lib.ConfigError(f'config.init_from has {part!r}, no part. {hint}')


def _folded(names: Sequence[str]) -> list[str]:
    """'layers/*/up/kernel (30)' for those of layers that differ in their numbers alone."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(re.sub(r'/\d+/', '/*/', name), []).append(name)
    return [f'{n} ({len(own)})' if len(own) > 1 else own[0] for n, own in alike.items()]


def _trees(flat: Mapping[str, Any], params: Any, extra: Any) -> tuple[Any, Any]:
    """(params, extra) with the values of ``flat``."""
    statistics = {k.removeprefix(EXTRA): v for k, v in flat.items() if k.startswith(EXTRA)}
    params = _like(params, {k: v for k, v in flat.items() if not k.startswith(EXTRA)})
    if statistics:
        extra = dict(extra) | {'batch_stats': _like(extra['batch_stats'], statistics)}
    return params, extra


def mean_token(tokenizer: LanguageTokenizer) -> EmbedText:
    """``embed_text`` of a language model: the mean of a text's token embeddings, in lower case."""

    def embed(params, extra, texts):
        table = np.asarray(params['text']['token_embedding']['embedding'])
        ids = [tokenizer.encode([(f' {text.lower()}', False)]) for text in texts]
        return np.stack([table[own].mean(axis=0) for own in ids])

    return embed


def _kernel(flat: Mapping[str, Any], part: str) -> str:
    """The name of a part's one kernel. ConfigError when the part is more than one linear map."""
    names = sorted(_names(flat, part))
    kernels = [name for name in names if name.endswith('/kernel')]
    if len(kernels) != 1 or any(not name.endswith(('/kernel', '/bias')) for name in names):
        raise config_lib.ConfigError(
            f"config.init_from.{part} needs config.model.projection 'linear', or that connector; "
            f'this part has {", ".join(names)}.'
        )
    return kernels[0]


def _class_name_head(name, data_dir, embed_text, shape, part) -> np.ndarray:
    """A kernel whose last rows are the text embeddings of a classifier's class names."""
    classifier = _read(PACKAGED + name, data_dir).get('classifier/kernel')
    if classifier is None:
        raise config_lib.ConfigError(
            f'config.init_from.{part}: {name} is no classifier with class names; yamnet is one.'
        )
    if shape[0] != sum(classifier.shape):
        raise config_lib.ConfigError(
            f'config.init_from.{part}: the projection takes {shape[0]} features, not an embedding '
            f'of {classifier.shape[0]} and {classifier.shape[1]} class scores; set '
            f'config.model.audio to {name} and config.model.audio.scores to True.'
        )
    rows = json.loads((packaged_weights.fetch(name, data_dir) / 'classes.json').read_text())
    classes = [row['name'] for row in rows]
    kernel = np.zeros(shape, np.float32)
    kernel[-len(classes) :] = embed_text(classes)
    return kernel


def _under(part: str, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """'layer1/...' -> 'audio/layer1/...', 'batch_stats/layer1/...' -> 'batch_stats/audio/...'."""

    def name(key):
        prefix = EXTRA if key.startswith(EXTRA) else ''
        return f'{prefix}{part}/{key.removeprefix(EXTRA)}'

    return {name(key): value for key, value in weights.items()}


def _names(flat: Mapping[str, Any], part: str) -> set[str]:
    """What of ``flat`` belongs to a part, by its names within it."""
    found = [name for name in flat if name.removeprefix(EXTRA).startswith(part + '/')]
    return {name.replace(part + '/', '', 1) for name in found}


def _part_that_fits(
    weights: Mapping[str, np.ndarray], own: str, ours: set[str]
) -> Mapping[str, np.ndarray]:
    """The weights, or those under one of their first names ('encoder/') when more of these fit.

    Where as many fit, those under the part's ``own`` name are taken.
    """
    tops = sorted({name.removeprefix(EXTRA).partition('/')[0] for name in weights})
    tops = sorted({*tops, own}, key=lambda top: top != own)
    parts = []
    for top in tops:
        prefixes = (f'{top}/', f'{EXTRA}{top}/')
        within = {n: w for n, w in weights.items() if n.startswith(prefixes)}
        parts.append({name.replace(f'{top}/', '', 1): w for name, w in within.items()})
    parts.append(weights)
    return max(parts, key=lambda part: len(ours.intersection(part)))


def _fitting(flat, weights, part, source, report) -> dict[str, np.ndarray]:
    """The weights that the model has a place for; the rest goes into the report."""
    ours = {name for name in flat if name.removeprefix(EXTRA).startswith(part + '/')}
    found = [name for name in weights if name in ours]
    if not found:
        raise config_lib.ConfigError(
            f'config.init_from.{part}: no name in {source} fits the model. It has '
            f'{next(iter(weights), "nothing")}, the model {min(ours)}; is it another architecture?'
        )
    for name in found:
        if weights[name].shape != flat[name].shape:
            raise config_lib.ConfigError(
                f'config.init_from.{part}: {name} has shape {weights[name].shape} in {source} and '
                f'{flat[name].shape} in the model; set config.model.{part} to the same size.'
            )
    report.loaded += found
    report.missing += sorted(ours.difference(found))
    report.unused += [name for name in weights if name not in ours]
    return {name: weights[name].astype(flat[name].dtype) for name in found}


def _read(source: str, data_dir: pathlib.Path) -> dict[str, np.ndarray]:
    if source.startswith(PACKAGED):
        path = packaged_weights.fetch(source.removeprefix(PACKAGED), data_dir)
    else:
        path = pathlib.Path(source).expanduser()
    if (path / 'checkpoints').is_dir() or (path / checkpoint.MANIFEST).is_file():
        params, extra = checkpoint.load_params(checkpoint.resolve(path))
        statistics = flatten_canonical(extra.get('batch_stats', {}))
        return flatten_canonical(params) | {EXTRA + n: value for n, value in statistics.items()}
    if _is_of_a_family(path):
        model = pretrained.from_pretrained(path, dtype=None)
        return flatten_canonical({**model.params, **model.extra})
    file = path / 'model.safetensors' if path.is_dir() else path
    try:
        return name_tables.from_bert(tensor_files.TensorFiles(file))
    except config_lib.ConfigError as error:
        raise config_lib.ConfigError(f'init_from: {error}') from error


def _is_of_a_family(path: pathlib.Path) -> bool:
    """Whether it has a config.json; BERT's own names are read as they are, without a pooler too."""
    if not (path / 'config.json').is_file():
        return False
    return tensor_files.read_config(path).get('model_type') not in (None, 'bert')


def _like(tree: Any, flat: Mapping[str, Any]) -> Any:
    """The tree with these leaves, every one placed as the leaf it replaces."""

    def place(new, old):
        return jax.device_put(new, old.sharding) if isinstance(old, jax.Array) else np.asarray(new)

    return jax.tree.map(place, unflatten_canonical(flat, like=tree), tree)
