"""The process in which a chat template is rendered; ``chat_template`` starts it as a script.

It imports jinja2 and nothing of this package. Read from the standard input: JSON with 'path' (where
to import from), 'limits', 'template' and 'variables'. Written: JSON with 'text' or 'error'.
"""

import contextlib
import datetime
import json
import sys


def _limited(limits):
    """What no template can get around: the system ends a process that takes more."""
    try:
        import resource
    except ImportError:  # Windows: the starter's clock alone ends it
        return
    most = {'CPU': limits['seconds'], 'AS': limits['bytes'], 'FSIZE': 0, 'CORE': 0}
    for name, limit in most.items():
        with contextlib.suppress(ValueError, OSError):  # a lower one holds; macOS has no AS
            resource.setrlimit(getattr(resource, f'RLIMIT_{name}'), (limit, limit))


def _environment(now):
    """What transformers offers to templates (``utils/chat_template_utils.py``)."""
    from jinja2 import ext, nodes, sandbox
    from jinja2.exceptions import TemplateError

    class Generation(ext.Extension):
        """{% generation %} marks what the assistant says: its content is rendered as it is."""

        tags = frozenset({'generation'})

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    def raise_exception(message):
        raise TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    environment.filters['tojson'] = tojson
    environment.globals['raise_exception'] = raise_exception
    environment.globals['strftime_now'] = now.strftime
    return environment


def _rendered(request):
    now = datetime.datetime.fromisoformat(request['now'])
    template = _environment(now).from_string(request['template'])
    parts, size = [], 0
    for part in template.generate(**request['variables']):
        parts.append(part)
        size += len(part)
        if size > request['limits']['characters']:
            return {'error': f'it writes more than {request["limits"]["characters"]:,} characters'}
    return {'text': ''.join(parts)}


def main():
    request = json.load(sys.stdin.buffer)
    sys.path[:] = request['path']
    _limited(request['limits'])
    try:
        answer = _rendered(request)
    except MemoryError:
        answer = {'error': 'it takes too much memory'}
    except Exception as error:
        answer = {'error': f'{type(error).__name__}: {error}'[:1000]}
    sys.stdout.buffer.write(json.dumps(answer).encode())


if __name__ == '__main__':
    main()
