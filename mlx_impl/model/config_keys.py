"""Every key that a Gemma 4 config.json may hold; any other is refused by name."""

# Keys of a text config that are read and checked.
TEXT_KEYS = frozenset(
    {
        "attention_bias",
        "attention_k_eq_v",
        "enable_moe_block",
        "expert_intermediate_size",
        "final_logit_softcapping",
        "global_head_dim",
        "head_dim",
        "hidden_activation",
        "hidden_size",
        "hidden_size_per_layer_input",
        "intermediate_size",
        "layer_types",
        "model_type",
        "moe_intermediate_size",
        "num_attention_heads",
        "num_experts",
        "num_global_key_value_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "num_kv_shared_layers",
        "per_layer_config",
        "rms_norm_eps",
        "rope_parameters",
        "sliding_window",
        "tie_word_embeddings",
        "top_k_experts",
        "use_bidirectional_attention",
        "use_double_wide_mlp",
        "vocab_size",
        "vocab_size_per_layer_input",
    }
)
# Keys at the top level of a nested config that are read and checked.
TOP_KEYS = frozenset({"model_type", "text_config", "tie_word_embeddings"})
# Keys of either that are known to change no number of the text decoder.
IRRELEVANT = frozenset(
    {
        # training, and a switch for callers
        "attention_dropout",
        "chunk_size_feed_forward",
        "initializer_range",
        "use_cache",
        # how it was stored, and how far it was trained
        "dtype",
        "torch_dtype",
        "max_position_embeddings",
        # for the tokenizer and the prompt
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "audio_token_id",
        "boa_token_id",
        "boi_token_id",
        "eoa_token_id",
        "eoa_token_index",
        "eoi_token_id",
        "image_token_id",
        "video_token_id",
        # other towers
        "vision_config",
        "audio_config",
        "vision_soft_tokens_per_image",
        # what transformers writes into every file
        "_name_or_path",
        "architectures",
        "id2label",
        "is_encoder_decoder",
        "label2id",
        "output_attentions",
        "output_hidden_states",
        "problem_type",
        "return_dict",
        "transformers_version",
        # sampling, put there by mlx-community
        "do_sample",
        "generation_config",
        "temperature",
        "top_k",
        "top_p",
        # for the loader, and for mlx-lm
        "model_file",
        "quantization",
        "quantization_config",
    }
)
# Keys of one entry of `rope_parameters`.
ROPE_KEYS = frozenset({"rope_type", "rope_theta", "partial_rotary_factor"})
