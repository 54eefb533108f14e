"""Weights by rule: published hash vectors, every base and exponent, transformers' own names and shapes."""

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from reference import weights
from reference.export import scalar_rule
from reference.full_size import FULL_SIZE
from reference.models import MODELS, Model
from tests.support import scalar_elements

each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())

# http://www.isthe.com/chongo/tech/comp/fnv: FNV-1a, 64 bits.
FNV1A = {"": 0xCBF29CE484222325, "a": 0xAF63DC4C8601EC8C, "foobar": 0x85944171F73967E8}
# The first outputs of SplitMix64 (prng.di.unimi.it/splitmix64.c) from two seeds.
SPLITMIX = {
    1234567: (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431),
    0: (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC),
}
GAMMA = 0x9E3779B97F4A7C15


def test_hashes_give_the_published_vectors() -> None:
    for text, digest in FNV1A.items():
        assert weights.fnv1a64(text) == scalar_rule.fnv1a64(text.encode()) == digest
    assert weights.fnv1a64("é") == scalar_rule.fnv1a64(b"\xc3\xa9")  # names are hashed as UTF-8
    for seed, outputs in SPLITMIX.items():
        states = [seed + step * GAMMA & scalar_rule.MASK for step in range(len(outputs))]
        assert tuple(weights.splitmix64(np.array(states, np.uint64)).tolist()) == outputs
        assert tuple(scalar_rule.splitmix64(state) for state in states) == outputs


VECTOR = [
    *[("e2b-mini/model.embed_tokens.weight", i) for i in (0, 1, 2, 3, 255, 256)],
    *[("e2b-mini/model.layers.0.self_attn.q_proj.weight", i) for i in (0, 1, 47, 48, 3071)],
    *[("e2b/model.embed_tokens_per_layer.weight", i) for i in (0, 2**31 - 1, 2**31, 2**32 + 1, 262144 * 35 * 256 - 1)],
]


def test_self_check_vector_of_sixteen_values() -> None:
    assert len(VECTOR) == 16
    assert len({name for name, _ in VECTOR}) == 3
    for name, i in VECTOR:
        assert weights.hash_words(name, i, i + 1).tolist() == [scalar_rule.word(name, i)]
        assert weights.q(name, i, i + 1).tolist() == [scalar_rule.q(name, i)]


def test_counter_wraps_at_two_to_the_64() -> None:
    name = "e2b-mini/model.layers.0.mlp.gate_proj.weight"
    start = 2**64 - scalar_rule.fnv1a64(name.encode()) - 2  # the third word is that of state 0
    words = weights.hash_words(name, start, start + 4).tolist()
    assert words == [scalar_rule.splitmix64(state) for state in (2**64 - 2, 2**64 - 1, 0, 1)]


def test_q_is_every_int8_with_the_stated_deviation() -> None:
    values = weights.q("any/name", 0, 20000)
    assert values.dtype == np.int8
    assert sorted(set(values.tolist())) == list(range(-128, 128))
    assert abs(values.astype(float).std() - 73.9) < 0.5  # sqrt((256^2 - 1) / 12)
    assert np.array_equal(weights.q("any/name", 37, 41), values[37:41])


# fan_in -> k. 96, 1536 and 6144 lie just below a tie: 73.9 * sqrt(96) = 2^9.49998.
EXPONENTS = {8: 8, 16: 8, 48: 9, 56: 9, 96: 9, 97: 10, 256: 10, 1536: 11, 1537: 12, 2816: 12, 5376: 12, 6144: 12}


def test_matrix_exponents() -> None:
    for fan_in, k in EXPONENTS.items():
        assert scalar_rule.matrix_exponent(fan_in) == k
        row = weights.matrix(f"k/{fan_in}", (3, 7), fan_in)
        expected = [[scalar_rule.q(f"k/{fan_in}", 7 * i + j) / 2**k for j in range(7)] for i in range(3)]
        assert row.tolist() == expected, fan_in


def test_norm_bases_are_rounded_before_they_multiply() -> None:
    # In bf16 5.6/sqrt(32) is 0.98828125; unrounded, 0.98994949, it gives other weights.
    base, width = 5.6 / math.sqrt(32), 64
    rounded = scalar_rule.to_bf16(Fraction(base))
    assert rounded == Fraction(0.98828125)
    terms = [1 + Fraction(scalar_rule.q("base", i), 256) for i in range(width)]
    once = [float(scalar_rule.to_bf16(term * rounded)) for term in terms]
    assert once != [float(scalar_rule.to_bf16(term * Fraction(base))) for term in terms]
    assert weights.norm("base", width, base).tolist() == once


def test_bf16_rounds_to_nearest_even() -> None:
    ties = {1 + 2**-8: 1.0, 1 + 3 * 2**-8: 1 + 2**-6, -1 - 2**-8: -1.0, 0.005: 0.0050048828125, 1.3: 1.296875}
    for value, rounded in ties.items():
        assert float(weights.bf16(value)) == rounded == float(scalar_rule.to_bf16(Fraction(value)))


