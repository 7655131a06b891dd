"""What each format writes, where clips stand, and what is to be predicted."""

import chat_templates
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from travelling import travelled

from alm_jax.config import ConfigError
from alm_jax.text import chat_template
from alm_jax.text.dialogue import Dialogue, DialogueError
from alm_jax.text.dialogue_formats import FORMATS

few = settings(max_examples=25, deadline=None, derandomize=True)
BYTES = chat_templates.byte_level()
VICUNA = chat_templates.sentence_piece()
TWO = [('What is it?', 'A dog.'), ('How many?', 'One.')]


def shown(pieces):
    """Clips as numbers in brackets, answers in guillemets."""
    text = ''
    for piece in pieces:
        what = piece.text if piece.clip is None else f'[{piece.clip}]'
        text += f'«{what}»' if piece.is_answer else what
    return text.replace('»«', '')


def test_chatml():
    dialogue = Dialogue('chat', BYTES)
    assert shown(dialogue.pieces(TWO)) == (
        '<|im_start|>system\nYou help.<|im_end|>\n'
        '<|im_start|>user\n[0]What is it?<|im_end|>\n'
        '<|im_start|>assistant\n«A dog.<|im_end|>»\n'
        '<|im_start|>user\nHow many?<|im_end|>\n'
        '<|im_start|>assistant\n«One.<|im_end|>»\n'
    )


def test_a_template_that_hears():
    tokenizer = chat_templates.byte_level(chat_templates.HEARING, ['<|AUDIO|>', '<|audio_bos|>'])
    assert shown(Dialogue('chat', tokenizer).pieces([('Same?', 'No.')], 2)) == (
        '<|im_start|>user\nAudio 1: <|audio_bos|>[0]<|audio_eos|>\n'
        'Audio 2: <|audio_bos|>[1]<|audio_eos|>\nSame?<|im_end|>\n'
        '<|im_start|>assistant\n«No.<|im_end|>»\n'
    )


def test_a_template_that_says_audio_but_does_not_hear():
    tokenizer = chat_templates.byte_level(chat_templates.CHATML.replace('You help', 'audio help'))
    assert '[0]What is it?' in shown(Dialogue('chat', tokenizer).pieces(TWO))


def test_a_template_that_writes_audio_of_its_own():
    """Its token would have no clip."""
    template = chat_templates.HEARING + '<|AUDIO|>'
    with pytest.raises(ConfigError, match='does not write all that it is given'):
        Dialogue('chat', chat_templates.byte_level(template, ['<|AUDIO|>']))


def test_a_template_that_thinks():
    """Only in the last answer are there thoughts; they are the model's to write."""
    tokenizer = chat_templates.byte_level(chat_templates.THINKING)
    assert shown(Dialogue('chat', tokenizer).pieces(TWO)) == (
        '<|im_start|>user\n[0]What is it?<|im_end|>\n'
        '<|im_start|>assistant\n«A dog.<|im_end|>»\n'
        '<|im_start|>user\nHow many?<|im_end|>\n'
        '<|im_start|>assistant\n«<think>\n\n</think>\n\nOne.<|im_end|>»\n'
    )


def test_roles_of_other_names():
    special = ['<start_of_turn>', '<end_of_turn>']
    tokenizer = chat_templates.sentence_piece(chat_templates.RENAMED, special)
    assert shown(Dialogue('chat', tokenizer).pieces(TWO[:1])) == (
        '<s><start_of_turn>user\n[0]What is it?<end_of_turn>\n'
        '<start_of_turn>model\n«A dog.<end_of_turn>»\n'
    )


def test_brackets():
    """Nothing but a space separates the answer from the prompt, so that it is the answer's."""
    assert shown(Dialogue('chat', VICUNA).pieces(TWO)) == (
        '<s>[INST] [0]What is it? [/INST]« A dog. </s>»<s>[INST] How many? [/INST]« One. </s>»'
    )


def test_words_with_a_date_that_stays():
    tokenizer = chat_templates.sentence_piece(chat_templates.WORDS)
    assert shown(Dialogue('chat', tokenizer).pieces(TWO[:1])) == (
        '<s>It is 26 Jul 2024. USER: [0]What is it? ASSISTANT:« A dog.</s>»'
    )


