"""Rows of data through models: callables over columns, and the command with its files."""

from __future__ import annotations

import csv
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.folders import ASSETS, with_head

from maxmod import CPU, batch
from maxmod.batch import columns, job, rows, sinks
from maxmod.batch.predictors import Outcome, Predictor
from maxmod.cli import main
from maxmod.errors import ArgumentError, ModelError, OperandError
from maxmod.models import adder_folder, load_encoder, load_model

ADDER = adder_folder()
SENTENCES = ASSETS / "bert" / "sentences"
SUMS = [f"{7 * n % 100}+{n * n % 1000}=" for n in range(40)]
ANSWERS = [str(sum(map(int, text[:-1].split("+")))) for text in SUMS]


# ---- callables -----------------------------------------------------------------------------------


def test_columns_of_a_dict() -> None:
    add = batch.Generate(ADDER, column="sum", output="answer", batch_size=8, device=CPU())
    given = {"id": np.arange(40), "sum": np.array(SUMS, dtype=object)}
    found = add(given)
    assert list(found) == ["id", "sum", "answer"]
    assert found["answer"] == ANSWERS
    assert found["id"] is given["id"]


def test_callables_are_pickled_without_weights() -> None:
    add = batch.Generate(ADDER, column="sum", device=CPU())
    add({"sum": ["1+1="]})
    data = pickle.dumps(add)
    assert len(data) < 1000
    assert pickle.loads(data)({"sum": ["1+2="]})["completion"] == ["3"]


def test_rows_with_errors() -> None:
    texts = ["1+1=", "", None, "2+2=", 5, "a"]
    add = batch.Generate(ADDER, on_error="column", device=CPU())
    found = add({"text": texts})
    assert found["completion"] == ["2", None, None, "4", None, None]
    assert [error is None for error in found["error"]] == [True, False, False, True, False, False]
    assert "prompt is empty" in found["error"][1]
    with pytest.raises(ArgumentError, match="the prompt is empty"):
        batch.Generate(ADDER, device=CPU())({"text": texts})
    embed = batch.Embed(SENTENCES, on_error="column", device=CPU())
    vectors = embed({"text": ["a cat", None, "the dog", 3]})
    assert [vector is None for vector in vectors["embedding"]] == [False, True, False, True]
    expected = load_encoder(SENTENCES, device=CPU()).embed(["a cat", "the dog"])
    np.testing.assert_allclose(np.stack(vectors["embedding"][::2]), expected, rtol=1e-5, atol=1e-6)


def test_wrong_folders_and_options_end_the_call() -> None:
    with pytest.raises(ModelError, match="there is no"):
        batch.Generate("/nowhere", on_error="column", device=CPU())({"text": ["1+1="]})
    with pytest.raises(ArgumentError, match="prompt_name: expected no name"):
        embed = batch.Embed(SENTENCES, on_error="column", prompt_name="x", device=CPU())
        embed({"text": ["a"]})
    with pytest.raises(ArgumentError, match="batch_size: expected 1 or more"):
        batch.Generate(ADDER, on_error="column", batch_size=0, device=CPU())({"text": ["1+1="]})
    with pytest.raises(ArgumentError, match="on_error: expected one of raise, column"):
        batch.Embed(SENTENCES, on_error="null")
    with pytest.raises(ArgumentError, match="system: requires chat=True"):
        batch.Generate(ADDER, system="Be brief.")


def test_columns_that_do_not_fit() -> None:
    add = batch.Generate(ADDER, column="sum", output="answer", device=CPU())
    with pytest.raises(ArgumentError, match=r"no column 'sum': the columns are sums. Did you mean"):
        add({"sums": ["1+1="]})
    with pytest.raises(ArgumentError, match="there is a column 'answer' already"):
        add({"sum": ["1+1="], "answer": [1]})
    with pytest.raises(OperandError, match="expected a dict of columns, .* got list"):
        add(["1+1="])


def test_vectors_are_one_array() -> None:
    found = batch.Embed(SENTENCES, device=CPU())({"text": ["a cat", "the dog sees a bridge"]})
    assert found["embedding"].shape == (2, 24)
    assert found["embedding"].dtype == np.float32


