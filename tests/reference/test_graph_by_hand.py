"""Taps and parents of one small model and of one layer with experts, written by hand and not by the graph.

A line is a tap, its axes and its parents; a number stands for `model.layers.<number>`.
"""

from __future__ import annotations

import re

from gemma4_contract import expand
from gemma4_contract.graph import text_graph
from reference.models import MODELS

TRAP_GQA = """
model.embed_tokens                    | B L D   |
model.embed_tokens_per_layer          | B L N P |
model.per_layer_projection_norm       | B L N P | model.embed_tokens
model.ple                             | B L N P | model.embed_tokens_per_layer model.per_layer_projection_norm

0.input_layernorm                     | B L D   | model.embed_tokens
0.self_attn.q_norm                    | B H L E | 0.input_layernorm
0.self_attn.q_rope                    | B H L E | 0.self_attn.q_norm
0.self_attn.k_norm                    | B K L E | 0.input_layernorm
0.self_attn.k_rope                    | B K L E | 0.self_attn.k_norm
0.self_attn.v_norm                    | B K L E | 0.input_layernorm
0.self_attn.k_read                    | B K S E | 0.self_attn.k_rope
0.self_attn.v_read                    | B K S E | 0.self_attn.v_norm
0.self_attn.probs                     | B H L S | 0.self_attn.q_rope 0.self_attn.k_rope 0.self_attn.k_read
0.self_attn.context                   | B L H*E | 0.self_attn.q_rope 0.self_attn.k_rope 0.self_attn.probs \
    0.self_attn.v_norm 0.self_attn.v_read
0.self_attn.o_proj                    | B L D   | 0.self_attn.context
0.post_attention_layernorm            | B L D   | 0.self_attn.o_proj
0.residual_1                          | B L D   | model.embed_tokens 0.post_attention_layernorm
0.pre_feedforward_layernorm           | B L D   | 0.residual_1
0.mlp.act                             | B L F   | 0.pre_feedforward_layernorm
0.mlp.down_proj                       | B L D   | 0.mlp.act
0.post_feedforward_layernorm          | B L D   | 0.mlp.down_proj
0.residual_2                          | B L D   | 0.residual_1 0.post_feedforward_layernorm
0.ple_gated                           | B L P   | 0.residual_2 model.ple
0.per_layer_projection                | B L D   | 0.ple_gated
0.post_per_layer_input_norm           | B L D   | 0.per_layer_projection
0.output                              | B L D   | 0.residual_2 0.post_per_layer_input_norm

1.input_layernorm                     | B L D   | 0.output
1.self_attn.q_norm                    | B H L E | 1.input_layernorm
1.self_attn.q_rope                    | B H L E | 1.self_attn.q_norm
1.self_attn.k_norm                    | B K L E | 1.input_layernorm
1.self_attn.k_rope                    | B K L E | 1.self_attn.k_norm
1.self_attn.v_norm                    | B K L E | 1.input_layernorm
1.self_attn.k_read                    | B K S E | 1.self_attn.k_rope
1.self_attn.v_read                    | B K S E | 1.self_attn.v_norm
1.self_attn.probs                     | B H L S | 1.self_attn.q_rope 1.self_attn.k_rope 1.self_attn.k_read
1.self_attn.context                   | B L H*E | 1.self_attn.q_rope 1.self_attn.k_rope 1.self_attn.probs \
    1.self_attn.v_norm 1.self_attn.v_read
1.self_attn.o_proj                    | B L D   | 1.self_attn.context
1.post_attention_layernorm            | B L D   | 1.self_attn.o_proj
1.residual_1                          | B L D   | 0.output 1.post_attention_layernorm
1.pre_feedforward_layernorm           | B L D   | 1.residual_1
1.mlp.act                             | B L F   | 1.pre_feedforward_layernorm
1.mlp.down_proj                       | B L D   | 1.mlp.act
1.post_feedforward_layernorm          | B L D   | 1.mlp.down_proj
1.residual_2                          | B L D   | 1.residual_1 1.post_feedforward_layernorm
1.ple_gated                           | B L P   | 1.residual_2 model.ple
1.per_layer_projection                | B L D   | 1.ple_gated
1.post_per_layer_input_norm           | B L D   | 1.per_layer_projection
1.output                              | B L D   | 1.residual_2 1.post_per_layer_input_norm

2.input_layernorm                     | B L D   | 1.output
2.self_attn.q_norm                    | B H L E | 2.input_layernorm
2.self_attn.q_rope                    | B H L E | 2.self_attn.q_norm
2.self_attn.k_read                    | B K S E | 0.self_attn.k_rope
2.self_attn.v_read                    | B K S E | 0.self_attn.v_norm
2.self_attn.probs                     | B H L S | 2.self_attn.q_rope 0.self_attn.k_rope 2.self_attn.k_read
2.self_attn.context                   | B L H*E | 2.self_attn.q_rope 0.self_attn.k_rope 2.self_attn.probs \
    0.self_attn.v_norm 2.self_attn.v_read
2.self_attn.o_proj                    | B L D   | 2.self_attn.context
2.post_attention_layernorm            | B L D   | 2.self_attn.o_proj
2.residual_1                          | B L D   | 1.output 2.post_attention_layernorm
2.pre_feedforward_layernorm           | B L D   | 2.residual_1
2.mlp.act                             | B L F   | 2.pre_feedforward_layernorm
2.mlp.down_proj                       | B L D   | 2.mlp.act
2.post_feedforward_layernorm          | B L D   | 2.mlp.down_proj
2.residual_2                          | B L D   | 2.residual_1 2.post_feedforward_layernorm
2.ple_gated                           | B L P   | 2.residual_2 model.ple
2.per_layer_projection                | B L D   | 2.ple_gated
2.post_per_layer_input_norm           | B L D   | 2.per_layer_projection
2.output                              | B L D   | 2.residual_2 2.post_per_layer_input_norm

3.input_layernorm                     | B L D   | 2.output
3.self_attn.q_norm                    | B H L E | 3.input_layernorm
3.self_attn.q_rope                    | B H L E | 3.self_attn.q_norm
3.self_attn.k_read                    | B K S E | 1.self_attn.k_rope
3.self_attn.v_read                    | B K S E | 1.self_attn.v_norm
3.self_attn.probs                     | B H L S | 3.self_attn.q_rope 1.self_attn.k_rope 3.self_attn.k_read
3.self_attn.context                   | B L H*E | 3.self_attn.q_rope 1.self_attn.k_rope 3.self_attn.probs \
    1.self_attn.v_norm 3.self_attn.v_read
3.self_attn.o_proj                    | B L D   | 3.self_attn.context
3.post_attention_layernorm            | B L D   | 3.self_attn.o_proj
3.residual_1                          | B L D   | 2.output 3.post_attention_layernorm
3.pre_feedforward_layernorm           | B L D   | 3.residual_1
3.mlp.act                             | B L F   | 3.pre_feedforward_layernorm
3.mlp.down_proj                       | B L D   | 3.mlp.act
3.post_feedforward_layernorm          | B L D   | 3.mlp.down_proj
3.residual_2                          | B L D   | 3.residual_1 3.post_feedforward_layernorm
3.ple_gated                           | B L P   | 3.residual_2 model.ple
3.per_layer_projection                | B L D   | 3.ple_gated
3.post_per_layer_input_norm           | B L D   | 3.per_layer_projection
3.output                              | B L D   | 3.residual_2 3.post_per_layer_input_norm

model.norm                            | B L D   | 3.output
logits.raw                            | B L V   | model.norm
logits                                | B L V   | logits.raw
"""