def test_plain():
    assert shown(Dialogue('plain', BYTES).pieces([('', 'A dog.')])) == '[0]«A dog.<|im_end|>»'
    assert shown(Dialogue('plain', VICUNA).pieces([('generate caption', 'A dog.')])) == (
        '<s>[0]generate caption« A dog.</s>»'
    )


def test_ltu():
    assert shown(Dialogue('ltu', VICUNA).pieces(TWO)) == (
        '[0]<s>### Instruction:\nWhat is it?\n\n### Response:\n«A dog.</s>»\n\n'
        '### Instruction:\nHow many?\n\n### Response:\n«One.</s>»'
    )


def test_salmonn():
    assert shown(Dialogue('salmonn', VICUNA).pieces(TWO)) == (
        '<s>USER: <Speech>[0]</Speech> What is it?\nASSISTANT:« A dog.</s>»'
        'USER: How many?\nASSISTANT:« One.</s>»'
    )


@pytest.mark.parametrize(
    ('task', 'language', 'tags'),
    [
        (
            'transcription',
            'pt-BR',
            '<|startoftranscript|><|pt|><|transcribe|><|pt|><|notimestamps|><|wo_itn|>',
        ),
        (
            'captioning',
            '',
            '<|startofanalysis|><|unknown|><|caption|><|en|><|notimestamps|><|caption_plain|>',
        ),
        ('tagging', 'en', '<|startofanalysis|><|en|><|keyword|><|en|><|notimestamps|>'),
        ('classification', '', '<|startofanalysis|><|unknown|><|event|><|en|><|notimestamps|>'),
        ('open_question', '', '<|startofanalysis|><|unknown|><|question|>What is it?<|answer|>'),
        ('dialogue', '<|x|>', '<|startofanalysis|><|unknown|><|question|>What is it?<|answer|>'),
    ],
)
def test_tags_of_qwen_audio(task, language, tags):
    pieces = Dialogue('qwen_audio', BYTES).pieces(TWO[:1], task=task, language=language)
    assert shown(pieces) == f'<audio>[0]</audio>{tags}«A dog.<|im_end|>»'


def test_who_asks_nothing_of_qwen_audio_gets_a_caption():
    dialogue = Dialogue('qwen_audio', BYTES)
    assert '<|caption|>' in shown(dialogue.pieces([('', None)]))
    assert '<|question|>Loud?<|answer|>' in shown(dialogue.pieces([('Loud?', None)]))


def test_audio_flamingo3():
    assert shown(Dialogue('audio_flamingo3', BYTES).pieces(TWO[:1])) == (
        '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n'
        '<|im_start|>user\n[0]\nWhat is it?<|im_end|>\n'
        '<|im_start|>assistant\n«A dog.<|im_end|>»\n'
    )


def test_clips_stand_where_texts_say():
    plain = Dialogue('plain', BYTES)

    def written(question, clips):
        return shown(plain.pieces([(question, 'x')], clips)).partition('«')[0]

    assert written('Is <audio> louder than <sound>?', 2) == 'Is [0] louder than [1]?'
    assert written('Is <audio-2> louder than <audio-1>?', 2) == 'Is [1] louder than [0]?'
    assert written('Like <audio>?', 3) == '[1][2]Like [0]?'
    assert written('None', 3) == '[0][1][2]None'
    assert written('Text alone', 0) == 'Text alone'
    later = plain.pieces([('First <audio>', 'x'), ('then <audio>', 'like <audio> here')], 3)
    assert shown(later) == 'First [0]« x<|im_end|>»then [1]« like [2] here<|im_end|>»'


@pytest.mark.parametrize(
    ('turns', 'clips', 'message'),
    [
        ([('<audio> and <audio>', 'x')], 1, 'a place for clip 2, but 1 are heard'),
        ([('<audio-3>', 'x')], 2, 'a place for clip 3, but 2 are heard'),
        ([('<audio-0>', 'x')], 2, 'a place for clip 0'),
        ([('<audio-1> <audio-1>', 'x')], 2, 'clip 1 has more than one place'),
        ([('a', None), ('b', 'x')], 1, 'every turn but the last needs a response'),
        ([], 1, 'every turn but the last'),
    ],
)
def test_turns_that_cannot_be_written(turns, clips, message):
    with pytest.raises(DialogueError, match=message):
        Dialogue('plain', BYTES).pieces(turns, clips)


