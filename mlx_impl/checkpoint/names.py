"""From a checkpoint's tensor names to ours, which are those of `Gemma4ForCausalLM`'s state dict."""

import re

from mlx_impl.model.config import Config

# The three layouts in circulation: transformers' multimodal, mlx-community's, transformers' text-only.
PREFIXES = ("model.language_model.", "language_model.model.", "model.")
# First component of a name (after an optional `model.`) -> the part of the model that it belongs to, which is left out.
LEFT_OUT = {
    "vision_tower": "images",
    "embed_vision": "images",
    "vision_embedder": "images (12B)",
    "multi_modal_projector": "images",
    "audio_tower": "audio",
    "embed_audio": "audio",
    "lm_head": "tied: the embedding serves as the output matrix",
}
_LM_HEAD = "language_model.lm_head."
_ROPE_BUFFER = re.compile(r"\.rotary_emb\.\w*inv_freq$")
_LAYER_KV = re.compile(r"^model\.layers\.(\d+)\.self_attn\.(?:k_proj|v_proj|k_norm|v_norm)\.(?:weight|scales|biases)$")


def is_left_out(name: str) -> bool:
    """Whether a tensor of a checkpoint belongs to another part of the model, or is computed here and not read."""
    if name.startswith(_LM_HEAD) or _ROPE_BUFFER.search(name):
        return True
    return name.removeprefix("model.").split(".", 1)[0] in LEFT_OUT


def our_name(name: str) -> str:
    """`model.` + what follows the longest known prefix; a name without a known prefix is returned unchanged."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return "model." + name.removeprefix(prefix)
    return name


def is_redundant(name: str, config: Config) -> bool:
    """Whether our tensor `name` is a key or value weight of a KV-shared layer, which Google's files hold unused."""
    found = _LAYER_KV.match(name)
    if found is None:
        return False
    layer = int(found.group(1))
    return layer < config.num_hidden_layers and config.is_kv_shared(layer)
