"""Chat templates: the text that transformers renders, and rejected templates."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from maxmod.errors import ArgumentError, ModelError
from maxmod.generate.chat import ChatTemplate, open_chat_template
from maxmod.generate.tokenizer_files import open_tokenizer

FOLDER = Path(__file__).parent / "assets" / "llama" / "chat"
GOLDEN = json.loads((FOLDER / "golden.json").read_text("utf-8"))
USER = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("case", GOLDEN["chats"], ids=lambda case: case["messages"][-1]["content"])
def test_text_and_tokens(case: dict) -> None:
    template = open_chat_template(FOLDER)
    is_question = case["messages"][-1]["role"] == "user"
    text = template.render(case["messages"], add_generation_prompt=is_question)
    assert text == case["text"]
    assert open_tokenizer(FOLDER).encode(text, special=False) == case["ids"]


@pytest.mark.parametrize("case", GOLDEN["plain"], ids=lambda case: repr(case["text"]))
def test_plain_text_starts_as_the_tokenizer_says(case: dict) -> None:
    tokenizer = open_tokenizer(FOLDER)
    assert tokenizer.encode(case["text"]) == case["ids"]
    assert tokenizer.encode(case["text"], special=False) == case["ids"][1:]


def _render(source: str, **variables: object) -> str:
    return ChatTemplate(source, {"bos_token": "<s>"}, "here").render(USER, **variables)


def test_templates_use_filters_functions_and_loop_controls() -> None:
    assert _render("{{ bos_token }}{{ messages | length }}") == "<s>1"
    assert _render("{% if tools %}t{% else %}n{% endif %}") == "n"
    assert _render("{{ tools | tojson }}", tools=[{"a": "<é>"}]) == '[{"a": "<é>"}]'
    assert _render("{{ tools | tojson(indent=1) }}", tools=[1]) == "[\n 1\n]"
    assert len(_render("{{ strftime_now('%Y') }}")) == 4
    # Loop controls, a namespace, and lines of tags that leave nothing behind.
    source = """
    {%- set ns = namespace(found=0) %}
    {% for n in range(9) %}
        {% if n == 3 %}{% set ns.found = n %}{% break %}{% endif %}
    {% endfor %}
    {{- ns.found }}"""
    assert _render(source) == "3"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__['os'] }}",
        "{{ range(100000000) | list }}",
        "{% include 'secret' %}",
    ],
)
def test_templates_are_in_a_sandbox(source: str) -> None:
    with pytest.raises(ModelError, match="here: the chat template failed"):
        _render(source)


def test_the_generation_tag_leaves_the_text_alone() -> None:
    """It marks what a model is trained on, and what it assigns ends with it."""
    source = """{% set x = 1 %}{% for m in messages %}
    {%- generation %}
    {%- set x = 2 %}<{{ m.content }}{{ x }}>
    {%- if loop.last %}{% break %}{% endif %}
    {%- endgeneration -%}
    {% endfor %}{{ x }}"""
    assert _render(source) == "<Hello2>1"
    with pytest.raises(
        ModelError, match=r"malformed: .*end of template\. .*\(line 2 of the template"
    ):
        _render("\n{% generation %}x")


CALL = {"type": "function", "function": {"name": "f", "arguments": {"city": "Zürich"}}}
SHOW = (
    "{% for m in messages %}[{{ m.role }}|{{ m.content }}|{{ m.content is none }}"
    "{% for c in m.tool_calls or [] %}|{{ c.function.name }}{{ c.function.arguments | tojson }}"
    "{% endfor %}|{{ m.reasoning_content }}|{{ m.thinking }}]{% endfor %}"
)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"tool_calls": [CALL]}, '||False|f{"city": "Zürich"}||'),
        ({"tool_calls": [CALL], "content": None}, '|None|True|f{"city": "Zürich"}||'),
        ({"tool_calls": [CALL], "content": "a"}, '|a|False|f{"city": "Zürich"}||'),
        ({"tool_calls": None, "content": ""}, "||False||"),
        ({"reasoning_content": "r"}, "||False|r|r"),
        ({"reasoning": "r", "content": "a"}, "|a|False|r|r"),
        ({"thinking": "r", "content": "a"}, "|a|False|r|r"),
        (
            {"content": ({"type": "text", "text": "a"},)},
            "|({'type': 'text', 'text': 'a'},)|False||",
        ),
        ({"content": {"b": 1.5}}, "|{'b': 1.5}|False||"),
        ({"content": 22}, "|22|False||"),
    ],
    ids=str,
)
def test_messages_of_an_assistant(message: dict, text: str) -> None:
    """What transformers 5.24 renders."""
    answer = {"role": "assistant", **message}
    template = ChatTemplate(SHOW, {}, "here")
    assert template.render([*USER, answer]) == f"[user|Hello|False||][assistant{text}]"


def test_messages_of_other_libraries_are_made_of_plain_values() -> None:
    class Text(str):
        __slots__ = ()

        def secret(self) -> str:
            return "secret"

    class Message:  # as those of the package openai
        def model_dump(self) -> dict[str, object]:
            return {"role": "user", "content": Text("Hello")}

    template = ChatTemplate("{{ messages[0].content }}{{ messages[0].content.secret }}", {}, "here")
    assert template.render([Message()]) == "Hello"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages: expected at least one, got none"),
        ({"role": "user", "content": "x"}, "messages: expected a list of mappings .*, got dict"),
        ("Hello", "messages: expected a list of mappings .*, got str"),
        ([{"role": "user"}], "message 0: .* got the role 'user' and no other field"),
        ([{"role": "user", "contents": "x"}], "got the role 'user' and 'contents'"),
        ([{"role": "user", "content": None}], "message 0: expected a mapping with 'role' and"),
        ([{"role": "tool", "tool_call_id": "1"}], "got the role 'tool' and 'tool_call_id'"),
        ([{"role": "assistant"}], "'content', or other fields such as 'tool_calls', got the role"),
        ([{"role": "assistant", "tool_calls": []}], "message 0: expected a mapping with 'role'"),
        ([{"role": 5, "content": "x"}], "message 0: expected a mapping with 'role' and 'content'"),
        ([{"role": "user", "content": b"x"}], "message 0: content: expected text, .* got bytes"),
        ([{"role": "user", "content": ["x", 3]}], "message 0: content: expected a str or a list"),
        ([{"role": "user", "content": "x", "image": 1j}], "message 0: image: .* got complex"),
    ],
    ids=str,
)
def test_messages_without_a_meaning_are_refused(messages: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ChatTemplate("x", {}, "here").render(messages)


def test_variables() -> None:
    source = "{{ tools is none }}{{ documents is none }}{{ enable_thinking }}{{ bos_token }}"
    template = ChatTemplate(source, {"bos_token": "<s>"}, "here")
    assert template.names == {"tools", "documents", "enable_thinking", "bos_token"}
    assert template.render(USER) == "TrueTrue<s>"
    given = {"tools": [{"name": "f"}], "documents": ({"text": "t"},), "enable_thinking": False}
    assert template.render(USER, bos_token="<b>", **given) == "FalseFalseFalse<b>"


def test_refused_variables() -> None:
    template = ChatTemplate("x", {}, "here")
    with pytest.raises(ArgumentError, match="tools: .* got a function. Hint: transformers.utils.g"):
        template.render(USER, tools=[test_variables])
    with pytest.raises(ArgumentError, match="documents: expected a list of dicts, got str"):
        template.render(USER, documents="text")
    with pytest.raises(ArgumentError, match="now: expected text, numbers, .* got module"):
        template.render(USER, now=json)
    nested: list = []
    nested.append(nested)
    with pytest.raises(ArgumentError, match="x: expected values in at most 200 lists"):
        template.render(USER, x=nested)


def test_the_last_message_is_continued() -> None:
    """What transformers 5.24 renders with continue_final_message."""
    keeps = ChatTemplate("{% for m in messages %}<{{ m.content }}>{% endfor %}", {}, "here")
    strips = ChatTemplate("{% for m in messages %}<{{ m.content|trim }}>{% endfor %}", {}, "here")
    parts = ChatTemplate(
        "{% for p in messages[-1].content %}<{{ p.text }}>{% endfor %}", {}, "here"
    )
    chat = [*USER, {"role": "assistant", "content": " Hello "}]
    assert keeps.render(chat, continue_final_message=True) == "<Hello>< Hello "
    assert strips.render(chat, continue_final_message=True) == "<Hello><Hello"
    listed = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, {"type": "image"}]
    said = [{"role": "user", "content": listed}]
    assert parts.render(said, continue_final_message=True) == "<a><b"
    assert listed[1]["text"] == "b" and chat[1]["content"] == " Hello "


def test_a_message_that_cannot_be_continued_is_refused() -> None:
    template = ChatTemplate("{{ messages[0].content }}", {}, "here")
    answer = {"role": "assistant", "content": "Hello"}
    with pytest.raises(ArgumentError, match="expected one of them at most, got both"):
        template.render(USER, add_generation_prompt=True, continue_final_message=True)
    with pytest.raises(ArgumentError, match="the last message has no text to continue"):
        template.render([*USER, {**answer, "content": " "}], continue_final_message=True)
    with pytest.raises(ModelError, match="here: .* leaves the end of the last message out"):
        template.render([*USER, answer], continue_final_message=True)


def test_refused_messages() -> None:
    template = open_chat_template(FOLDER)
    with pytest.raises(ModelError, match="the chat template failed: unknown role robot"):
        template.render([{"role": "robot", "content": "x"}])
    for wrong in ({"role": "user"}, {"content": "x"}, "text", None):
        with pytest.raises(ArgumentError, match="message 1: expected a mapping with 'role' and"):
            template.render([*USER, wrong])


@pytest.mark.parametrize("source", ["{% for %}", "{{ 1 + }}", "{{ x | nosuchfilter }}"])
def test_malformed_templates(source: str) -> None:
    with pytest.raises(ModelError, match="here: the chat template is malformed"):
        ChatTemplate(source, {}, "here")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "model"))


def _change(folder: Path, **changes: object) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def test_where_templates_stand(folder: Path) -> None:
    _change(folder, chat_template="one {{ bos_token }}", bos_token={"content": "<b>"})
    assert open_chat_template(folder).render(USER) == "one <b>"
    named = [{"name": "rag", "template": "no"}, {"name": "default", "template": "two"}]
    _change(folder, chat_template=named)
    assert open_chat_template(folder).render(USER) == "two"
    (folder / "chat_template.jinja").write_text("three {{ eos_token }}", "utf-8")
    assert open_chat_template(folder).render(USER) == "three <|end|>"


def test_templates_know_the_tokens_of_the_older_file(folder: Path) -> None:
    source = "{{ bos_token }} {{ eos_token }} {{ pad_token }} {{ unk_token }}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": source}))
    older = {"bos_token": "<b>", "eos_token": {"content": "<e>"}, "pad_token": "<p>"}
    older["unk_token"] = "<u>"
    (folder / "special_tokens_map.json").write_text(json.dumps(older))
    assert open_chat_template(folder).render(USER) == "<b> <e> <p> <u>"


def test_templates_with_names(folder: Path) -> None:
    named = [{"name": name, "template": f"{name}1"} for name in ("default", "rag", "tool_use")]
    _change(folder, chat_template=named)

    def text(name: str | None = None, **options: bool) -> str:
        return open_chat_template(folder, name, **options).render(USER)

    assert [text(), text("rag"), text(for_tools=True)] == ["default1", "rag1", "tool_use1"]
    assert text("default", for_tools=True) == "default1"
    assert text("{{ messages|length }}{{ bos_token }}") == "1<s>"
    (folder / "chat_template.jinja").write_text("default2", "utf-8")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("rag2", "utf-8")
    assert [text(), text("rag"), text("tool_use")] == ["default2", "rag2", "tool_use1"]
    with pytest.raises(ArgumentError, match="expected 'default' or 'rag' or 'tool_use' or the sou"):
        text("tools")


def test_folders_without_a_default_template(folder: Path) -> None:
    _change(folder, chat_template=[{"name": "rag", "template": "x"}])
    with pytest.raises(ModelError, match="Hint: give its name, chat_template='rag'; there is none"):
        open_chat_template(folder)
    _change(folder, chat_template=[{"name": "rag"}])
    with pytest.raises(ModelError, match="json: chat_template: expected a str, or a list of"):
        open_chat_template(folder)


@pytest.mark.parametrize("template", [None, [], 3, [{"name": "rag", "template": "x"}]])
def test_folders_without_a_template(folder: Path, template: object) -> None:
    _change(folder, chat_template=template)
    with pytest.raises(ModelError, match="there is no chat template: expected the field") as caught:
        open_chat_template(folder)
    assert str(folder) in str(caught.value)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="there is no chat template"):
        open_chat_template(folder)


def test_unreadable_templates(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match="expected text in UTF-8"):
        open_chat_template(folder)
    path.write_bytes(b" " * (1 << 21))
    with pytest.raises(ModelError, match="expected at most 1048576 bytes"):
        open_chat_template(folder)


def test_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ModelError, match=r"need the package jinja2.*pip install jinja2"):
        open_chat_template(FOLDER)