LAYER_4_WITH_EXPERTS = """
4.input_layernorm                     | B L D   | 3.output
4.self_attn.q_norm                    | B H L E | 4.input_layernorm
4.self_attn.q_rope                    | B H L E | 4.self_attn.q_norm
4.self_attn.k_norm                    | B K L E | 4.input_layernorm
4.self_attn.k_rope                    | B K L E | 4.self_attn.k_norm
4.self_attn.v_norm                    | B K L E | 4.input_layernorm
4.self_attn.k_read                    | B K S E | 4.self_attn.k_rope
4.self_attn.v_read                    | B K S E | 4.self_attn.v_norm
4.self_attn.probs                     | B H L S | 4.self_attn.q_rope 4.self_attn.k_rope 4.self_attn.k_read
4.self_attn.context                   | B L H*E | 4.self_attn.q_rope 4.self_attn.k_rope 4.self_attn.probs \
    4.self_attn.v_norm 4.self_attn.v_read
4.self_attn.o_proj                    | B L D   | 4.self_attn.context
4.post_attention_layernorm            | B L D   | 4.self_attn.o_proj
4.residual_1                          | B L D   | 3.output 4.post_attention_layernorm
4.pre_feedforward_layernorm           | B L D   | 4.residual_1
4.mlp.act                             | B L F   | 4.pre_feedforward_layernorm
4.mlp.down_proj                       | B L D   | 4.mlp.act
4.router.proj                         | B L X   | 4.residual_1
4.router.combine                      | B L X   | 4.router.proj
4.pre_feedforward_layernorm_2         | B L D   | 4.residual_1
4.experts                             | B L D   | 4.pre_feedforward_layernorm_2 4.router.combine
4.post_feedforward_layernorm_1        | B L D   | 4.mlp.down_proj
4.post_feedforward_layernorm_2        | B L D   | 4.experts
4.post_feedforward_layernorm  | B L D   | 4.post_feedforward_layernorm_1 4.post_feedforward_layernorm_2
4.residual_2                          | B L D   | 4.residual_1 4.post_feedforward_layernorm
4.output                              | B L D   | 4.residual_2
"""

Line = tuple[str, str, tuple[str, ...]]


def by_hand(text: str) -> list[Line]:
    full = re.sub(r"(?m)(?<![\w.])(\d+)\.", r"model.layers.\1.", text)
    cells = ([cell.strip() for cell in row.split("|")] for row in full.splitlines() if row)
    return [(name, axes, tuple(parents.split())) for name, axes, parents in cells]


def of_graph(model: str) -> list[Line]:
    taps = expand.taps(text_graph(), MODELS[model].config)
    return [(tap.name, " ".join(tap.axes), tap.parents) for tap in taps]


def test_the_taps_of_a_small_model_are_those_of_the_list() -> None:
    assert len(by_hand(TRAP_GQA)) == 89
    assert of_graph("trap-gqa") == by_hand(TRAP_GQA)


def test_the_taps_of_a_layer_with_experts_are_those_of_the_list() -> None:
    of_layer = [line for line in of_graph("26b-a4b-mini") if line[0].startswith("model.layers.4.")]
    assert of_layer == by_hand(LAYER_4_WITH_EXPERTS)
