"""The Jinja environment of chat templates: as the Hugging Face hub has it, but with limits."""

from __future__ import annotations

import datetime
import functools
import json
import re
import traceback
from typing import Any, NoReturn, TypeAlias

from maxmod.generate.template_limits import MAX_SOURCE, MAX_TOKENS, Limited, Opaque, limited_filter

Jinja: TypeAlias = Any
"""An object of the package jinja2, which is imported inside of functions only."""


@functools.cache
def new_environment() -> Jinja:
    """Returns the environment, with the settings, tags, filters and functions of the hub.

    Raises:
        ImportError: If the package jinja2 is missing.
    """
    from jinja2 import pass_context, sandbox, utils

    environment_class = type("_Environment", (Limited, sandbox.ImmutableSandboxedEnvironment), {})
    environment = environment_class(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _generation_tag()],
        optimized=False,  # nothing runs while a template is read
        finalize=pass_context(lambda context, value: context.environment.printed(value)),
    )
    environment.code_generator_class = _code_generator()
    environment.filters["tojson"] = to_json
    for name, function in environment.filters.items():
        environment.filters[name] = limited_filter(name, function)
    del environment.globals["lipsum"]  # random words
    environment.globals["namespace"] = type("Namespace", (Opaque, utils.Namespace), {})
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _now
    return environment


def _generation_tag() -> type[Jinja]:
    """Returns the extension of `{% generation %}`, which marks what a model is trained on."""
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Jinja) -> Jinja:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)  # its assignments end with it

    return Generation


def _code_generator() -> type[Jinja]:
    """Returns the writer of Python for a template, which adds calls of the hooks of `Limited`."""
    from jinja2 import nodes
    from jinja2.compiler import CodeGenerator

    def hooked(hook: str, node: Jinja) -> Jinja:
        function = nodes.EnvironmentAttribute(hook)
        return nodes.Call(function, [node], [], None, None, lineno=node.lineno)

    def container(kind: str) -> Jinja:
        def visit(self: Jinja, node: Jinja, frame: Jinja) -> None:
            is_value = getattr(node, "ctx", "load") == "load"  # else what is assigned to
            self.write("environment.literal(" if is_value else "(")
            getattr(CodeGenerator, kind)(self, node, frame)
            self.write(")")

        return visit

    class Code(CodeGenerator):
        visit_List, visit_Tuple, visit_Dict = map(  # noqa: N815
            container, ("visit_List", "visit_Tuple", "visit_Dict")
        )

        def visit_For(self, node: Jinja, frame: Jinja) -> None:  # noqa: N802
            node.iter = hooked("counted", node.iter)
            super().visit_For(node, frame)

        def visit_Concat(self, node: Jinja, frame: Jinja) -> None:  # noqa: N802
            node.nodes = [hooked("printed", item) for item in node.nodes]
            super().visit_Concat(node, frame)

    return Code


def new_template(source: str) -> Jinja:
    """Returns the template of a source.

    Raises:
        Exception: If it is malformed, or so large that reading it takes more than seconds.
    """
    environment = new_environment()
    if len(source) > MAX_SOURCE:
        raise ValueError(f"expected at most {MAX_SOURCE} characters, got {len(source)}")
    tokens = [line for line, kind, _ in environment.lex(source) if kind != "whitespace"]
    if len(tokens) > MAX_TOKENS:
        raise _TooLongError(tokens[MAX_TOKENS])
    return environment.from_string(source)


class _TooLongError(Exception):
    def __init__(self, line: int) -> None:
        super().__init__(f"expected at most {MAX_TOKENS} words and signs")
        self.line = line


def line_of(error: Exception, source: str) -> int | None:
    """Returns the line of a template that an error is about: that of its innermost frame."""
    from jinja2 import TemplateSyntaxError, nodes
    from jinja2.parser import Parser

    if isinstance(error, TemplateSyntaxError):
        return error.lineno
    if isinstance(error, _TooLongError):
        return error.line
    if isinstance(error, SyntaxError):
        return _line_of_python(source, error.lineno or 0)
    for frame, line in reversed([*traceback.walk_tb(error.__traceback__)]):
        template = frame.f_globals.get("__jinja_template__")
        if template is not None:
            return template.get_corresponding_lineno(line)
        for name in ("node", "self"):
            found = frame.f_locals.get(name)
            if isinstance(found, nodes.Node):
                return found.lineno
            if isinstance(found, Parser):
                return found.stream.current.lineno
    return None


def _line_of_python(source: str, line: int) -> int | None:
    """Returns the line of a template for one of the Python that Jinja writes for it.

    Python refuses some of that, such as more than 20 loops in each other.
    """
    written = new_environment().compile(source, raw=True)
    pairs = re.findall(r"(\d+)=(\d+)", written[written.rfind("debug_info = ") :])
    return max((int(own) for own, python in pairs if int(python) <= line), default=None)


def line_of_pieces(template: Jinja, pieces: Jinja) -> int | None:
    """Returns the line where a rendering stopped, if an error came from what took its pieces."""
    frame = pieces.gi_frame
    return None if frame is None else template.get_corresponding_lineno(frame.f_lineno)


def _raise(message: object) -> NoReturn:
    raise ValueError(message)


def _now(format: str) -> str:
    return datetime.datetime.now().strftime(format)


def to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter `tojson`: jinja2's own escapes for HTML, which models were not trained on."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
