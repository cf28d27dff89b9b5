"""Chat templates of strangers: loops without end, strings of any size, and errors of any kind.

Each becomes a ModelError with the line of the template, within seconds and little memory.
"""

from __future__ import annotations

import threading
import time
import tracemalloc

import pytest

from maxmod.errors import ModelError
from maxmod.generate import template_limits
from maxmod.generate.chat import ChatTemplate

USER = [{"role": "user", "content": "Hello"}]
DOUBLING = (
    "{% set ns = namespace(a=A, b=A) %}{% for i in range(60) %}{% set ns.a = B %}{% endfor %}"
)


def _render(source: str) -> str:
    return ChatTemplate(source, {}, "here").render(USER)


def _loops(count: int, body: str) -> str:
    starts = "".join(f"{{% for i{n} in range(100000) %}}" for n in range(count))
    return starts + body + "{% endfor %}" * count


def _doubling(first: str, step: str, use: str) -> str:
    return DOUBLING.replace("A", first).replace("B", step) + "{{ " + use + " }}"


LARGE = [
    "{{ 'a' * 10**10 }}",
    "{{ 10**10 * 'a' }}",
    "{{ [0] * 10**10 }}",
    "{{ (10**100000) | string }}",
    "{{ 2 ** (2 ** 40) }}",
    "{{ 'a'.center(10**10) }}",
    "{{ 'a' | center(10**10) }}",
    "{{ 'a'.ljust(10**10) }}",
    "{{ 'a'.zfill(10**10) }}",
    "{{ 'a' | attr('rjust')(10**10) }}",
    "{% set f = 'a'.center %}{{ f(10**10) }}",
    "{% filter center(10**10) %}x{% endfilter %}",
    "{{ ['a'] | map('center', 10**10) | list }}",
    "{{ range(100000) | map('center', 1000000) | list }}",
    "{{ 'a'.encode().center(10**10) }}",
    "{{ (1).to_bytes(10**10, 'big') }}",
    "{{ ('\\t' * 100000).expandtabs(tabsize=10**6) }}",
    "{{ ('a' * 100000).replace('a', 'b' * 1000000) }}",
    "{{ ('a' * 100000) | replace('a', 'b' * 1000000) }}",
    "{{ ('a' * 100000).translate({97: 'b' * 1000000}) }}",
    "{{ ('a' * 1000000).join(range(9000) | map('string')) }}",
    "{{ range(9000) | join('a' * 1000000) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (10**9, 1) }}",
    "{{ '%(x)-1000000000d' % {'x': 1} }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{0:>{w}}'.format(1, w=10**9) }}",
    "{{ ('{:1000000000}' | safe).format(1) }}",
    "{{ [1] | batch(10**9, 'x') | list }}",
    "{{ [1] | slice(10**9) | list }}",
    "{{ [1] | tojson(indent=10**9) }}",
    "{{ ('a\\n' * 100000) | indent(100000) }}",
    "{{ ('a' * 100000) | wordwrap(1, wrapstring='b' * 100000) }}",
    "{{ (range(30000) | batch(1) | list) | sum(start=[]) }}",
    "{{ 1.5 | round(10**9, 'ceil') }}",
    "{{ ('9' * 400000) | int(0, 16) // 3 }}",
    "{{ ('<!--' * 1000000) | striptags }}",
    "{{ strftime_now('%Y' * 2000000) }}{{ 'a' * 5000000 }}",
    _doubling("'aa'", "ns.a ~ ns.a", "ns.a"),
    _doubling("'aa'", "ns.a + ns.a", "ns.a"),
    _doubling("3", "ns.a * ns.a", "ns.a"),
    _doubling("[1]", "[ns.a, ns.a]", "ns.a"),
    _doubling("[1]", "{'x': ns.a, 'y': ns.a}", "ns.a | tojson"),
    _doubling("[1]", "(ns.a + ns.a) | batch(2) | list", "ns.a == ns.b"),
    _loops(2, "x" * 1000),
    "{% set x %}" + _loops(2, "{{ 'a' * 4000000 }}") + "{% endset %}",
]


@pytest.mark.parametrize("source", LARGE, ids=lambda source: source[:50])
def test_values_and_texts_of_any_size_are_refused(source: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(
            ModelError, match=r"here: .* failed: MemoryError: it makes .*\(line 1 of"
        ):
            _render(source)
        assert tracemalloc.get_traced_memory()[1] < 2e8
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "source",
    [
        _loops(4, ""),
        _loops(3, "{{ 'y' }}"),
        _loops(3, "{% set x = 1 %}"),
        "{{ range(100000)" + " | select" * 100 + " | list }}",
        "{% set ns = namespace(n=0) %}" + _loops(3, "{% set ns.n = ns.n + 1 %}"),
        "{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n else '' }}{% endmacro %}{{ f(60) }}",
        "{% for x in [1] recursive %}{{ loop([1, 2]) if loop.depth < 60 }}{% endfor %}",
    ],
    ids=lambda source: source[:50],
)
def test_loops_without_end_are_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "MAX_TIME_S", 0.2)
    start = time.thread_time()
    with pytest.raises(
        ModelError, match="failed: it takes more than 0.2 s .line 1 of the template"
    ):
        _render(source)
    assert time.thread_time() - start < 2


