"""Write the golden folders of Llama and its relatives under ``tests/assets/llama``.

Run by hand, once, with ``torch``, ``transformers``, ``tokenizers`` and
``numpy`` installed; the tests only read what it wrote:

    python tests/assets/make_llama_fixtures.py

Each folder holds ``config.json`` and the weights as ``save_pretrained``
writes them, in bfloat16 to be small, and ``golden.npz`` with
``input_ids_<i>`` (int64, batch by sequence), ``logits_<i>`` (float32, batch
by sequence by vocabulary) and ``half_<i>`` (the logits of the model in
bfloat16) for i = 0, 1, 2.  The weights are random, and larger than a fresh
model's, biases and gains included: a wrong frequency, a skipped bias or a
wider window then moves the logits far.

``chat`` has a byte-level BPE ``tokenizer.json``, a ``tokenizer_config.json``
with a chat template, and ``golden.json``: chats as text and as ids, and how
the model continues them greedily.  ``sampling.json`` has logits, and the
probabilities after the logits processors of transformers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LogitsProcessorList,
    MinPLogitsWarper,
    PreTrainedTokenizerFast,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

OUT = Path(__file__).resolve().parent / "llama"

# Written for this file.
CHAT_TEMPLATE = """{{ bos_token }}{% for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('unknown role ' + message.role) }}
    {%- endif %}
{{ '<|' + message['role'] + '|>' }}
{{ message['content'] | trim }}<|end|>
{% endfor %}
{% if add_generation_prompt %}
<|assistant|>
{% endif %}"""

DIALOGUES = [
    ("Where is the lighthouse?", "On the rock behind the harbour."),
    ("When does the ferry leave?", "At nine, and again at noon."),
    ("Who bakes the bread?", "The baker by the bridge bakes it."),
    ("Is it raining?", "No, it is only the fountain."),
]

SYSTEM = "You answer in one sentence."


def make_config(model_type: str, **changes: object):
    settings: dict = {
        "vocab_size": 61,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
        "initializer_range": 0.25,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
        **changes,
    }
    return AutoConfig.for_model(model_type, **settings)


def random_model(config, seed: int):
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator) * config.initializer_range
            is_gain = value.dim() == 1 and name.endswith("weight")
            value.copy_(1 + noise if is_gain else noise)
    return model.eval()


def load(folder: Path, dtype: torch.dtype):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", output_loading_info=True
    )
    problems = {kind: found for kind, found in info.items() if found}
    assert not problems, (folder, problems)
    return model.eval()


def write_golden(folder: Path, seed: int) -> None:
    """Read the folder back as float32 and as bfloat16, and store what it answers."""
    wide, half = load(folder, torch.float32), load(folder, torch.bfloat16)
    config = wide.config
    generator = torch.Generator().manual_seed(seed)
    arrays = {}
    for index, shape in enumerate([(1, 1), (2, 7), (1, 20)]):
        ids = torch.randint(config.vocab_size, shape, generator=generator)
        with torch.inference_mode():
            arrays[f"input_ids_{index}"] = ids.numpy()
            arrays[f"logits_{index}"] = wide(ids, use_cache=False).logits.numpy()
            arrays[f"half_{index}"] = half(ids, use_cache=False).logits.float().numpy()
    np.savez_compressed(folder / "golden.npz", **arrays)


def write_model(name: str, model, seed: int, out: Path = OUT) -> Path:
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    write_golden(folder, seed)
    return folder


def in_old_form(folder: Path, **fields: object) -> None:
    """Rewrite config.json as versions of transformers before 5 wrote it.

    The golden logits stay: this version must read the folder as it did.
    """
    path = folder / "config.json"
    table = json.loads(path.read_text("utf-8"))
    del table["rope_parameters"]
    table["torch_dtype"] = table.pop("dtype")
    path.write_text(json.dumps(table | fields, indent=2) + "\n", "utf-8")
    with np.load(folder / "golden.npz") as golden, torch.inference_mode():
        again = load(folder, torch.float32)(torch.tensor(golden["input_ids_2"])).logits
        assert np.array_equal(again.numpy(), golden["logits_2"]), folder


def train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    lines = [line for pair in DIALOGUES for line in pair]
    tokenizer.train_from_iterator([*lines, SYSTEM], trainer)
    # As in Llama 3: plain text starts with <s>; a chat has it in its template.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    return tokenizer


def fit(model, rows: list[list[int]], steps: int) -> None:
    """Fit the model to a few rows of ids (all of them in every step)."""
    width = max(map(len, rows))
    ids = torch.tensor([row + row[-1:] * (width - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        logits = model(ids).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"fitted to a loss of {loss.item():.3f}")


def write_chat(seed: int) -> None:
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(),
        bos_token="<s>",
        eos_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
    )

    def chat(question: str, *more: dict) -> list[dict]:
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}, *more]

    def ids_of(messages: list[dict], prompt: bool) -> list[int]:
        text = wrapped.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        return wrapped(text, add_special_tokens=False)["input_ids"]

    config = make_config(
        "llama",
        vocab_size=len(wrapped),
        hidden_size=16,
        intermediate_size=24,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = random_model(config, seed)
    whole = [chat(q, {"role": "assistant", "content": a}) for q, a in DIALOGUES]
    fit(model, [ids_of(messages, False) for messages in whole], 500)
    folder = write_model("chat", model, 206)
    wrapped.save_pretrained(folder)
    template = folder / "chat_template.jinja"
    table = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    if template.exists():  # as before version 5: next to the tokens
        table["chat_template"] = template.read_text("utf-8")
        template.unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    fitted = load(folder, torch.float32)
    cases = []
    for messages in [chat(q) for q, _ in DIALOGUES] + [whole[0]]:
        prompt = messages[-1]["role"] == "user"
        ids = ids_of(messages, prompt)
        case = {
            "messages": messages,
            "text": wrapped.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=prompt
            ),
            "ids": ids,
        }
        if prompt:
            rows = torch.tensor([ids])
            output = fitted.generate(
                rows,
                attention_mask=torch.ones_like(rows),
                do_sample=False,
                max_new_tokens=24,
                pad_token_id=1,
            )
            new_ids = output[0, len(ids) :].tolist()
            case["new_ids"] = new_ids
            case["answer"] = wrapped.decode(new_ids, skip_special_tokens=True)
        cases.append(case)
    golden = {
        "plain": [{"text": t, "ids": wrapped(t)["input_ids"]} for t in ("Who bakes?", "", "a<s>b")],
        "chats": cases,
    }
    (folder / "golden.json").write_text(json.dumps(golden, indent=1) + "\n", "utf-8")


def write_gemma() -> None:
    tiny = {"head_dim": 8, "tie_word_embeddings": True, "num_hidden_layers": 3}
    write_model("gemma", random_model(make_config("gemma", **tiny), 30), 209)
    # Caps and windows so small that they matter.
    tiny |= {"sliding_window": 5, "query_pre_attn_scalar": 6}
    caps = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
    write_model("gemma2", random_model(make_config("gemma2", **tiny, **caps), 31), 210)
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    scaled = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
    local = {"rope_type": "default", "rope_theta": 20.0}
    parameters = {"full_attention": scaled, "sliding_attention": local}
    config = make_config("gemma3_text", **tiny, layer_types=kinds, rope_parameters=parameters)
    folder = write_model("gemma3", random_model(config, 32), 211)
    scaling = {"rope_type": "linear", "factor": 4.0}
    in_old_form(folder, rope_theta=500.0, rope_local_base_freq=20.0, rope_scaling=scaling)


def write_sampling(seed: int) -> None:
    """Applies the logits processors of transformers, in their order."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((1, 50), generator=generator, dtype=torch.float64) * 3
    seen = torch.tensor([[3, 7, 7, 20, 49]])
    cases = []
    for options in [
        {"temperature": 1.0},
        {"temperature": 0.7},
        {"temperature": 1.5, "top_k": 5},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1.0, "top_p": 0.9},
        {"temperature": 2.0, "top_p": 0.3},
        {"temperature": 1.0, "top_p": 1e-6},
        {"temperature": 1.3, "min_p": 0.05},
        {"temperature": 0.9, "top_k": 20, "top_p": 0.8, "min_p": 0.02},
        {"temperature": 1.0, "repetition_penalty": 1.3},
        {"temperature": 0.8, "repetition_penalty": 0.9, "top_k": 10},
    ]:
        steps = LogitsProcessorList()
        if "repetition_penalty" in options:
            steps.append(RepetitionPenaltyLogitsProcessor(options["repetition_penalty"]))
        steps.append(TemperatureLogitsWarper(options["temperature"]))
        if "top_k" in options:
            steps.append(TopKLogitsWarper(options["top_k"]))
        if "top_p" in options:
            steps.append(TopPLogitsWarper(options["top_p"]))
        if "min_p" in options:
            steps.append(MinPLogitsWarper(options["min_p"]))
        scores = steps(seen, logits.clone())
        cases.append({"options": options, "probabilities": scores.softmax(-1)[0].tolist()})
    golden = {"logits": logits[0].tolist(), "seen": seen[0].tolist(), "cases": cases}
    (OUT / "sampling.json").write_text(json.dumps(golden) + "\n", "utf-8")


