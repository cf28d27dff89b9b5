"""Changed files of tokenizers: texts become tokens and text again, or the folder is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizer_folders as folders
from fuzz.examples import fuzzed, right_or_refused
from fuzz.mutations import changed_bytes, changed_json
from hypothesis import given
from hypothesis import strategies as st
from models.folders import ASSETS

from maxmod.generate.chat import open_chat_template
from maxmod.generate.text import TextStream
from maxmod.generate.tokenizer_files import open_tokenizer

SETTINGS = {
    "tokenizer_class": "LlamaTokenizer",
    "bos_token": "<s>",
    "eos_token": {"__type": "AddedToken", "content": "</s>", "special": True},
    "add_bos_token": True,
    "additional_special_tokens": ["<|im_start|>"],
    "added_tokens_decoder": {
        "1": {"content": "<s>", "special": True, "lstrip": False, "normalized": False},
        "275": {"content": "<|im_end|>", "special": True, "rstrip": True},
    },
    "chat_template": "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}",
}
FIELDS = ("tokenizer_class", "add_eos_token", "unk_token", "do_lower_case", "model_max_length")
FIELDS += ("added_tokens_decoder", "extra_special_tokens", "chat_template", "lstrip", "content")
TEXTS = st.one_of(
    st.text(max_size=12),
    st.lists(st.sampled_from(["hello", " ", "<s>", "<|im_end|>", "Paris", "é", "\0"])).map("".join),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder for each form in which tokenizers are published."""
    root = tmp_path_factory.mktemp("tokenizers")
    made = {name: root / name for name in ("pieces", "bytes", "words", "merges", "list")}
    for folder in made.values():
        folder.mkdir()
    folders.write_whole(made["pieces"], folders.sentence_pieces(), tokenizer_config=SETTINGS)
    folders.write_whole(made["bytes"], folders.byte_level(), added_tokens={"<|im_end|>": 264})
    shutil.copy(ASSETS / "bert" / "sentences" / "tokenizer.json", made["words"])
    folders.write_byte_level(
        made["merges"],
        config={"model_type": "qwen2"},
        tokenizer_config={
            "tokenizer_class": "Qwen2Tokenizer",
            "added_tokens_decoder": {"264": {"content": "<|im_end|>", "special": True}},
        },
        special_tokens_map={"eos_token": "<|im_end|>", "additional_special_tokens": ["<|a|>"]},
    )
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "he", "##llo", "paris", "a", "##b"]
    (made["list"] / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    folders.write(made["list"], tokenizer_config={"tokenizer_class": "BertTokenizer"})
    return made


def _run(folder: Path, text: str) -> None:
    tokenizer = open_tokenizer(folder)
    tokens = tokenizer.encode(text)
    assert all(type(token) is int and token >= 0 for token in tokens)
    assert isinstance(tokenizer.decode(tokens), str)
    stream = TextStream(tokenizer)
    assert isinstance("".join([*map(stream.push, tokens), stream.finish()]), str)


FILES = [
    ("pieces", "tokenizer.json"),
    ("pieces", "tokenizer_config.json"),
    ("bytes", "tokenizer.json"),
    ("bytes", "added_tokens.json"),
    ("words", "tokenizer.json"),
    ("merges", "vocab.json"),
    ("merges", "merges.txt"),
    ("merges", "tokenizer_config.json"),
    ("merges", "special_tokens_map.json"),
    ("list", "vocab.txt"),
    ("list", "tokenizer_config.json"),
]


@fuzzed(100)
@given(data=st.data(), text=TEXTS, file=st.sampled_from([f for f in FILES if "json" in f[1]]))
def test_changed_files(
    whole: dict[str, Path], tmp_path: Path, data: st.DataObject, text: str, file: tuple[str, str]
) -> None:
    table = json.loads((whole[file[0]] / file[1]).read_text("utf-8"))
    changed = json.dumps(data.draw(changed_json(table, names=FIELDS)))
    _run_changed(whole[file[0]], tmp_path, file[1], changed.encode(), text)


@fuzzed(60)
@given(data=st.data(), text=TEXTS, file=st.sampled_from(FILES))
def test_damaged_files(
    whole: dict[str, Path], tmp_path: Path, data: st.DataObject, text: str, file: tuple[str, str]
) -> None:
    changed = data.draw(changed_bytes((whole[file[0]] / file[1]).read_bytes()))
    _run_changed(whole[file[0]], tmp_path, file[1], changed, text)


def _run_changed(source: Path, tmp_path: Path, name: str, content: bytes, text: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(source, folder, dirs_exist_ok=True)
    (folder / name).write_bytes(content)
    try:
        with right_or_refused():
            _run(folder, text)
    finally:
        shutil.rmtree(folder)


# ---- templates -----------------------------------------------------------------------------------

PIECES = [
    "{{ messages[0].content }}",
    "{{ messages[0]['role'] | upper }}",
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if add_generation_prompt %}",
    "{%- elif tools -%}",
    "{% else %}",
    "{% endif %}",
    "{{ m.content | trim }}",
    "{{ m.tool_calls[0].function.arguments | tojson(indent=2) }}",
    "{% set ns = namespace(x=1) %}",
    "{% set ns.x = ns.x + 1 %}",
    "{% set x = messages[1:] %}",
    "{% generation %}",
    "{% endgeneration %}",
    "{% break %}",
    "{{ raise_exception('no') }}",
    "{{ strftime_now('%Y') }}",
    "{{ bos_token }}",
    "{{ nothing.at.all }}",
    "{{ 1 / 0 }}",
    "{{ 'a' * 3 }}",
    "{{ x | length }}",
    "{{ [1, 2] | join(',') }}",
    "{{ messages | tojson }}",
    "{{ ''.__class__ }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}",
    "{{ f(messages) }}",
    "{{ x.append(1) }}",
    "{% include 'a' %}",
    "{% import 'a' as b %}",
    "{% block c %}{% endblock %}",
    "{# a note #}",
    "{{",
    "%}",
    "<|im_start|>",
    "\n  ",
    "{{ messages | map(attribute='role') | list | string }}",
    "{{ 10 ** 3 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ 'a' * 10 ** 12 }}",
    "{{ 'a'.center(10 ** 12) }}",
    "{{ '%1000000000000d' % 1 }}",
    "{{ '{:>1000000000000}'.format(1) }}",
    "{{ range(10 ** 9) | list | length }}",
    "{{ [0] * 10 ** 12 }}",
    "{{ 'aaaa' | replace('a', 'a' * 1000) }}",
    "{% macro g(a) %}{{ g(a) }}{% endmacro %}{{ g(1) }}",
    "{{ self.c() }}",
    "{{ 'a' | center(10 ** 12) }}",
    "{{ [1, 2] | batch(10 ** 12, 0) | list }}",
    "{{ 'a' | indent(10 ** 12, true) }}",
    "{% call f(1) %}{% endcall %}",
    "{{ '%s' % messages }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ range(3) | list }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | first }}",
]
ANY_MESSAGES = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "system", "assistant", "tool", ""])},
            optional={
                "content": st.one_of(st.text(max_size=5), st.none(), st.just([{"type": "text"}])),
                "tool_calls": st.just([{"function": {"name": "f", "arguments": {"a": 1}}}]),
                "items": st.just(3),
            },
        ),
        st.sampled_from([None, "user", 3, {}, {"role": 3, "content": "a"}]),
    ),
    max_size=3,
)
TALK = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
MESSAGES = st.one_of(st.just(TALK), st.just(TALK), ANY_MESSAGES)
AROUND = [
    ("{% for m in messages %}", "{% endfor %}"),
    ("{%- for k, v in messages[0].items() -%}", "{%- endfor -%}"),
    ("{% if m is defined and m.role == 'user' %}", "{% else %}b{% endif %}"),
    ("{% generation %}", "{% endgeneration %}"),
    ("{% set y %}", "{% endset %}{{ y }}"),
    ("{% filter upper %}", "{% endfilter %}"),
    ("{% macro f(a=1) %}", "{% endmacro %}{{ f(2) }}"),
    ("{% for i in range(3) %}", "{% if loop.last %}{% break %}{% endif %}{% endfor %}"),
    ("{% raw %}", "{% endraw %}"),
]
WHOLE = [piece for piece in PIECES if piece.startswith(("{{ ", "{% set"))]
BALANCED = st.recursive(
    st.sampled_from([*WHOLE, *WHOLE, "<|im_start|>", "\n  "]),
    lambda inner: st.tuples(st.sampled_from(AROUND), st.lists(inner, max_size=3)).map(
        lambda drawn: drawn[0][0] + "".join(drawn[1]) + drawn[0][1]
    ),
    max_leaves=6,
)
SOURCES = st.one_of(BALANCED, BALANCED, st.lists(st.sampled_from(PIECES), max_size=9).map("".join))


@fuzzed(100)
@given(source=SOURCES, messages=MESSAGES)
def test_templates(tmp_path: Path, source: str, messages: list[Any]) -> None:
    (tmp_path / "chat_template.jinja").write_text(source, "utf-8")
    with right_or_refused():
        assert isinstance(open_chat_template(tmp_path).render(messages), str)


def test_the_folders_that_are_changed_are_right(whole: dict[str, Path]) -> None:
    for folder in whole.values():
        _run(folder, "hello Paris")
    text = open_chat_template(whole["pieces"]).render([{"role": "user", "content": "hello"}])
    assert text == "<s>hello"
