"""No pickle anywhere, nor what else makes code of data: every file of the program is searched.

The look is at its syntax, not its text: a comment may say pickle, an import may not.
"""

import ast
import json
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = ('alm_jax', 'configs', 'launch', 'benchmarks', 'notebooks')

MODULES = {'pickle', 'cPickle', '_pickle', 'cloudpickle', 'dill', 'joblib', 'marshal', 'shelve'}
BUILTINS = {'eval', 'exec', 'compile', '__import__'}
# Attributes that are one of these whatever they are called on.
ATTRIBUTES = {
    **dict.fromkeys(('read_pickle', 'to_pickle', 'serialize_executable'), 'pickle'),
    **dict.fromkeys(('extractall', 'extract', 'unpack_archive'), 'a member becomes a path'),
    **dict.fromkeys(('full_load', 'unsafe_load', 'UnsafeLoader', 'FullLoader'), 'yaml objects'),
    **dict.fromkeys(('ProcessPoolExecutor', 'Manager', 'SimpleQueue'), 'pickle between processes'),
    **dict.fromkeys(('Process', 'Pipe', 'recv'), 'pickle between processes'),
}
KEYWORDS = {'allow_pickle': True, 'trust_remote_code': True, 'weights_only': False, 'shell': True}

# What goes between a process and the children it has started itself is never from a file, a socket
# or the network: whoever could write into that pipe could write into the process.
OWN_CHILDREN = 'functions and dataclasses of ours, to children of ours, over an anonymous pipe'
ALLOWED = {
    ('alm_jax/data/catalog/building/runners.py', 'ProcessPoolExecutor'): OWN_CHILDREN,
    ('alm_jax/data/catalog/packaged_sounds/decoding.py', 'ProcessPoolExecutor'): OWN_CHILDREN,
    ('alm_jax/data/hygiene/workers.py', 'ProcessPoolExecutor'): OWN_CHILDREN,
    ('alm_jax/data/inputs/containers.py', 'ProcessPoolExecutor'): OWN_CHILDREN,
    ('benchmarks/input_pipeline.py', 'Process'): OWN_CHILDREN,
    ('benchmarks/input_pipeline.py', 'Pipe'): OWN_CHILDREN,
    ('benchmarks/input_pipeline.py', 'recv'): OWN_CHILDREN,
    ('alm_jax/data/workers.py', 'Pipe'): 'bytes only: send_bytes and recv_bytes of JSON',
    ('alm_jax/data/catalog/plain_yaml.py', 'yaml.load'): 'its loader is CSafeLoader or SafeLoader',
}


