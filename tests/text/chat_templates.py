"""Short chat templates with the features of published ones, and tokenizers for them."""

import json

import tokenizers
from tokenizers import decoders, models, normalizers, processors, trainers

from alm_jax.text.language_tokenizer import LanguageTokenizer

# A default system prompt, as SmolLM2 and Qwen2 write it.
CHATML = (
    '{% for message in messages %}'
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Content in parts, of which some are audio and are counted: Qwen2-Audio.
HEARING = (
    '{% set audios = namespace(value=0) %}{% for message in messages %}'
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}"
    "{% if 'audio_url' in content or content['type'] == 'audio' %}"
    '{% set audios.value = audios.value + 1 %}'
    'Audio {{ audios.value }}: <|audio_bos|><|AUDIO|><|audio_eos|>\n'
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    '{% endif %}{% endfor %}'
    '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
)
# Brackets, a system prompt inside the first instruction, refusals, no generation prompt: Llama 2.
BRACKETS = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    '{% set system = false %}{% endif %}{% for message in loop_messages %}'
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    '{% if loop.index0 == 0 and system != false %}'
    "{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}"
    '{% endif %}{% endfor %}'
)
# One begin, white space controlled by signs, tools as JSON: Mistral.
TOOLS = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and loop.last %}
            {{- "[TOOLS] " + tools | tojson + "[/TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] | trim + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
"""
# Roles as words, answers marked as the assistant's, loop control, the date: Vicuna and others.
WORDS = (
    "{{ bos_token }}It is {{ strftime_now('%d %b %Y') }}. "
    '{% for message in messages %}{% if loop.index0 > 6 %}{% break %}{% endif %}'
    "{% if message['role'] == 'system' %}{% continue %}{% endif %}"
    "{% if message['role'] == 'user' %}USER: {{ message['content'] }} "
    "{% else %}ASSISTANT:{% generation %} {{ message['content'] }}{{ eos_token }}"
    '{% endgeneration %}{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}'
)
# What is written depends on what is said and comes later; thoughts are cut out: Qwen3.
THINKING = """{%- set ns = namespace(last=messages|length - 1, looking=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- set is_tool = message.content is string and message.content.startswith('<tool>') %}
    {%- if ns.looking and message.role == "user" and not is_tool %}
        {%- set ns.looking = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" %}
        {%- set thoughts = '' %}
        {%- if '</think>' in content %}
            {%- set thoughts = content.split('</think>')[0].rstrip('\\n') %}
            {%- set thoughts = thoughts.split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thoughts) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + thoughts.strip('\\n') }}
            {{- '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
# Other names of roles, no system prompt: Gemma.
RENAMED = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles') }}"
    "{% endif %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
TEMPLATES = {
    'chatml': CHATML,
    'hearing': HEARING,
    'brackets': BRACKETS,
    'tools': TOOLS,
    'words': WORDS,
    'thinking': THINKING,
    'renamed': RENAMED,
}
TEXTS = (
    'A dog barks loudly, then a man says: "Come here!"',
    'What can be heard in this recording? Describe it in one sentence.',
    'You are a helpful assistant. USER: hello ASSISTANT: Rain falls on a roof.\n',
    '### Instruction:\n### Response:\nBirds sing in the trees, 1 2 3 4 5 6 7 8 9 0.',
)


def byte_level(template=CHATML, specials=()):
    """Byte-level BPE, nothing before or behind a text."""
    trained = LanguageTokenizer.train(TEXTS * 4)
    return _with(trained._full, {'eos_token': '<|im_end|>', 'chat_template': template}, specials)


def sentence_piece(template=BRACKETS, specials=()):
    """BPE over characters with a sign for a space, before the first word too, and <s> in front."""
    unknown, begin, end = '<unk>', '<s>', '</s>'
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token=unknown, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace('▁', ' '),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(' ', 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[unknown, begin, end, *(f'<0x{i:02X}>' for i in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator(' '.join(TEXTS * 4).split(), trainer)
    content = json.loads(tokenizer.to_str())
    content['added_tokens'] = content['added_tokens'][:3]  # bytes are none
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[begin, '$A'], special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    settings = {'bos_token': begin, 'eos_token': {'content': end}, 'chat_template': template}
    return _with(tokenizer, settings, specials)


def _with(tokenizer, settings, specials):
    tokenizer.add_special_tokens(list(specials))
    files = {'tokenizer.json': tokenizer.to_str(), 'tokenizer_config.json': json.dumps(settings)}
    return LanguageTokenizer({name: text.encode() for name, text in files.items()}, 'folder')
