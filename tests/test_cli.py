"""The command `maxmod`, in a separate process where it matters."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from build_cache import unoptimised_children

import maxmod
from maxmod import cli, configure
from maxmod.cli import main
from maxmod.cli.parser import SUBCOMMANDS, new_parser
from maxmod.models import adder_folder
from maxmod.weights import inspect_text

FOLDER = Path(__file__).parent / "assets" / "gpt2" / "with_tokenizer"
GOLDEN = json.loads((FOLDER / "golden.json").read_text("utf-8"))["generations"]
CHAT = FOLDER.parents[1] / "llama" / "chat"
CHATS = json.loads((CHAT / "golden.json").read_text("utf-8"))["chats"]
ROOT = Path(maxmod.__file__).parents[1]
TIMING = re.compile(
    r"maxmod: load \d+\.\d{3} s, "
    r"(compile \d+\.\d{3} s \(\d+ kernels, (?:cached|\d+ built)\)|eager), "
    r"(\d+) tokens? in \d+\.\d{3} s "
    r"\(\d+ tokens/s\), (cpu|gpu):0 float32\n"
)

# Only `test_answer` is about the first command as a user sees it, compiling included.
pytestmark = pytest.mark.usefixtures("unoptimised_host_kernels")


def _environment(**changes: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", **changes}


def _maxmod(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "maxmod", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        env=_environment(**changes),
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_answer() -> None:
    done = _maxmod("generate", "123+456=")
    assert (done.returncode, done.stdout) == (0, "579\n")
    timing = TIMING.fullmatch(done.stderr)
    assert timing is not None, done.stderr
    assert timing[2] == "3"


def test_quantized(capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["int8"], ["int4", "--group-size", "64"]):
        assert main(["generate", "123+456=", "--eager", "--quantize", *options]) == 0
        done = capsys.readouterr()
        assert done.out == "579\n"
        assert done.err.endswith(f" float32, {options[0]} weights\n")
    assert main(["generate", "1+1=", "--group-size", "64"]) != 0
    assert "skip, head and sensitive need quantize" in capsys.readouterr().err


def test_folder_with_tokenizer(capsys: pytest.CaptureFixture[str]) -> None:
    """The first text by a process of its own."""
    for number, case in enumerate(GOLDEN):
        count = str(case["max_new_tokens"])
        arguments = ("generate", "--model", str(FOLDER), "--max-new-tokens", count)
        arguments += ("--device", "cpu", str(case["prompt"]))
        if number == 0:
            done = _maxmod(*arguments, **unoptimised_children())
            code, out, err = done.returncode, done.stdout, done.stderr
        else:
            code, out, err = _main(capsys, *arguments)
        assert (code, out) == (0, f"{case['text']}\n"), err
        assert TIMING.fullmatch(err)


def _main(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_eager(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = _main(capsys, "generate", "--eager", "--device", "cpu", "7+5=")
    assert (code, out) == (0, "12\n")
    assert TIMING.fullmatch(err)[1] == "eager"


def test_token_ids_need_no_tokenizer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    case = GOLDEN[0]
    prompt = ", ".join(map(str, case["prompt_ids"]))
    arguments = ("--model", str(FOLDER), "--max-new-tokens", "12", "--device", "cpu")
    code, out, _ = _main(capsys, "generate", *arguments, "--token-ids", prompt)
    assert (code, out) == (0, " ".join(map(str, case["new_ids"])) + "\n")
    code, out, err = _main(capsys, "generate", *arguments, "The light")
    assert (code, out) == (1, "")
    assert "pip install tokenizers" in err


def test_dtype_and_temperature(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("generate", "--device", "cpu", "--dtype", "bfloat16", "--temperature", "0.01")
    code, out, err = _main(capsys, *arguments, "--seed", "3", "123+456=")
    assert (code, out) == (0, "579\n")
    assert "bfloat16" in err


def test_sampling_options(capsys: pytest.CaptureFixture[str]) -> None:
    """A hot text, of which each option leaves the most likely token alone."""
    hot = ("generate", "--device", "cpu", "--temperature", "50", "--seed", "1")
    for option in (("--top-k", "1"), ("--top-p", "0.0001"), ("--min-p", "1")):
        assert _main(capsys, *hot, *option, "123+456=")[1] == "579\n"
    code, out, _ = _main(capsys, *hot, "123+456=")
    assert (code, out) != (0, "579\n")
    arguments = ("generate", "--device", "cpu", "--max-new-tokens", "6", "--repetition-penalty")
    assert _main(capsys, *arguments, "1000", "111+222=")[1] != "333\n"
    code, _, err = _main(capsys, *hot, "--top-p", "2", "1+1=")
    assert (code, err) == (
        1,
        "maxmod: error: generate: top_p: expected above 0 and at most 1, got 2.0.\n",
    )


def test_stop_strings(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("generate", "--device", "cpu", "--stop", "x", "--stop", "79")
    assert _main(capsys, *arguments, "123+456=")[:2] == (0, "5\n")


@pytest.mark.parametrize("case", [c for c in CHATS if "answer" in c], ids=lambda c: c["answer"])
def test_chat(capsys: pytest.CaptureFixture[str], case: dict) -> None:
    system, user = (message["content"] for message in case["messages"])
    arguments = ("--model", str(CHAT), "--dtype", "float32", "--device", "cpu")
    code, out, err = _main(capsys, "generate", *arguments, "--system", system, "--chat", user)
    assert (code, out) == (0, f"{case['answer']}\n"), err


def test_chat_needs_a_template(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = _main(capsys, "generate", "--device", "cpu", "--chat", "1+1=")
    assert (code, out) == (1, "")
    assert "there is no chat template" in err
    code, _, err = _main(capsys, "generate", "--device", "cpu", "--system", "x", "1+1=")
    assert code == 1
    assert "--system: requires --chat" in err
    code, _, err = _main(capsys, "generate", "--token-ids", "--stop", "x", "1 2")
    assert code == 1
    assert "--token-ids: cannot be combined with --chat or --stop" in err


def test_embed(capsys: pytest.CaptureFixture[str]) -> None:
    folder = CHAT.parents[1] / "bert" / "sentences"
    texts = json.loads((folder / "golden.json").read_text("utf-8"))["texts"]
    arguments = ("embed", "--model", str(folder), "--device", "cpu", "--dtype", "float32")
    code, out, err = _main(capsys, *arguments, *texts)
    assert code == 0
    found = np.array([json.loads(line) for line in out.splitlines()])
    with np.load(folder / "golden.npz") as golden:
        np.testing.assert_allclose(found, golden["mean"], rtol=0, atol=1e-5)
    assert re.fullmatch(r"maxmod: load .* s, 4 texts in .* s, 24 numbers each, cpu:0 f.*\n", err)
    ids = json.loads((folder / "golden.json").read_text("utf-8"))["tokens"]
    given = [" ".join(map(str, row)) for row in ids]
    assert _main(capsys, *arguments, "--token-ids", *given)[:2] == (0, out)
    code, _, err = _main(capsys, *arguments, "--token-ids", "1 a")
    assert code == 1
    assert "embed: --token-ids: expected integers, got '1 a'" in err
    code, _, err = _main(capsys, *arguments, "--token-ids", "--prompt", "a", "1")
    assert code == 1
    assert "--token-ids: cannot be combined with --prompt" in err
    long = " ".join(["cat"] * 30)
    code, out, err = _main(capsys, *arguments, "--no-truncate", long)
    assert (code, out) == (1, "")
    assert "text 0 is too long" in err
    code, _, err = _main(capsys, *arguments, "--eager", long)
    assert code == 0
    assert err.startswith("maxmod: note: embed: text 0 is too long")
    assert _main(capsys, *arguments, "--truncate", "--eager", long)[0] == 0


def test_template_variables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = shutil.copytree(CHAT, tmp_path / "model")
    source = "{{ messages[0].content }}{% if not hot %}</s>{{ raise_exception(x.y) }}{% endif %}"
    (folder / "chat_template.jinja").write_text(source, "utf-8")
    arguments = ("generate", "--model", str(folder), "--device", "cpu", "--eager", "--greedy")
    arguments += ("--max-new-tokens", "1", "--chat", "Hi")
    variables = ("--template-variable", "hot=false", "--template-variable", 'x={"y": "cold"}')
    assert "the chat template failed: cold (line 1" in _error(capsys, *arguments, *variables)
    assert _main(capsys, *arguments, "--template-variable", "hot=true")[0] == 0
    assert "reads (hot, x)" in _error(capsys, *arguments, "--template-variable", "cold=1")
    other = ("--chat-template", "{{ messages[0].content }}")
    assert _main(capsys, *arguments, *other)[0] == 0
    text = _error(capsys, "generate", "--chat-template", "rag", "1+1=")
    assert "--chat-template: requires --chat" in text


def _type(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _type(monkeypatch, b"123+456=\n")
    assert _main(capsys, "generate", "--eager", "-")[:2] == (0, "579\n")
    folder = CHAT.parents[1] / "bert" / "sentences"
    embed = ("embed", "--model", str(folder), "--device", "cpu", "--eager")
    _, wanted, _ = _main(capsys, *embed, "a cat", "two dogs")
    _type(monkeypatch, b"a cat\r\ntwo dogs\r\n")
    assert _main(capsys, *embed, "-")[:2] == (0, wanted)
    assert "expected no texts in addition to" in _error(capsys, *embed, "-", "a")
    _type(monkeypatch, b"12\xff")
    assert "the byte 0xff at position 2" in _error(capsys, "generate", "-")
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input is closed" in _error(capsys, "generate", "-")


def test_rounding_has_one_name_in_all_commands() -> None:
    for arguments in (["generate", "1"], ["embed", "a", "--model", "m"], ["quantize", "a", "b"]):
        for name in ("--quantize", "--weights"):
            given = [*arguments, name, "int4"]
            assert new_parser(given).parse_args(given).quantize == "int4"


def test_full_model_is_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = _main(capsys, "generate", "--device", "cpu", "1" * 16)
    assert code == 0
    assert len(out) == 2
    notes = [line for line in err.splitlines() if line.startswith("maxmod: note: ")]
    assert notes == [
        "maxmod: note: generate: stopped: the model has room for 16 tokens, prompt included."
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Windows are different")
def test_interrupt() -> None:
    """Ctrl-C while text is coming: an endless text is made by taking the stop tokens away."""
    code = (
        # A shell that runs tests in the background ignores the signal, and children inherit it.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import dataclasses, sys, maxmod.models as models\n"
        "load = models.load_model\n"
        "models.load_model = lambda *a, **k: dataclasses.replace(load(*a, **k), stop=frozenset(),"
        " max_positions=10**9)\n"
        "from maxmod.generate.decoding import Decoder\n"
        "Decoder.next_tokens = lambda self: [2]\n"
        "from maxmod.cli import main\n"
        "sys.exit(main(['generate', '--max-new-tokens', str(10**9), '1+1=']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.read(10) == "2222222222"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert set(out) <= {"2"}
    assert err == "\nmaxmod: interrupted\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of Windows are different")
def test_reader_that_goes_away() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "maxmod", "generate", "123+456="],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(),
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, "")


# ---- errors --------------------------------------------------------------------------------------


def _error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code, out, err = _main(capsys, *arguments)
    assert (code, out) == (1, "")
    assert err.startswith("maxmod: error: ")
    assert err.count("\n") == 1
    return err


def test_no_gpu(capsys: pytest.CaptureFixture[str], no_accelerator: None) -> None:
    text = _error(capsys, "generate", "--device", "gpu", "1+1=")
    assert "Accelerator(0): no accelerator can be used." in text


def test_missing_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = _error(capsys, "generate", "--model", str(tmp_path / "none"), "1+1=")
    assert f"{tmp_path / 'none'}: there is no such folder" in text


def test_empty_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "there is no config.json. Hint: " in _error(
        capsys, "generate", "--model", str(tmp_path), "1"
    )


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (("generate", "1+1=", "--model", ""), "generate: --model"),
        (("explain", "--model", ""), "explain: --model"),
        (("bench", "--model", ""), "bench: --model"),
        (("embed", "a", "--model", ""), "embed: --model"),
        (("classify", "a.png", "--model", ""), "classify: --model"),
        (("rank", "a", "b", "--model", ""), "rank: --model"),
        (("tag", "a", "--model", ""), "tag: --model"),
        (("inspect", ""), "inspect: PATH"),
        (("quantize", "", "out"), "quantize: FOLDER"),
        (("quantize", str(FOLDER), ""), "quantize: OUT"),
    ],
)
def test_empty_paths(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], start: str
) -> None:
    text = _error(capsys, *arguments)
    assert text == f"maxmod: error: {start}: expected a path, got an empty string.\n"


def test_bad_prompts(capsys: pytest.CaptureFixture[str]) -> None:
    assert "character 'a'" in _error(capsys, "generate", "1+a=")
    assert "the prompt is empty" in _error(capsys, "generate", "")
    assert "token 13 at position 1" in _error(capsys, "generate", "--token-ids", "1 13")
    assert "expected integers" in _error(capsys, "generate", "--token-ids", "1 x")
    assert "seed: expected 0 or more" in _error(capsys, "generate", "--seed", "-1", "1+1=")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = _maxmod("generate", "--debug", "--model", str(tmp_path), "1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ModelError" in done.stderr


def test_unknown_options_show_the_usage_of_the_subcommand(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["quantize", "in", "out", "--bits", "3"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "usage: maxmod quantize" in error and "--weights {int8,int4}" in error
    assert "unrecognized arguments: --bits 3" in error


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = _main(capsys)
    assert (code, out) == (2, "")
    assert "generate" in err
    for arguments in (["fly"], ["generate"], ["generate", "--device", "tpu", "1"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2


# ---- the other subcommands -----------------------------------------------------------------------


def test_inspect(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = _main(capsys, "inspect", str(adder_folder()))
    assert code == 0
    assert out.startswith(inspect_text(adder_folder()) + "\n")
    assert "\narchitecture  gpt2, read by load_model\n" in out
    assert out.count("free memory  cpu:0 ") == bool(maxmod.CPU().stats)
    assert "transformer.h.*.attn.c_attn.weight" in out
    _, out, _ = _main(capsys, "inspect", "--all", str(adder_folder()))
    assert "transformer.h.2.attn.c_attn.weight" in out
    assert "no weights" in _error(capsys, "inspect", str(tmp_path))


def test_doctor(capsys: pytest.CaptureFixture[str], no_accelerator: None) -> None:
    code, out, _ = _main(capsys, "doctor")
    assert code == 0
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert rows["maxmod"] == maxmod.__version__
    assert rows["python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert rows["gpu"].startswith("none: ")
    assert {"numpy", "ml_dtypes", "safetensors", "tokenizers", "cupy", "C", "cache"} <= set(rows)


def test_doctor_lists_devices(
    capsys: pytest.CaptureFixture[str], emulated_accelerator: object
) -> None:
    _, out, _ = _main(capsys, "doctor")
    assert re.search(r"^gpu:0 +\S", out, re.MULTILINE)
    assert re.search(r"^gpu:1 +\S", out, re.MULTILINE)


def test_version_and_help_load_no_models() -> None:
    code = (
        "import sys\n"
        "from maxmod.cli import main\n"
        "for line in sys.argv[1:]:\n"
        "    try:\n"
        "        main(line.split())\n"
        "    except SystemExit as end:\n"
        "        heavy = [m for m in sys.modules if m.startswith(('maxmod.models', 'maxmod.nn'))]\n"
        "        assert not end.code and not heavy, (line, heavy)\n"
    )
    lines = ["--version", "--help", *(f"{name} --help" for name in SUBCOMMANDS)]
    done = subprocess.run(
        [sys.executable, "-c", code, *lines],
        capture_output=True,
        text=True,
        env=_environment(),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"maxmod {maxmod.__version__}\nusage: maxmod [-h]")
    for name in SUBCOMMANDS:
        assert f"usage: maxmod {name} [-h]" in done.stdout


def test_every_subcommand_is_in_the_table() -> None:
    modules = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    assert (
        modules - {"__init__", "arguments", "options", "parser", "progress", "several"}
        == SUBCOMMANDS.keys()
    )


def test_cache(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with configure(cache_dir=str(tmp_path)):
        assert _main(capsys, "generate", "--device", "cpu", "1+1=")[0] == 0
        code, out, _ = _main(capsys, "cache", "info")
        assert code == 0
        assert out.splitlines()[0].endswith("(writable)")
        assert _main(capsys, "cache", "path")[1].startswith(str(tmp_path))
        assert "kernels removed from" in _main(capsys, "cache", "clear")[1]
        assert "kernels  0\n" in _main(capsys, "cache", "info")[1]


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    """What a newcomer reads: a summary, steps with bytes, kernels with reasons, memory."""
    code, out, err = _main(capsys, "explain", "--device", "cpu", "--length", "32")
    assert (code, err) == (0, "")
    head, *sections = out.split("\n== ")
    assert head.startswith("decode(6 x float32[1,4,length,16], int64[], int64[1], int64[1,1]")
    assert "launches of" in head and "with length=32" in head and "compiled in" in head
    titles = [section.split()[0] for section in sections]
    assert titles[0] == "steps" and titles[-1] == "memory"
    assert " steps once more, for " in sections[0]
    assert "gpt2.py:" in sections[0]
    assert any("a row is read once" in section for section in sections)
    assert "peak" in sections[-1] and "maxmod explain --source N" in sections[-1]
    assert "#pragma omp" not in out


def test_explain_other_parts(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _main(capsys, "explain", "--device", "cpu", "--source", "1")
    assert code == 0
    assert out.startswith("== kernel 1 ") and "#pragma omp" in out
    code, _, err = _main(capsys, "explain", "--device", "cpu", "--source", "99")
    assert (code, "there is no kernel 99: expected 0 to" in err) == (1, True)
    code, out, _ = _main(capsys, "explain", "--device", "cpu", "--step", "prefill", "--seq", "9")
    assert "with length=64, seq=9" in out
    code, out, _ = _main(capsys, "explain", "--device", "cpu", "--step", "forward", "--all")
    assert "== graph" in out and "== summary" in out and "#pragma omp" in out
    code, out, err = _main(capsys, "explain", "--batch", "0")
    assert (code, err) == (1, "maxmod: error: explain: --batch: expected 1 or more.\n")


def test_explain_writes_a_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    arguments = ("explain", "--device", "cpu", "--html")
    code, out, err = _main(capsys, *arguments, str(path))
    assert (code, err) == (0, "")
    assert out.startswith(f"written: {path} (") and out.endswith(" kB)\n")
    assert path.read_text("utf-8").startswith("<!DOCTYPE html>")
    for wrong, reason in ((tmp_path / "no" / "page.html", "No such file"), (tmp_path, "Is a dir")):
        code, out, err = _main(capsys, *arguments, str(wrong))
        assert (code, out) == (1, "")
        assert err.startswith(f"maxmod: error: explain: --html: cannot write {wrong}: {reason}")


def test_bench(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("bench", "--device", "cpu", "--rounds", "1", "--new-tokens", "3")
    code, out, err = _main(capsys, *arguments)
    assert (code, err) == (0, "")
    for words in ("load", "compile", "first token", "tokens/s", "GB/s", "kernels, "):
        assert words in out
    code, out, _ = _main(capsys, *arguments, "--batch", "2", "--json")
    found = json.loads(out)
    assert found["batch"] == 2
    assert found["new_tokens_per_s"] > 0
    assert found["bytes_per_step"] > 4 * 64 * 64  # at least a weight
    code, out, _ = _main(capsys, *arguments, "--quantize", "int4", "--head", "int4", "--json")
    rounded = json.loads(out)
    assert (found["quantize"], rounded["quantize"]) == (None, "int4")
    assert rounded["bytes_per_step"] < found["bytes_per_step"] / 2
    code, _, err = _main(capsys, *arguments, "--prompt-tokens", "99")
    assert (code, "at most 16 tokens together" in err) == (1, True)
    code, _, err = _main(capsys, "bench", "--rounds", "0")
    assert (code, err) == (1, "maxmod: error: bench: --rounds: expected 1 or more, got 0.\n")


def test_page_without_the_extra_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    path = tmp_path / "page.html"
    code, out, err = _main(capsys, "explain", "--device", "cpu", "--html", str(path))
    assert (code, out) == (1, "")
    assert err.startswith("maxmod: error: explain: a page needs jinja2 and pygments")
    assert err.endswith("Hint: pip install jinja2 pygments.\n")
    assert not path.exists()


def test_inspect_says_the_same_as_the_load(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models--org--adder" / "snapshots" / "1"
    folder.parent.mkdir(parents=True)
    shutil.copytree(adder_folder(), folder)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert main(["inspect", "org/adder"]) == 0
    assert "architecture  gpt2, read by load_model" in capsys.readouterr().out
    table = json.loads((folder / "config.json").read_text("utf-8")) | {"is_causal": False}
    (folder / "config.json").write_text(json.dumps(table), "utf-8")
    assert main(["inspect", "org/adder"]) == 0
    assert "gpt2, which load_model cannot read: " in capsys.readouterr().out


def test_strict_commands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(adder_folder(), tmp_path / "m"))
    table = json.loads((folder / "config.json").read_text("utf-8")) | {"use_fancy_rope": True}
    (folder / "config.json").write_text(json.dumps(table), "utf-8")
    given = ["generate", "--model", str(folder), "1+2=", "--eager"]
    assert main(given) == 0
    captured = capsys.readouterr()
    assert captured.out == "3\n"
    assert "maxmod: note: " in captured.err and "'use_fancy_rope'" in captured.err
    assert main([*given, "--strict"]) == 1
    assert "nobody here knows the field 'use_fancy_rope'" in capsys.readouterr().err