def test_drawn_texts_depend_on_numbers_of_rows() -> None:
    """Not on the batch that they are in, nor on their place."""
    options: dict[str, Any] = {"temperature": 60.0, "seed": 3, "max_new_tokens": 6, "device": CPU()}
    draw = batch.Generate(ADDER, id="id", batch_size=3, **options)
    whole = draw({"id": np.arange(12), "text": ["1+1="] * 12})["completion"]
    assert len(set(whole)) > 6
    parts = [draw({"id": [n], "text": ["1+1="]})["completion"][0] for n in (7, 2, 11)]
    assert parts == [whole[7], whole[2], whole[11]]
    model = load_model(ADDER, device=CPU())
    assert whole[0] == model.generate("1+1=", temperature=60.0, seed=3, max_new_tokens=6)
    names = draw({"id": ["a", "b"], "text": ["1+1="] * 2})["completion"]
    assert draw({"id": ["b"], "text": ["1+1="]})["completion"] == names[1:]


def test_tables_of_arrow() -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    add = batch.Generate(ADDER, column="sum", output="answer", on_error="column", device=CPU())
    table = pyarrow.table({"sum": ["1+1=", ""], "n": [1, 2]})
    found = add(table)
    assert found.column_names == ["sum", "n", "answer", "error"]
    assert found["answer"].to_pylist() == ["2", None]
    (part,) = table.to_batches()
    assert add(part)["answer"].to_pylist() == ["2", None]
    embed = batch.Embed(SENTENCES, column="sum", on_error="column", device=CPU())
    vectors = embed(pyarrow.table({"sum": ["a cat", None]}))["embedding"]
    assert vectors.type == pyarrow.list_(pyarrow.float32())
    assert [row is None for row in vectors.to_pylist()] == [False, True]


def test_frames_of_pandas() -> None:
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    add = batch.Generate(ADDER, column="sum", output="answer", device=CPU())
    frame = pandas.DataFrame({"sum": SUMS[:3]})
    assert add(frame)["answer"].tolist() == ANSWERS[:3]


# ---- the command ---------------------------------------------------------------------------------


def _run(task: str, *arguments: str, model: object = ADDER) -> int:
    return main(["batch", task, "--model", str(model), "--device", "cpu", *arguments])


def _objects(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _json_lines(path: Path, objects: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in objects), "utf-8")
    return path


def test_rows_of_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = ['{"prompt": "1+1=", "id": 7}', "{", "[1]", "", '{"id": 8}', '{"prompt": ""}']
    lines.append('{"prompt": "123+456="}')
    source.write_bytes("\n".join(lines).encode() + b'\n{"prompt": "\xff"}\n')
    assert _run("generate", "--input", str(source), "--output", str(out)) == 0
    found = _objects(out)
    assert [row["completion"] for row in found] == ["2", None, None, None, None, "579", None]
    assert found[0] == {"prompt": "1+1=", "id": 7, "completion": "2", "error": None}
    assert found[1]["error"].startswith(f"{source}, line 2: expected an object of JSON")
    assert found[3] == {"id": 8, "completion": None, "error": "there is no column 'prompt'."}
    assert found[6]["error"] == f"{source}, line 8: expected text in UTF-8."
    assert "7 rows in" in (said := capsys.readouterr().err)
    assert "5 with an error" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_rows_of_csv_and_of_text(tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('sum,note\r\n1+1=,"a, ""b"""\r\n2+2=\r\n3+3=,c\r\n', "utf-8-sig")
    arguments = ("--input", str(source), "--output", str(out), "--column", "sum")
    assert _run("generate", *arguments, "--output-column", "answer") == 0
    with out.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["answer"] for row in found] == ["2", "", "6"]
    assert found[0]["note"] == 'a, "b"'
    assert found[1]["error"] == f"{source}, line 3: expected 2 fields, got 1."
    text, out = tmp_path / "in.txt", tmp_path / "text.jsonl"
    text.write_text("1+1=\n2+2=", "utf-8")
    assert _run("generate", "--input", str(text), str(text), "--output", str(out)) == 0
    assert [row["completion"] for row in _objects(out)] == ["2", "4", "2", "4"]