def test_each_thread_has_own_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "MAX_TIME_S", 0.2)
    endless = ChatTemplate(_loops(4, ""), {}, "here")
    short = ChatTemplate("{{ messages|length }}", {}, "here")
    caught = []

    def run() -> None:
        try:
            endless.render(USER)
        except ModelError as error:
            caught.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert short.render(USER) == "1"
    assert len(caught) == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% macro f() %}\n{{ f() }}{% endmacro %}{{ f() }}", "RecursionError: .*line 2"),
        ("\n{{ cycler() }}", "at least one item has to be provided .line 2"),
        ("{{ 5 |\n dictsort }}", "'int' object has no attribute 'items' .line 2"),
        ("\n\n{{ 1 | tojson(cls=1) }}", "unexpected keyword argument 'cls' .line 3"),
        ("\n{{ 1 / 0 }}", "division by zero .line 2"),
        ("a\n{{ raise_exception('no\\nsystem') }}", "no system .line 2"),
        ("\n{{ x.y.z }}", "'x' is undefined .line 2"),
        ("\n{% include 'secret' %}", "no loader .*line 2"),
        ("{% block a %}{{ self.a() }}{% endblock %}", "RecursionError: .*line 1"),
        ("\n{% filter list %}a{% endfilter %}", "expected a text, got list .line 2"),
        ("\n{{ 'a' + 1 }}", "can only concatenate str .*line 2"),
        ("\n" + _loops(2, "\n" + "x" * 1000), "MemoryError: .*line [23]"),
    ],
    ids=lambda text: text[:40],
)
def test_an_error_of_any_kind_names_the_line(source: str, message: str) -> None:
    with pytest.raises(
        ModelError, match=f"here: the chat template failed: .*{message} of the"
    ) as e:
        _render(source)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "RecursionError: .*line 2"),
        ("\n{{ " + "not " * 5000 + "1 }}", "RecursionError: .*line 2"),
        ("\n{{ " + "1+" * 5000 + "1 }}", "RecursionError: .*line 2"),
        ("\n{{ " + "[" * 3000 + "]" * 3000 + " }}", "RecursionError: .*line 2"),
        ("\n" + "{% if 1 %}" * 3000 + "{% endif %}" * 3000, "RecursionError: .*line 2"),
        ("a\n" + "\n".join(["{% for a in b %}"] * 25) + "{% endfor %}" * 25, "blocks .line 2[0-9]"),
        ("{{ a" + "|select" * 300 + "}}", "too many nested parentheses .line 1"),
        ("\n" + "{{a}}" * 30000, "expected at most 60000 words and signs .line 2"),
        ("a" * (1 << 20) + "b", "expected at most 1048576 characters, got 1048577"),
        ("a\n{% for %}", "line 2"),
        ("a\n\n{{ x | nosuchfilter }}", "No filter named 'nosuchfilter'. .line 3"),
        ("{{ 'a }}", "line 1"),
    ],
    ids=lambda text: text[:40],
)
def test_malformed_templates_name_the_line(source: str, message: str) -> None:
    with pytest.raises(ModelError, match=f"here: the chat template is malformed: .*{message}") as e:
        ChatTemplate(source, {}, "here")
    assert "\n" not in str(e.value)


def test_limits_leave_long_chats_alone() -> None:
    """Many messages of a thousand characters, collected in the ways that templates have."""
    chat = [{"role": "user", "content": f"{i}" + "x" * 1000} for i in range(300)]
    source = """
    {%- set ns = namespace(text='', all=[]) -%}
    {%- for m in messages -%}
        {%- set ns.text = ns.text + m.content + '\n' -%}
        {%- set ns.all = ns.all + [m] -%}
        {%- if messages | length > loop.index and messages[loop.index0:] | list -%}{%- endif -%}
    {%- endfor -%}
    {{- ns.text }}{{ ns.all | tojson }}{{ ns.all | map(attribute='content') | join('\n') }}"""
    text = ChatTemplate(source, {}, "here").render(chat)
    lines = "\n".join(str(m["content"]) for m in chat)
    assert text.startswith(lines + "\n[{") and text.endswith("}]" + lines)


def test_loops_keep_the_variable_loop() -> None:
    source = (
        "{% for x in messages + [1, 2] %}{{ loop.index }}/{{ loop.length }}{{ loop.last }} "
        "{% else %}none{% endfor %}"
        "{% for x in [3, 4] recursive %}{{ x }}{{ loop.depth }}"
        "{{ loop([5]) if loop.depth == 1 else '' }}{% endfor %}"
        "{% for a, b in {'k': 1}.items() %}{{ a }}{{ b }}{% endfor %}"
        "{% for x in none_here %}{% else %}empty{% endfor %}"
    )
    assert _render(source) == "1/3False 2/3False 3/3True 31524152k1empty"