def findings(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """(line, name, why) of everything in a module that is not allowed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or '', *(f'{node.module}.{alias.name}' for alias in node.names)]
        else:
            names = []
        for name in names:
            for part in name.split('.'):
                if part in MODULES:
                    yield node.lineno, part, 'pickle'
                elif part in ATTRIBUTES:
                    yield node.lineno, part, ATTRIBUTES[part]
        if isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES and not of_psutil(node):
            yield node.lineno, node.attr, ATTRIBUTES[node.attr]
        if isinstance(node, ast.Constant) and node.value in MODULES:  # import_module('pickle')
            yield node.lineno, node.value, 'pickle'
        if isinstance(node, ast.Call):
            yield from called(node)


def of_psutil(node: ast.Attribute) -> bool:
    """psutil.Process looks at a process and starts none."""
    return isinstance(node.value, ast.Name) and node.value.id == 'psutil'


def called(call: ast.Call) -> Iterator[tuple[int, str, str]]:
    """What is wrong with a call."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    for name, wrong in KEYWORDS.items():
        if name in given and not is_constant(given[name], not wrong):
            yield call.lineno, name, f'is not {not wrong}'
    if isinstance(call.func, ast.Name) and call.func.id in BUILTINS:
        yield call.lineno, call.func.id, 'runs a text'
    if not isinstance(call.func, ast.Attribute) or not isinstance(call.func.value, ast.Name):
        return
    owner, name = call.func.value.id, call.func.attr
    if owner in ('np', 'numpy') and name == 'load' and 'allow_pickle' not in given:
        yield call.lineno, 'np.load', 'says nothing of allow_pickle'
    if owner == 'torch' and name == 'load' and 'weights_only' not in given:
        yield call.lineno, 'torch.load', 'says nothing of weights_only'
    if owner == 'yaml' and name in ('load', 'load_all'):
        loader = ast.unparse([*call.args[1:], *given.values(), ast.Constant('')][0])
        if loader not in ('yaml.SafeLoader', 'yaml.CSafeLoader'):
            yield call.lineno, 'yaml.load', f'has the loader {loader}'
    if owner == 'os' and name == 'system':
        yield call.lineno, 'os.system', 'runs a text'
    if owner == 'jinja2' and name in ('Environment', 'Template'):
        yield call.lineno, f'jinja2.{name}', 'is no sandbox'


def is_constant(node: ast.AST, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def modules() -> Iterator[tuple[str, ast.AST]]:
    """(path, syntax) of every Python file of the program, and of every notebook's code."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob('*.py')):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding='utf-8'))
        for path in sorted((ROOT / folder).rglob('*.ipynb')):
            cells = json.loads(path.read_text(encoding='utf-8'))['cells']
            lines = [
                line
                for cell in cells
                if cell['cell_type'] == 'code'
                for line in ''.join(cell['source']).splitlines()
                if not line.lstrip().startswith(('!', '%'))
            ]
            yield path.relative_to(ROOT).as_posix(), ast.parse('\n'.join(lines))


def test_nothing_in_the_program_makes_code_of_data():
    found, used, count = [], set(), 0
    for path, tree in modules():
        count += 1
        for line, name, why in findings(tree):
            if (path, name) in ALLOWED:
                used.add((path, name))
            else:
                found.append(f'{path}:{line}: {name} ({why})')
    assert count > 300
    assert found == []
    assert set(ALLOWED) == used, 'an exception that nothing needs any more'


BAD = [
    'import pickle',
    'import cloudpickle as p',
    'from multiprocessing.reduction import pickle',
    'from joblib import load',
    "importlib.import_module('dill')",
    "sys.modules['marshal'].loads(x)",
    'import shelve',
    'eval(text)',
    'exec(text)',
    'compile(text, name, "exec")',
    'np.load(file)',
    'np.load(file, allow_pickle=True)',
    'numpy.load(file, mmap_mode="r")',
    'np.load(file, allow_pickle=flag)',
    'np.save(file, x, allow_pickle=True)',
    'torch.load(file)',
    'torch.load(file, weights_only=False)',
    'torch.load(file, **options)',
    'pd.read_pickle(file)',
    'yaml.load(text)',
    'yaml.load(text, yaml.Loader)',
    'yaml.load(text, Loader=yaml.UnsafeLoader)',
    'yaml.unsafe_load(text)',
    'from yaml import UnsafeLoader',
    'tar.extractall(folder)',
    'archive.extract(member, folder)',
    'shutil.unpack_archive(file)',
    'concurrent.futures.ProcessPoolExecutor(2)',
    'from concurrent.futures import ProcessPoolExecutor',
    'context.Process(target=f)',
    'pipe.recv()',
    'subprocess.run(text, shell=True)',
    'os.system(text)',
    'AutoModel.from_pretrained(x, trust_remote_code=True)',
    'jinja2.Template(text)',
    'from jax.experimental import serialize_executable',
]
GOOD = [
    'import json, safetensors',
    'model.eval()',
    'np.load(file, allow_pickle=False)',
    'torch.load(file, weights_only=True)',
    'yaml.safe_load(text)',
    'yaml.load(text, yaml.SafeLoader)',
    'tar.extractfile(member)',
    'subprocess.run(["ls"])',
    'text = "a pickle is never read"',
    'pipe.recv_bytes()',
    're.compile(text)',
    'psutil.Process(pid)',
]


@pytest.mark.parametrize('text', BAD)
def test_each_of_these_would_be_found(text):
    assert list(findings(ast.parse(text)))


@pytest.mark.parametrize('text', GOOD)
def test_none_of_these_would(text):
    assert list(findings(ast.parse(text))) == []