@each_model
def test_every_tensor_follows_the_rule(model: Model) -> None:
    shapes = weights.tensor_shapes(model.config, redundant_shared_kv=model.redundant_shared_kv)
    built = weights.weights(model.id, model.config, mini=True, redundant_shared_kv=model.redundant_shared_kv)
    assert list(built) == list(shapes)
    for name, shape in shapes.items():
        tensor = built[name]
        assert tensor.shape == shape
        assert tensor.dtype == np.float64
        assert np.array_equal(tensor, tensor.astype(ml_dtypes.bfloat16).astype(np.float64)), name
        flat, step = tensor.reshape(-1), max(1, tensor.size // 5)
        for index in {*range(0, tensor.size, step), tensor.size - 1}:
            expected = scalar_elements.element(model.id, name, index, shape, model.text_config)
            assert Fraction(flat[index]) == expected, (name, index)


def test_final_norm_takes_its_signs_from_a_second_hash() -> None:
    name, width = "e2b-mini/model.norm.weight", MODELS["e2b-mini"].config.hidden_size
    weight = weights.weights("e2b-mini", MODELS["e2b-mini"].config, mini=True)["model.norm.weight"]
    assert np.array_equal(np.abs(weight), weights.norm(name, width, 20.0))
    assert (weight < 0).tolist() == [scalar_rule.q(name + "#sign", i) < 0 for i in range(width)]
    assert width / 4 < (weight < 0).sum() < 3 * width / 4


def test_expert_scales_come_from_a_table_of_256_bf16_values() -> None:
    assert weights.EXP2_TABLE.shape == (256,)
    for index, value in enumerate(weights.EXP2_TABLE.tolist()):
        assert Fraction(value) == scalar_rule.to_bf16(scalar_rule.exp2(index - 128, 80)), index
    assert weights.EXP2_TABLE[128] == 1.0
    assert 0.32 < weights.EXP2_TABLE[0] < 0.34
    assert weights.EXP2_TABLE[255] == 3.0


def test_layer_scalars_cycle_and_minis_have_two_extremes() -> None:
    cycle = [0.8984375, 1.1015625, 0.953125, 0.984375, 1.046875]
    full = [weights.layer_scalar(layer, mini=False).tolist() for layer in range(12)]
    assert full == [[cycle[layer % 5]] for layer in range(12)]
    mini = [weights.layer_scalar(layer, mini=True).tolist() for layer in range(12)]
    assert mini == [full[0], [0.0050048828125], [1.296875], *full[3:]]
    assert 0.9 < math.prod(cycle) < 1.1


@pytest.mark.parametrize(("branch", "base"), [(1, 0.25), (2, 0.125)])
def test_at_full_size_the_experts_weigh_half_as_much(branch: int, base: float) -> None:
    name, config = f"model.layers.3.post_feedforward_layernorm_{branch}.weight", FULL_SIZE["26b-a4b-full"].config
    built = weights.tensor("26b-a4b-full", name, (2816,), config, mini=False)
    for index in (0, 1, 1407, 2815):
        expected = scalar_rule.weight("norm", f"26b-a4b-full/{name}", index, base=base)
        assert Fraction(built[index]) == expected


def test_fan_in_of_experts_is_their_last_axis() -> None:
    model = MODELS["26b-a4b-mini"]
    built = weights.weights(model.id, model.config, mini=True)
    for name, fan_in in {"gate_up_proj": 48, "down_proj": 16}.items():
        tensor = built[f"model.layers.0.experts.{name}"]
        assert tensor.shape[-1] == fan_in
        assert abs(tensor.std() * math.sqrt(fan_in) - 1) < 0.42  # 2^-k is within half a power of two


@each_model
def test_names_and_shapes_are_those_of_transformers(model: Model) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from reference.transformers_model.build import text_config_of

    with torch.device("meta"):
        theirs = {
            name: tuple(tensor.shape)
            for name, tensor in transformers.Gemma4ForCausalLM(text_config_of(model.text_config)).state_dict().items()
        }
    assert theirs.pop("lm_head.weight") == theirs["model.embed_tokens.weight"]
    assert weights.tensor_shapes(model.config) == theirs

    redundant = weights.tensor_shapes(model.config, redundant_shared_kv=True)
    surplus = {name: redundant[name] for name in redundant.keys() - theirs.keys()}
    first = len(model.text_config["layer_types"]) - model.text_config["num_kv_shared_layers"]
    kinds = model.text_config["layer_types"]
    expected = {}
    for layer in range(first, len(kinds)):
        twin = kinds.index(kinds[layer])  # a layer of the same type that owns its keys and values
        for part in ("k_proj", "v_proj", "k_norm"):
            expected[f"model.layers.{layer}.self_attn.{part}.weight"] = theirs[
                f"model.layers.{twin}.self_attn.{part}.weight"
            ]
    assert surplus == expected
    assert {name: shape for name, shape in redundant.items() if name in theirs} == theirs
