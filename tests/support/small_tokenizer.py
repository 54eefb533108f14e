"""A small tokenizer of the very kind of Gemma 4's, for everything that needs no download."""

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

MERGES = [("H", "i"), ("▁", "Hi"), ("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "▁"), ("\n", "\n")]
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", '<|"|>']


def build_tokenizer() -> tokenizers.Tokenizer:
    """ASCII, a few merges, all bytes and ten control tokens."""
    letters = [chr(code) for code in range(33, 127)] + ["▁", "\n", "\t", "\N{REPLACEMENT CHARACTER}"]
    tokens = [*CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *(a + b for a, b in MERGES)]
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    model = models.BPE(vocab=vocabulary, merges=MERGES, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    built = tokenizers.Tokenizer(model)
    built.normalizer = normalizers.Replace(" ", "▁")
    built.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    built.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    built.add_special_tokens([tokenizers.AddedToken(token, normalized=False, special=True) for token in CONTROL])
    return built
