"""Chat templates: how the folder of a language model says to write down a conversation.

A template is a program (jinja2) that came with somebody's weights. It runs in jinja2's immutable
sandbox, which keeps it from the machine but not from running on for ever: ``{{ 'x' * 10 ** 9 }}``,
a loop of loops or ``x ~ x`` need no forbidden name, and much of it happens inside one call of C
code, where no counter of ours is asked. So it runs in a process of its own, to which the system
gives a few seconds and some memory. That costs a tenth of a second; what is rendered once is kept,
and ``dialogue`` renders one form of a conversation once, whatever is said in it.
"""

import datetime
import functools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from alm_jax.config import ConfigError

MAX_TEMPLATE = 200_000  # characters
MAX_OUTPUT = 1_000_000  # characters
MAX_SECONDS = 5  # of a processor
MAX_BYTES = 512 << 20
_PATIENCE = 60  # seconds by the clock, on a machine that has much else to do
_PROCESS = pathlib.Path(__file__).with_name('chat_template_process.py')
_ENVIRONMENT = ('PATH', 'LD_LIBRARY_PATH', 'SYSTEMROOT')  # what the interpreter may need to start


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    special_tokens: Mapping[str, str] | None = None,
    add_generation_prompt: bool = False,
    now: datetime.datetime | None = None,
    name: str = 'the chat template',
    **variables: Any,
) -> str:
    """What transformers' ``apply_chat_template(..., tokenize=False)`` gives.

    Args:
      template: jinja2 with transformers' additions: raise_exception, strftime_now, tojson without
        escapes, {% generation %}, {% break %} and {% continue %}.
      messages: {'role': ..., 'content': text, or a list of parts}, in order.
      special_tokens: 'bos_token', 'eos_token' and so on, as text.
      add_generation_prompt: whether the beginning of an answer is written at the end.
      now: what strftime_now tells; None is the time of the call.
      name: of the template, for messages.
      **variables: what else the template may ask for.

    Raises:
      ConfigError: a template that is too long, no jinja2, refuses the messages, or takes too much
        time, memory or text.
    """
    if len(template) > MAX_TEMPLATE:
        raise ConfigError(f'{name} has {len(template):,} characters; {MAX_TEMPLATE:,} are read.')
    given = {
        'messages': list(messages),
        'tools': None,
        'documents': None,
        'add_generation_prompt': add_generation_prompt,
        **(special_tokens or {}),
        **variables,
    }
    now = now or datetime.datetime.now()
    try:
        return _rendered(template, json.dumps(given), now.isoformat())
    except ConfigError as error:
        raise ConfigError(f'{name} cannot be used: {str(error).rstrip(".")}.') from None


@functools.lru_cache(maxsize=1024)
def _rendered(template: str, variables: str, now: str) -> str:
    request = {
        'path': sys.path,
        'limits': {'seconds': MAX_SECONDS, 'bytes': MAX_BYTES, 'characters': MAX_OUTPUT},
        'template': template,
        'variables': json.loads(variables),
        'now': now,
    }
    try:
        done = subprocess.run(
            [sys.executable, '-I', '-S', str(_PROCESS)],
            input=json.dumps(request).encode(),
            capture_output=True,
            env={key: os.environ[key] for key in _ENVIRONMENT if key in os.environ},
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f'it takes more than {_PATIENCE} s') from None
    if done.returncode < 0:
        raise ConfigError(f'it takes more than {MAX_SECONDS} s of a processor, or much memory')
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode(errors='replace').strip().splitlines()[-1:]
        raise ConfigError(f'its process failed ({"".join(last)})') from None
    if 'error' in answer:
        raise ConfigError(answer['error'])
    return answer['text']