def main() -> None:
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    multi_head = make_config("llama", num_key_value_heads=4, rms_norm_eps=1e-5)
    in_old_form(write_model("llama2", random_model(multi_head, 21), 201))
    llama3 = {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    config = make_config(
        "llama", head_dim=16, tie_word_embeddings=True, rope_parameters=dict(llama3)
    )
    write_model("llama32", random_model(config, 22), 202)
    # The same scaling as Llama 3.1 wrote it, and biases.
    config = make_config(
        "llama", head_dim=8, attention_bias=True, mlp_bias=True, rope_parameters=dict(llama3)
    )
    folder = write_model("llama31_old_config", random_model(config, 23), 203)
    scaling = {key: value for key, value in llama3.items() if key != "rope_theta"}
    in_old_form(folder, rope_theta=500.0, rope_scaling=scaling)
    linear = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    config = make_config("llama", rope_parameters=linear)
    folder = write_model("linear_scaling", random_model(config, 24), 204)
    in_old_form(folder, rope_scaling={"type": "linear", "factor": 4.0})
    config = make_config("mistral", head_dim=10, sliding_window=5)
    write_model("mistral", random_model(config, 25), 205)
    config = make_config(
        "qwen2",
        tie_word_embeddings=True,
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=1,
    )
    write_model("qwen2", random_model(config, 26), 207)
    config = make_config("qwen3", head_dim=12, num_key_value_heads=1)
    write_model("qwen3", random_model(config, 27), 208)
    write_gemma()
    write_chat(28)
    write_sampling(29)


if __name__ == "__main__":
    main()
