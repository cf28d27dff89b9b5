"""What is known about the fields of config.json and its like, besides those that a model reads.

Every field is of one of three kinds: used by the model (the fields of its configuration dataclass),
neutral, or known to change results, which is refused unless it has a value that changes nothing.
What is of no kind is unknown; see `maxmod.models.config`.

Source: the configuration classes of the transformers library, versions 4.57.1 and 5.24.0 (their own
fields, those of the base class, those of generation that older versions wrote into config.json, and
what their code does with each), the files that sentence-transformers 6.2 writes, and config.json of
public models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class KnownFields:
    """The fields of a configuration file that its reader does not use.

    Attributes:
        neutral: Names of fields that change nothing.
        changing: Names of fields that change results, with the values that change nothing.
        unused: Fields of the dataclass that this kind of model does not read.
        aliases: Other names of fields that are used.
        classes: Names of the classes of transformers that the field `architectures` may have.
        headed: Those of them whose result comes from a head that is not read here.
        code: Prefix of the classes of code in a folder that are known to compute the same.
    """

    neutral: frozenset[str] = frozenset()
    changing: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    unused: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)
    classes: frozenset[str] = frozenset()
    headed: frozenset[str] = frozenset()
    code: str | None = None


def _names(*texts: str) -> frozenset[str]:
    return frozenset(" ".join(texts).split())


# ---- config.json: neutral ------------------------------------------------------------------------

# The base class: names, labels, training, what a call returns, and how it is split.
_BASE = """
_attn_implementation _attn_implementation_autoset _attn_implementation_internal _commit_hash
_experts_implementation _flash_attn_2_enabled _from_model_config _name_or_path _num_labels
attn_implementation
bos_token_id chunk_size_feed_forward custom_pipelines decoder_start_token_id dtype eos_token_id
experts_implementation finetuning_task gradient_checkpointing id2label initializer_range label2id
model_type name_or_path num_labels output_attentions output_hidden_states output_past pad_token_id
prefix problem_type return_dict sep_token_id task_specific_params tf_legacy_loss
tie_last_hidden_states tokenizer_class torch_dtype torchscript transformers_version unk_token_id
use_bfloat16 use_cache use_return_dict xla_device
"""
# Generation: how tokens are chosen, never how logits are computed.
_GENERATION = """
assistant_confidence_threshold assistant_early_exit assistant_ensemble_weight assistant_lookbehind
bad_words_ids begin_suppress_tokens cache_config cache_implementation compile_config constraints
continuous_batching_config disable_compile diversity_penalty do_sample dola_layers early_stopping
encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff
exponential_decay_length_penalty force_words_ids forced_bos_token_id forced_eos_token_id
generation_config guidance_scale is_assistant length_penalty low_memory max_cache_len max_length
max_matching_ngram_size max_new_tokens max_time min_length min_new_tokens min_p
no_repeat_ngram_size num_assistant_tokens num_assistant_tokens_schedule num_beam_groups num_beams
num_return_sequences output_logits output_scores penalty_alpha prefill_chunk_size
prompt_lookup_num_tokens remove_invalid_values renormalize_logits repetition_penalty
return_dict_in_generate return_legacy_cache sequence_bias speculation_type stop_strings
suppress_tokens target_lookbehind temperature token_healing top_h top_k top_p typical_p use_mtp
watermarking_config
"""
# What tools write that train, convert or serve models. The layouts that `fuse_*` speak of show in
# the names and shapes of the weights.
_TOOLS = """
adapters fuse_attention_ffn fuse_attention_qkv is_llama_config max_sequence_length model_max_length
neftune_noise_alpha paddlenlp_version pretraining_tp sentence_transformers
tokenizer_model_max_length tokenizer_padding_side transformers.js_config unsloth_fixed
unsloth_version use_flash_attention use_flash_attn use_flashattn use_fused_rms_norm
use_fused_rope use_recompute use_sdpa virtual_pp_degree
"""
# Dropout is for training. The weights tell whether there are biases.
_DECODER = """
attention_bias attention_dropout is_decoder mlp_bias original_max_position_embeddings
"""
_GPT2 = """
afn attn_pdrop embd_pdrop is_decoder n_ctx n_special predict_special_tokens reorder_and_upcast_attn
resid_pdrop summary_activation summary_first_dropout summary_proj_to_labels summary_type
summary_use_proj
"""
# Of models whose layers are all of one kind and see all tokens.
_ONE_KIND = "sliding_window layer_types"
_COHERE2 = """
layer_switch order_of_interleaved_layers use_embedding_sharing use_gated_activation
use_parallel_block use_parallel_embedding
"""
_OPT = """
activation_dropout attention_dropout dropout init_std layerdrop
"""
_STARCODER2 = """
activation_function attention_softmax_in_fp32 embedding_dropout layer_norm_epsilon mlp_type
norm_type residual_dropout scale_attention_softmax_in_fp32 scale_attn_weights
"""
_BERT = """
attention_probs_dropout_prob classifier_dropout directionality hidden_dropout_prob pooler_fc_size
pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
sbert_ce_default_activation_function tie_word_embeddings
"""
_ALBERT = "classifier_dropout_prob"
_DISTILBERT = """
attention_dropout dropout qa_dropout seq_classif_dropout sinusoidal_pos_embds tie_weights_
tie_word_embeddings
"""
_DISTILBERT_ALIASES = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "activation": "hidden_act",
}
_ELECTRA = """
summary_activation summary_last_dropout summary_type summary_use_proj
"""
_MODERNBERT = """
attention_dropout classifier_dropout cls_token_id deterministic_flash_attn embedding_dropout
initializer_cutoff_factor layer_norm_eps mlp_dropout position_embedding_type reference_compile
repad_logits_with_grad sparse_pred_ignore_index sparse_prediction
"""
# The code of its own that came first has fields like those of GPT-2. It was trained for texts of
# `max_trained_positions`, and stretches positions beyond, which is not done here.
_NOMIC = """
attn_pdrop dense_seq_output embd_pdrop fused_bias_fc fused_dropout_add_ln n_positions
pad_vocab_size_multiple reorder_and_upcast_attn resid_pdrop rotary_scaling_factor
scale_attn_weights summary_activation summary_first_dropout summary_proj_to_labels summary_type
summary_use_proj use_xentropy
"""
_NOMIC_ALIASES = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "layer_norm_epsilon": "layer_norm_eps",
    "max_trained_positions": "max_position_embeddings",
    "rotary_emb_base": "rope_theta",
}
_NOMIC_CHANGING = {
    "activation_function": (None, "swiglu"),
    "causal": (None, False),
    "mlp_fc1_bias": (None, False),
    "mlp_fc2_bias": (None, False),
    "moe_every_n_layers": (None, 0),
    "parallel_block": (None, False),
    "parallel_block_tied_norm": (None, False),
    "prenorm": (None, False),
    "qkv_proj_bias": (None, False),
    "rotary_emb_fraction": (None, 1),
    "rotary_emb_interleaved": (None, False),
    "rotary_emb_scale_base": (None,),
    "scale_attn_by_inverse_layer_idx": (None, False),
    "use_rms_norm": (None, False),
}
_VIT = """
attention_probs_dropout_prob encoder_stride hidden_dropout_prob pooler_act pooler_output_size
tie_word_embeddings
"""

# ---- config.json: known to change results --------------------------------------------------------

# The values after each are those that change nothing. Weights tell of most other differences, as a
# load takes all of them or none.
_CHANGING: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (None, False),
    "alibi": (None, False),
    "apply_residual_connection_post_layernorm": (None, False),
    "attention_chunk_size": (None,),
    "attention_multiplier": (None,),
    "attn_logit_softcapping": (None,),
    "attn_temperature_tuning": (None, False, 0),
    "clip_qkv": (None,),
    "compression_config": (None,),
    "cross_attention_hidden_size": (None,),
    "dual_chunk_attention_config": (None,),
    "embedding_multiplier": (None, 1),
    "embedding_size": (None,),
    "final_logit_softcapping": (None,),
    "is_encoder_decoder": (None, False),
    "kv_lora_rank": (None,),
    "logit_scale": (None, 1),
    "logits_scaling": (None, 1),
    "no_rope_layer_interval": (None,),
    "no_rope_layers": (None, []),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0),
    "parallel_attn": (None, False),
    "partial_rotary_factor": (None, 1),
    "per_layer_config": (None, {}),
    "pruned_heads": (None, {}),
    "q_lora_rank": (None,),
    "qk_layernorm": (None, False),
    "quantization": (None,),  # as MLX writes it
    "quantization_config": (None,),
    "query_pre_attn_scalar": (None,),
    "residual_multiplier": (None, 1),
    "rope_interleaved": (None, False),
    "rope_local_base_freq": (None,),
    "rope_ratio": (None, 1),
    "rope_scaling_factor": (None, 1),
    "rope_scaling_type": (None,),
    "rotary_dim": (None,),
    "rotary_pct": (None, 1),
    "scale_depth": (None,),
    "scale_emb": (None, 1),
    "sliding_window": (None,),
    "sliding_window_pattern": (None, 1),
    "tie_encoder_decoder": (None, False),
    "use_alibi": (None, False),
    "use_dynamic_ntk": (None, False),
    "use_logn_attn": (None, False),
    "use_mrope": (None, False),
    "use_parallel_residual": (None, False),
    "use_qk_norm": (None, False),
    "use_sliding_window": (None, False),
}
_DECODER_CHANGING = _CHANGING | {
    "is_causal": (None, True),
    "position_embedding_type": (None, "rope"),
    "use_bidirectional_attention": (None, False),
}
_ENCODER_CHANGING = _CHANGING | {"is_causal": (None, False), "is_decoder": (None, False)}


def _headed(prefix: str) -> frozenset[str]:
    tasks = ("SequenceClassification", "TokenClassification", "QuestionAnswering")
    return frozenset(f"{prefix}For{task}" for task in tasks)


def _decoder(
    prefix: str,
    neutral: str = "",
    unused: str = "",
    classes: str = "",
    aliases: Mapping[str, str] | None = None,
    changing: Mapping[str, tuple[Any, ...]] | None = None,
    code: str | None = None,
) -> KnownFields:
    return KnownFields(
        neutral=_names(_BASE, _GENERATION, _TOOLS, _DECODER, neutral),
        changing=_DECODER_CHANGING | dict(changing or {}),
        unused=_names(unused),
        aliases=aliases or {},
        code=code,
        classes=_names(f"{prefix}ForCausalLM {prefix}Model {prefix}PreTrainedModel", classes),
        headed=_headed(prefix),
    )


def _encoder(
    prefix: str,
    neutral: str = "",
    unused: str = "",
    aliases: Mapping[str, str] | None = None,
    changing: Mapping[str, tuple[Any, ...]] | None = None,
    code: str | None = None,
) -> KnownFields:
    tasks = """ForMaskedLM ForMultipleChoice ForNextSentencePrediction ForPreTraining
    ForQuestionAnswering ForSequenceClassification ForTokenClassification LMHeadModel ForCausalLM
    Model PreTrainedModel"""
    return KnownFields(
        neutral=_names(_BASE, _GENERATION, _TOOLS, _BERT, neutral, unused),
        changing=_ENCODER_CHANGING | dict(changing or {}),
        unused=_names(unused),
        aliases=aliases or {},
        classes=frozenset(f"{prefix}{task}" for task in tasks.split()),
        code=code,
    )


# By the `model_type` of config.json.
CONFIG: dict[str, KnownFields] = {
    "gpt2": KnownFields(
        neutral=_names(_BASE, _GENERATION, _TOOLS, _GPT2),
        changing=_DECODER_CHANGING
        | {"position_embedding_type": (None, "absolute"), "rope_scaling": (None,)}
        | {"rope_parameters": (None,), "rope_theta": (None,)},
        aliases={
            "hidden_size": "n_embd",
            "max_position_embeddings": "n_positions",
            "num_attention_heads": "n_head",
            "num_hidden_layers": "n_layer",
        },
        classes=_names("GPT2LMHeadModel GPT2DoubleHeadsModel GPT2Model GPT2PreTrainedModel"),
        headed=_headed("GPT2"),
    ),
    "llama": _decoder(
        "Llama",
        neutral="max_window_layers",
        unused="""sliding_window use_sliding_window max_window_layers dual_chunk_attention_config
        partial_rotary_factor""",
    ),
    "mistral": _decoder(
        "Mistral",
        neutral="use_sliding_window max_window_layers",
        unused="""use_sliding_window max_window_layers attention_bias mlp_bias
        dual_chunk_attention_config partial_rotary_factor""",
    ),
    "qwen2": _decoder("Qwen2", unused="attention_bias mlp_bias partial_rotary_factor"),
    "qwen3": _decoder("Qwen3", unused="mlp_bias dual_chunk_attention_config partial_rotary_factor"),
    "gemma": _decoder(
        "Gemma",
        unused="""query_pre_attn_scalar attn_logit_softcapping final_logit_softcapping
        sliding_window sliding_window_pattern rope_local_base_freq partial_rotary_factor""",
    ),
    "gemma2": _decoder("Gemma2", unused="rope_local_base_freq partial_rotary_factor"),
    "gemma3_text": _decoder(
        "Gemma3",
        # Its class has the first, its code does not apply it.
        neutral="attn_logit_softcapping _sliding_window_pattern",
        unused="attn_logit_softcapping partial_rotary_factor",
        classes="Gemma3TextModel Gemma3TextForSequenceClassification",
    ),
    "cohere": _decoder("Cohere", unused=f"{_ONE_KIND} partial_rotary_factor"),
    "cohere2": _decoder(
        "Cohere2",
        neutral=_COHERE2,
        unused="use_qk_norm partial_rotary_factor",
        aliases={"_sliding_window_pattern": "sliding_window_pattern"},
        changing={"position_embedding_type": (None, "rope", "rope_gptj")},
    ),
    "glm": _decoder("Glm", unused=_ONE_KIND),
    "glm4": _decoder("Glm4", unused=_ONE_KIND),
    "gpt_neox": _decoder(
        "GPTNeoX",
        neutral="classifier_dropout hidden_dropout",
        unused=f"{_ONE_KIND} num_key_value_heads head_dim",
        aliases={"rotary_pct": "partial_rotary_factor", "rotary_emb_base": "rope_theta"},
    ),
    "granite": _decoder("Granite", unused=f"{_ONE_KIND} partial_rotary_factor"),
    "ministral": _decoder("Ministral", unused="partial_rotary_factor"),
    "ministral3": _decoder("Ministral3", unused="partial_rotary_factor layer_types"),
    "olmo2": _decoder("Olmo2", unused=f"{_ONE_KIND} partial_rotary_factor"),
    "olmo3": _decoder("Olmo3", unused="partial_rotary_factor"),
    "opt": _decoder(
        "OPT",
        neutral=_OPT,
        unused=f"""{_ONE_KIND} num_key_value_heads head_dim rope_theta rope_scaling rope_parameters
        partial_rotary_factor original_max_position_embeddings""",
        aliases={"ffn_dim": "intermediate_size", "activation_function": "hidden_act"},
        changing={
            "position_embedding_type": (None, "absolute"),
            "rope_parameters": (None,),
            "rope_scaling": (None,),
            "rope_theta": (None,),
        },
    ),
    "phi3": _decoder("Phi3", neutral="embd_pdrop resid_pdrop", unused="layer_types", code="Phi3"),
    "smollm3": _decoder("SmolLM3", neutral="max_window_layers", unused="partial_rotary_factor"),
    "starcoder2": _decoder(
        "Starcoder2", neutral=_STARCODER2, unused="layer_types partial_rotary_factor"
    ),
    "albert": _encoder("Albert", _ALBERT),
    "bert": _encoder("Bert"),
    "camembert": _encoder("Camembert"),
    "deberta-v2": _encoder(
        "DebertaV2",
        "pooler_dropout",
        changing={"attention_head_size": (None,), "conv_kernel_size": (None, 0)},
    ),
    "distilbert": _encoder("DistilBert", _DISTILBERT, "type_vocab_size", _DISTILBERT_ALIASES),
    "electra": _encoder("Electra", _ELECTRA),
    "modernbert": _encoder("ModernBert", _MODERNBERT, "hidden_act"),
    "mpnet": _encoder("MPNet", unused="type_vocab_size"),
    "nomic_bert": _encoder(
        "NomicBert",
        neutral=_NOMIC,
        aliases=_NOMIC_ALIASES,
        changing=_NOMIC_CHANGING,
        code="NomicBert",
    ),
    "roberta": _encoder("Roberta"),
    "xlm-roberta": _encoder("XLMRoberta"),
    "vit": KnownFields(
        neutral=_names(_BASE, _GENERATION, _TOOLS, _VIT),
        changing=_ENCODER_CHANGING,
        classes=_names("ViTForImageClassification ViTModel"),
    ),
}

# ---- other files ---------------------------------------------------------------------------------

# Of a model of images and text, besides those of its parts.
IMAGES_AND_TEXT = KnownFields(
    neutral=_names(
        _BASE,
        _GENERATION,
        _TOOLS,
        """boi_token_index eoi_token_index image_token_id image_token_index mm_tokens_per_image
        multimodal_projector_bias projector_hidden_act spatial_merge_size video_token_id
        vision_end_token_id vision_feature_layer vision_start_token_id vision_token_id""",
    ),
    changing=_DECODER_CHANGING,
)
PREPROCESSOR = KnownFields(
    neutral=_names(
        """_processor_class _valid_processor_keys auto_map data_format device disable_grouping
        do_convert_rgb do_reduce_labels image_seq_length input_data_format model_input_names
        processor_class return_tensors"""
    ),
    changing={
        "crop_pct": (None,),
        "default_to_square": (None, True),
        "do_align_long_axis": (None, False),
        "do_flip_channel_order": (None, False),
        "do_pad": (None, False),
        "do_thumbnail": (None, False),
        "pad_size": (None,),
        "rescale_offset": (None, False),
        "size_divisor": (None,),
    },
)
SENTENCE_BERT = KnownFields(
    neutral=_names("config_args modality_config model_args tokenizer_args unpad_inputs")
)
SENTENCE_TRANSFORMERS = KnownFields(
    neutral=_names("__version__ model_type similarity_fn_name"),
    changing={"truncate_dim": (None,)},
)
DENSE = KnownFields(
    changing={
        "module_input_name": (None, "sentence_embedding"),
        "module_output_name": (None, "sentence_embedding"),
    }
)
POOLING = KnownFields(neutral=_names("embedding_dimension word_embedding_dimension"))