def test_rows_of_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    import pyarrow.parquet as parquet

    monkeypatch.setattr(sinks, "_PART", 16)
    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    texts = [*SUMS[:20], "", *SUMS[20:]]
    parquet.write_table(pyarrow.table({"prompt": texts, "id": range(41)}), source)
    assert _run("generate", "--input", str(source), "--output", str(out)) == 0
    table = parquet.read_table(out)
    assert table.column_names == ["prompt", "id", "completion", "error"]
    assert table["completion"].to_pylist() == [*ANSWERS[:20], None, *ANSWERS[20:]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]
    vectors = tmp_path / "vectors.parquet"
    arguments = ("--input", str(source), "--output", str(vectors))
    assert _run("embed", *arguments, model=SENTENCES) == 0
    assert parquet.read_schema(vectors).field("embedding").type == pyarrow.list_(pyarrow.float32())


def test_parts_without_a_state_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A longer run before, whose state was removed, leaves none of its rows."""
    pyarrow = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    monkeypatch.setattr(sinks, "_PART", 4)
    path = tmp_path / "out.parquet"
    with sinks.open_sink(str(path), "parquet", None, {"model": "a"}) as sink:
        for n in range(10):
            sink.write({"n": n})
    path.with_name("out.parquet.state").unlink()
    with sinks.open_sink(str(path), "parquet", None, {"model": "b"}) as sink:
        sink.write({"n": 100})
        sink.finish()
    assert pyarrow.read_table(path)["n"].to_pylist() == [100]


def test_text_that_is_not_unicode(tmp_path: Path) -> None:
    """Such a row is an error or is escaped; what is written is UTF-8."""
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(b"prompt,note\n1+1=,a\xff\n2+2=,b\n")
    assert _run("generate", "--input", str(source), "--output", str(out)) == 0
    with out.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert found[0]["error"] == f"{source}, line 2: expected text in UTF-8."
    assert [row["completion"] for row in found] == ["", "4"]
    source = _json_lines(tmp_path / "in.jsonl", [{"prompt": "1+1=", "note": "\ud800é"}])
    out = tmp_path / "out.jsonl"
    assert _run("generate", "--input", str(source), "--output", str(out)) == 0
    assert _objects(out)[0] == {
        "prompt": "1+1=",
        "note": "\ud800é",
        "completion": "2",
        "error": None,
    }
    table = tmp_path / "table.csv"
    assert _run("generate", "--input", str(source), "--output", str(table)) == 0
    assert "?é" in table.read_text("utf-8")


def test_standard_input_and_output(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "maxmod", "batch", "generate", "--model", str(ADDER)]
    command += ["--device", "cpu", "--input", "-", "--output", "-"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    given = b"1+1=\n\xff\n" + "é\n2+2=\n".encode()
    done = subprocess.run(command, input=given, capture_output=True, check=True, env=env)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["completion"] for row in found] == ["2", None, None, "4"]
    assert [row["text"] for row in found] == ["1+1=", None, "é", "2+2="]


def test_labels_and_vectors(tmp_path: Path) -> None:
    source = _json_lines(tmp_path / "in.jsonl", [{"text": "a cat"}, {"text": ["a", "dog"]}])
    arguments = ("--input", str(source), "--output")
    folder = with_head(ASSETS / "encoders" / "bert", "sequence", tmp_path)
    made = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    assert _run("classify", *arguments, str(made[0]), model=folder) == 0
    assert _run("classify", *arguments, str(made[1]), "--top", "2", model=folder) == 0
    one, two = map(_objects, made)
    assert [row["label"] for row in one] == [row["label"][0] for row in two]
    assert [row["label_score"] for row in one] == [row["label_score"][0] for row in two]
    assert _run("embed", *arguments, str(tmp_path / "v.jsonl"), model=SENTENCES) == 0
    vector, other = _objects(tmp_path / "v.jsonl")
    expected = load_encoder(SENTENCES, device=CPU()).embed(["a cat"])[0]
    np.testing.assert_allclose(vector["embedding"], expected, rtol=0, atol=1e-6)
    assert other["error"] is not None


def test_first_rows_and_another_order(tmp_path: Path) -> None:
    source = _json_lines(tmp_path / "in.jsonl", [{"prompt": text} for text in SUMS])
    arguments = ("--input", str(source), "--output")
    _run("generate", *arguments, str(tmp_path / "a.jsonl"), "--limit", "5")
    assert [row["completion"] for row in _objects(tmp_path / "a.jsonl")] == ANSWERS[:5]
    _run("generate", *arguments, str(tmp_path / "b.jsonl"), "--shuffle-seed", "1")
    found = [row["completion"] for row in _objects(tmp_path / "b.jsonl")]
    assert found != ANSWERS
    assert sorted(found) == sorted(ANSWERS)


class Stopping(Predictor):
    """Doubles numbers; stops the process at one of them."""

    def __init__(self, at: int | None) -> None:
        super().__init__("nowhere", column="n", output="double", on_error="column")
        self.at = at
        self.asked: list[Any] = []

    def outcomes(self, values: Any, ids: Any = None) -> Any:
        for value in values:
            self.asked.append(value)
            if value == self.at:
                raise KeyboardInterrupt
            yield Outcome((2 * value,))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_stopped_runs_go_on(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="needs pyarrow")
        monkeypatch.setattr(sinks, "_PART", 4)
    table = [rows.Row({"n": n}) for n in range(20)]
    columns = ["n", "double", "error"]

    def run(name: str, at: int | None) -> Stopping:
        predictor = Stopping(at)
        with sinks.open_sink(str(tmp_path / name), kind, columns, {"model": "m"}) as sink:
            job.run(predictor, enumerate(table), sink, lambda count: None)
        return predictor

    run(f"whole.{kind}", None)
    for at in (7, 13):
        with pytest.raises(KeyboardInterrupt):
            run(f"parts.{kind}", at)
        assert not (tmp_path / f"parts.{kind}").exists()
    assert run(f"parts.{kind}", None).asked[0] == (12 if kind == "parquet" else 13)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"parts.{kind}", f"whole.{kind}"]
    assert (tmp_path / names[0]).read_bytes() == (tmp_path / names[1]).read_bytes()


def test_rows_after_the_state_are_cut_off(tmp_path: Path) -> None:
    """A process that was killed may have written more than it had counted."""
    path, table = tmp_path / "out.jsonl", [rows.Row({"n": n}) for n in range(5)]
    with pytest.raises(KeyboardInterrupt), sinks.open_sink(str(path), "jsonl", None, {}) as sink:
        job.run(Stopping(3), enumerate(table), sink, lambda count: None)
    with (tmp_path / "out.jsonl.partial").open("ab") as file:
        file.write(b'{"n": 3, "dou')
    with sinks.open_sink(str(path), "jsonl", None, {}) as sink:
        job.run(Stopping(None), enumerate(table), sink, lambda count: None)
    assert [row["double"] for row in _objects(path)] == [0, 2, 4, 6, 8]


def test_killed_command_goes_on(tmp_path: Path) -> None:
    """Drawn texts are the same as those of a run that was not killed."""
    count = 200
    source = _json_lines(tmp_path / "in.jsonl", [{"prompt": f"{n}+{n}="} for n in range(count)])
    arguments = ["batch", "generate", "--model", str(ADDER), "--device", "cpu", "--input"]
    arguments += [str(source), "--seed", "5", "--temperature", "60", "--max-new-tokens", "5"]
    arguments += ["--output", str(tmp_path / "out.jsonl")]
    state = tmp_path / "out.jsonl.state"
    # Every row is saved, so that the state shows the first one long before the last.
    code = "from maxmod.batch import sinks; sinks._SAVE_S = 0; from maxmod.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    try:
        while process.poll() is None:
            if state.exists() and json.loads(state.read_text("utf-8"))["rows"] > 0:
                break
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    assert 0 < json.loads(state.read_text("utf-8"))["rows"] < count
    assert main(arguments) == 0
    whole = tmp_path / "whole.jsonl"
    assert main([*arguments[:-1], str(whole)]) == 0
    assert whole.read_bytes() == (tmp_path / "out.jsonl").read_bytes()


def test_drawn_seed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _json_lines(tmp_path / "in.jsonl", [{"prompt": "1+1="}] * 3)
    arguments = ["--input", str(source), "--output", str(tmp_path / "o.jsonl")]
    arguments += ["--temperature", "60", "--max-new-tokens", "8"]

    def stop(*given: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(job, "run", stop)
        assert _run("generate", *arguments) == 130
    seed = json.loads((tmp_path / "o.jsonl.state").read_text("utf-8"))["about"]["seed"]
    assert _run("generate", *arguments) == 0
    expected = load_model(ADDER, device=CPU()).generate(
        "1+1=", seed=seed, temperature=60.0, max_new_tokens=8
    )
    assert _objects(tmp_path / "o.jsonl")[0]["completion"] == expected


def test_another_run_is_not_mixed_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _json_lines(tmp_path / "in.jsonl", [{"prompt": "1+1="}])
    out = str(tmp_path / "out.jsonl")
    sinks.open_sink(out, "jsonl", None, {"model": "a", "top": 1}).close()
    with pytest.raises(ArgumentError, match='another one: model was "a", is "b"; top was 1, is 2'):
        sinks.open_sink(out, "jsonl", None, {"model": "b", "top": 2})
    Path(f"{out}.partial").unlink()
    with pytest.raises(ArgumentError, match="is missing or shorter than the state says"):
        sinks.open_sink(out, "jsonl", None, {"model": "a", "top": 1})
    assert _run("generate", "--input", str(source), "--output", str(source)) == 1
    assert "the file is there already, and complete" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "--top", "2"), "batch generate: --top: is an option of classify"),
        (("embed", "--seed", "2"), "batch embed: --seed: is an option of generate"),
        (("generate", "--limit", "-1"), "--limit: expected 0 or more, got -1"),
        (("generate", "--column", "prompts"), "no column 'prompts': the columns are prompt. Did"),
        (("generate", "--output-column", "prompt"), "the input has a column 'prompt' already"),
    ],
)
def test_refused_commands(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _json_lines(tmp_path / "in.jsonl", [{"prompt": "1+1="}])
    task, *others = arguments
    files = ("--input", str(source), "--output", str(tmp_path / "out.jsonl"))
    assert _run(task, *files, *others) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_formats_follow_from_names_of_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.data"
    source.write_text('{"prompt": "1+1="}\n', "utf-8")
    arguments = ("--input", str(source), "--output", str(tmp_path / "out.data"))
    assert _run("generate", *arguments) == 1
    assert "--output-format says what the file is" in capsys.readouterr().err
    formats = ("--input-format", "jsonl", "--output-format", "jsonl")
    assert _run("generate", *arguments, *formats) == 0
    assert _objects(tmp_path / "out.data")[0]["completion"] == "2"


def test_empty_input(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("", "utf-8")
    assert _run("generate", "--input", str(source), "--output", str(out)) == 0
    assert out.read_bytes() == b""


def test_values_of_several_kinds_become_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    import pyarrow.parquet as parquet

    monkeypatch.setattr(sinks, "_PART", 2)
    objects = [{"id": 1, "b": 1}, {"id": "a", "b": 2}, {"id": None}, {"b": [3]}, {"b": 2.5}]
    path = str(tmp_path / "out.parquet")
    with sinks.open_sink(path, "parquet", None, {}) as sink:
        for fields in objects:
            sink.write(fields)
        sink.finish()
    table = parquet.read_table(path)
    assert table["id"].to_pylist() == ["1", "a", None, None, None]
    assert table["b"].to_pylist() == ["1", "2", None, "[3]", "2.5"]
    assert table.schema.field("b").type == pyarrow.string()


def test_columns_of_later_rows_are_not_lost(tmp_path: Path) -> None:
    objects = [{"prompt": "1+1="}, {"prompt": "2+2=", "completion": "x"}]
    objects += [{"prompt": "3+3=", "note": "y"}]
    source = _json_lines(tmp_path / "in.jsonl", objects)
    for out in (tmp_path / "out.jsonl", tmp_path / "out.csv"):
        assert _run("generate", "--input", str(source), "--output", str(out)) == 0
    first, second, third = _objects(tmp_path / "out.jsonl")
    assert first["completion"] == "2"
    assert second["completion"] == "x"
    assert second["error"] == "there is a column 'completion' already: x."
    assert third == {"prompt": "3+3=", "note": "y", "completion": "6", "error": None}
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert found[2]["error"] == "left out, as the first row has no such column: note."


def test_arrays_in_columns_are_lists() -> None:
    chat = np.array([{"role": "user", "content": "1+1="}], dtype=object)
    column = np.empty(2, dtype=object)
    column[:] = [chat, np.array([1, 2])]
    assert columns.column_of({"text": column}, "text") == [list(chat), [1, 2]]
