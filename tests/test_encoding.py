"""Prompts as tokens: texts, and chats with the variables of their templates."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from maxmod.cli.generate import _variable
from maxmod.errors import ArgumentError, OperandError
from maxmod.generate import encode_prompt
from maxmod.generate.text import Tokenizer
from maxmod.generate.tokenizer_files import open_tokenizer

FOLDER = Path(__file__).parent / "assets" / "llama" / "chat"
USER = [{"role": "user", "content": "Hello"}]
TEMPLATE = (
    "{{ messages[-1].content }}|{{ tools | tojson }}|{{ enable_thinking }}|{{ stop }}"
    "{% if add_generation_prompt %}|go{% endif %}"
)


class Model:
    """What is needed of a model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer: Tokenizer = open_tokenizer(folder)

    def text(self, messages: list, **variables: object) -> str:
        tokens = encode_prompt(self, messages, **variables)
        assert tokens == self.tokenizer.encode(self.tokenizer.decode(tokens), special=False)
        return self.tokenizer.decode(tokens)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "model"))
    (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(
        "tool {{ tools }}", "utf-8"
    )
    return Model(folder)


def test_variables_reach_the_template(model: Model) -> None:
    assert model.text(USER) == "Hello|null|||go"
    assert model.text(USER, enable_thinking=False) == "Hello|null|False||go"
    given = {"enable_thinking": True, "stop": "x"}
    assert model.text(USER, template_variables=given) == "Hello|null|True|x|go"
    assert model.text(USER, add_generation_prompt=False) == "Hello|null||"
    answer = [*USER, {"role": "assistant", "content": "He"}]
    assert model.text(answer, continue_final_message=True) == "He"
    assert model.text(USER, tools=None, documents=None) == "Hello|null|||go"


def test_a_chat_with_tools_takes_the_template_for_tools(model: Model) -> None:
    tools = [{"name": "f"}]
    assert model.text(USER, tools=tools) == "tool [{'name': 'f'}]"
    assert model.text(USER, tools=tools, chat_template="default") == 'Hello|[{"name": "f"}]|||go'
    assert model.text(USER, chat_template="a{{ messages|length }}") == "a1"


def test_variables_that_are_never_read_are_refused(model: Model) -> None:
    with pytest.raises(
        OperandError, match=r"'enable_thinkin': .* reads \(add_generation_prompt, en"
    ):
        model.text(USER, enable_thinkin=False)
    with pytest.raises(OperandError, match="'temprature': .* Did you mean 'temperature'"):
        model.text(USER, temprature=1)
    with pytest.raises(OperandError, match="'documents': expected an option or a variable"):
        model.text(USER, documents=[{"text": "x"}])
    with pytest.raises(OperandError, match="Hint: template_variables={...}, or give the variables"):
        model.text(USER, chat_template_kwargs={})
    with pytest.raises(OperandError, match="'chat_template': .* needs messages"):
        encode_prompt(model, "Hello", chat_template="rag")


def test_parts_need_a_template_for_parts(model: Model) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    with pytest.raises(
        ArgumentError, match="message 0: content: .* takes no list of parts. Hint: g"
    ):
        model.text(parts)
    assert model.text(parts, chat_template="{{ messages[0].content[0].text }}") == "Hi"


def test_variables_of_the_command_are_json() -> None:
    assert _variable("enable_thinking=false") == ("enable_thinking", False)
    assert _variable('date="a=b"') == ("date", "a=b")
    assert _variable("tools=" + json.dumps([{"a": 1}])) == ("tools", [{"a": 1}])
    for wrong in ("enable_thinking=False", "enable_thinking", "=1", "a b=1", "date=26 Jul", "x="):
        with pytest.raises(
            ArgumentError, match="template-variable: expected NAME=JSON, got .*Hint"
        ):
            _variable(wrong)