said = st.text(st.sampled_from('ab <|>/'), max_size=8) | st.sampled_from(
    ['<|im_end|>', '</s>', 'ASSISTANT:', '{{ messages }}', '\ue0000\ue001', '\ue0001\ue001']
)
DIALOGUES = {
    **{f'{name} bytes': Dialogue(name, BYTES) for name in (*FORMATS, 'chat')},
    **{
        f'{name} pieces': Dialogue(name, VICUNA)
        for name in (*FORMATS, 'chat')
        if name != 'audio_flamingo3'
    },
}


@pytest.mark.parametrize('name', DIALOGUES)
def test_a_prompt_is_what_precedes_the_answer(name):
    """Whatever is said: a dialogue up to its last answer is the dialogue without it."""
    dialogue = DIALOGUES[name]

    @few
    @given(st.lists(st.tuples(said, said), min_size=1, max_size=3), st.integers(0, 2))
    def check(turns, clips):
        whole = dialogue.pieces(turns, clips)
        prompt = dialogue.pieces([*turns[:-1], (turns[-1][0], None)], clips)
        assert whole[: len(prompt)] == prompt
        rest = whole[len(prompt) :]
        assert rest[0].is_answer
        answer = ''.join(piece.text for piece in rest if piece.is_answer and not piece.is_markup)
        assert answer == turns[-1][1]
        assert [piece.clip for piece in whole if piece.clip is not None] == list(range(clips))
        own = [piece.text for piece in whole if not piece.is_markup and piece.clip is None]
        if not name.startswith('qwen_audio'):
            assert own == [text for turn in turns for text in turn if text]

    check()


@pytest.mark.parametrize('name', DIALOGUES)
def test_answers_end_where_generation_stops(name):
    dialogue = DIALOGUES[name]
    last = [piece for piece in dialogue.pieces(TWO) if piece.is_answer][-1]
    assert last.is_markup
    assert dialogue.tokenizer.encode([(last.text, True)])[-1] in dialogue.stop_ids


def test_it_travels(monkeypatch):
    dialogue = travelled(Dialogue('chat', BYTES))
    assert shown(dialogue.pieces(TWO)) == shown(Dialogue('chat', BYTES).pieces(TWO))


def test_content_makes_no_new_rendering(monkeypatch):
    """One process for a form of conversation, whatever is said in it."""
    dialogue = Dialogue('chat', BYTES)
    dialogue.pieces(TWO, 1)
    monkeypatch.setattr(chat_template.subprocess, 'run', None)
    other = [('Never said before', 'nor this'), ('or that', 'either')]
    assert 'Never said before' in shown(dialogue.pieces(other, 1))


@pytest.mark.parametrize(
    ('template', 'message'),
    [
        ('', 'has no chat template. Choose another config.data.text.dialogue'),
        ("{% for m in messages %}{{ m['content'] }}\n{% endfor %}", 'none of its special tokens'),
        ('{{ messages[0].content }}<|im_end|>', 'does not write all that it is given'),
        (
            '{% for m in messages %}{{ m.content }}{{ m.content }}<|im_end|>{% endfor %}',
            'does not write all that it is given',
        ),
        ("{{ raise_exception('never') }}", 'cannot be used: TemplateError: never'),
    ],
)
def test_templates_that_cannot_be_used(template, message):
    with pytest.raises(ConfigError, match=message):
        Dialogue('chat', chat_templates.byte_level(template))


def test_formats_that_a_tokenizer_cannot_end():
    with pytest.raises(ConfigError, match='none of its special tokens'):
        Dialogue('audio_flamingo3', VICUNA)
    with pytest.raises(ConfigError, match="Did you mean 'salmonn'"):
        Dialogue('salmon', VICUNA)
