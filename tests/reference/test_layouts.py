"""Layouts: each is an ordinary checkpoint that is what it claims, and holds its model's weights to the bit."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemma4_contract import Fixtures, ModelCard, checkpoint, tensors
from gemma4_contract.documents import read_model
from gemma4_contract.tensors import Array
from reference import loading, weights
from reference.cases.forward import golden_id
from reference.export.checkpoint import model_weights, write_checkpoint
from reference.layouts import LAYOUTS, Layout
from reference.models import MODELS
from reference.weights import tensor_shapes

each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all layouts, freshly written."""
    root = tmp_path_factory.mktemp("layouts")
    for layout in LAYOUTS.values():
        stored = layout.laid_out(model_weights(layout.weights_of))
        write_checkpoint(root / layout.id, layout.config_json, stored, layout.shards)
    return root


def stored(directory: Path) -> dict[str, Array]:
    """Every tensor of a checkpoint by its own name."""
    return {name: value for file in checkpoint.files(directory) for name, value in tensors.read(file).items()}


def raw(directory: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((directory / "config.json").read_bytes())
    return value


def below(prefix: str, layout: str) -> set[str]:
    """Names of the model's tensors under a prefix."""
    return {prefix + name.removeprefix("model.") for name in model_weights(LAYOUTS[layout].weights_of)}


# --- the weights of the model


@each_layout
def test_the_reader_gives_the_model_s_weights_to_the_bit(layout: Layout, root: Path) -> None:
    config, read = loading.load(root / layout.id)
    built = model_weights(layout.weights_of)
    redundant = tensor_shapes(config, redundant_shared_kv=layout.redundant_shared_kv).keys() - built.keys()
    assert read.keys() - redundant == built.keys()
    assert all(np.array_equal(read[name].astype(np.float64), value) for name, value in built.items())
    model = layout.weights_of.config
    facts = ("head_dim_of", "kv_heads_of", "k_eq_v", "kv_donor", "mlp_width_of", "window_of", "rope_of")
    for layer in range(model.num_hidden_layers):
        assert [getattr(config, fact)(layer) for fact in facts] == [getattr(model, fact)(layer) for fact in facts]
    if layout.id != "layout-dense-experts":  # which says more than the model
        assert config == model


@each_layout
def test_mlx_impl_s_own_loader_gives_the_same(layout: Layout, root: Path) -> None:
    pytest.importorskip("mlx.core")
    import mlx_impl

    loaded = mlx_impl.load(root / layout.id).tensors()
    built = model_weights(layout.weights_of)
    assert loaded.keys() == built.keys()
    assert all(np.array_equal(np.array(loaded[name]), value) for name, value in built.items())


@each_layout
def test_a_layout_is_stored_as_it_is_written(layout: Layout, root: Path) -> None:
    fixtures = Fixtures()
    committed = fixtures.model_dir(layout.id)
    written = {path.name: path.read_bytes() for path in (root / layout.id).iterdir()}
    assert {path.name: path.read_bytes() for path in committed.iterdir() if path.name != "model.json"} == written
    card = read_model(committed / "model.json", ModelCard)
    assert (card.weights_of, card.redundant_shared_kv) == (layout.weights_of.id, layout.redundant_shared_kv)
    assert card.tensors == len(stored(committed))
    assert not card.overrides.keys() & set(layout.absent)
    case = fixtures.case(f"forward/{layout.id}/uniform-l19/no-cache")
    assert fixtures.owner(case).id == golden_id(layout.weights_of)


def test_models_own_their_weights_and_layouts_do_not() -> None:
    fixtures = Fixtures()
    assert set(fixtures.model_ids) == MODELS.keys() | LAYOUTS.keys()
    cards = {name: read_model(fixtures.model_dir(name) / "model.json", ModelCard) for name in fixtures.model_ids}
    assert {name for name, card in cards.items() if card.weights_of is None} == set(MODELS)
    assert all(name.startswith("layout-") for name in LAYOUTS)


# --- each is what it claims


def test_language_model(root: Path) -> None:
    directory = root / "layout-language-model"
    assert stored(directory).keys() == below("language_model.model.", directory.name)
    assert raw(directory)["model_type"] == "gemma4"


def test_sharded(root: Path) -> None:
    directory = root / "layout-sharded"
    names = [f"model-0000{shard}-of-00003.safetensors" for shard in (1, 2, 3)]
    assert sorted(path.name for path in directory.iterdir()) == ["config.json", *names, "model.safetensors.index.json"]
    index = json.loads((directory / "model.safetensors.index.json").read_bytes())
    found = {name: shard for shard in names for name in tensors.read(directory / shard)}
    assert index["weight_map"] == found
    assert index["metadata"] == {"total_size": sum(value.nbytes for value in stored(directory).values())}
    assert found.keys() == below("model.language_model.", directory.name)
    assert Counter(found.values()).keys() == set(names)
    layers = {name: name.split(".layers.")[1].split(".")[0] for name in found if ".layers." in name}
    shards_of_layer = {layer: {found[name] for name in layers if layers[name] == layer} for layer in layers.values()}
    assert max(map(len, shards_of_layer.values())) == 2  # a layer may lie in two shards
    assert "text_config" in raw(directory)


def test_towers(root: Path) -> None:
    directory = root / "layout-towers"
    arrays = stored(directory)
    text = below("model.language_model.", directory.name)
    others = {name: value for name, value in arrays.items() if name not in text}
    assert text < arrays.keys()
    head = others.pop("lm_head.weight")
    assert np.array_equal(head, arrays["model.language_model.embed_tokens.weight"])
    kinds = {name.split(".")[1] for name in others}
    assert kinds == {"embed_audio", "embed_vision", "vision_embedder", "vision_tower"}
    assert all(value.any() for value in others.values())
    suffix = "layers.0.self_attn.k_proj.weight"
    twin = arrays[f"model.language_model.{suffix}"]
    assert others[f"model.vision_tower.encoder.{suffix}"].shape == twin.shape
    assert not np.array_equal(others[f"model.vision_tower.encoder.{suffix}"], twin)
    assert raw(directory)["model_type"] == "gemma4_unified"
    assert raw(directory)["text_config"]["model_type"] == "gemma4_unified_text"


def test_split_experts(root: Path) -> None:
    directory = root / "layout-split-experts"
    arrays = stored(directory)
    experts = {name.partition(".experts.")[2]: value.shape for name, value in arrays.items() if ".experts." in name}
    assert experts == {
        "switch_glu.gate_proj.weight": (7, 12, 40),
        "switch_glu.up_proj.weight": (7, 12, 40),
        "switch_glu.down_proj.weight": (7, 40, 12),
    }
    assert len(arrays) == len(below("", directory.name)) + 3  # in each of three layers a tensor more
    text = raw(directory)["text_config"]
    assert text["moe_intermediate_size"] == 12
    assert all(name.startswith("language_model.model.") for name in arrays)


def test_redundant_kv(root: Path) -> None:
    directory = root / "layout-redundant-kv"
    arrays, own = stored(directory), below("model.", directory.name)
    surplus = {name: value for name, value in arrays.items() if name not in own}
    parts = ("k_norm", "k_proj", "v_proj")
    assert surplus.keys() == {f"model.layers.{i}.self_attn.{part}.weight" for i in (2, 3) for part in parts}
    for name, value in surplus.items():
        donor = name.replace("layers.2", "layers.0").replace("layers.3", "layers.1")
        assert not np.array_equal(value, arrays[donor])
        assert value.shape == arrays[donor].shape
        if name.endswith("proj.weight"):
            noise = weights.matrix(f"{directory.name}/{name}", value.shape, 40)
            assert np.array_equal(value.astype(np.float64), noise)
    assert "text_config" not in raw(directory)


def test_no_rope(root: Path) -> None:
    config = raw(root / "layout-no-rope")
    assert config == {k: v for k, v in MODELS["trap-softcap"].config_json.items() if k != "rope_parameters"}


def test_dense_experts(root: Path) -> None:
    config = raw(root / "layout-dense-experts")
    names = ("enable_moe_block", "num_experts", "top_k_experts", "moe_intermediate_size")
    assert [config[name] for name in names] == [False, 8, 2, 16]
    assert stored(root / "layout-dense-experts").keys() == below("model.", "layout-dense-experts")


def test_per_layer_config_is_what_transformers_writes(root: Path) -> None:
    config = raw(root / "layout-per-layer-config")
    assert config["per_layer_config"] == {"2": {"head_dim": 16, "num_key_value_heads": 1}}
    assert not config.keys() & {"global_head_dim", "num_global_key_value_heads"}
    pytest.importorskip("transformers")
    from reference.transformers_model.build import text_config_of

    theirs = text_config_of(MODELS["trap-softcap"].text_config).to_diff_dict()
    keys = config.keys() - {"architectures"}
    assert {key: theirs[key] for key in keys} == {key: config[key] for key in keys}
    assert not theirs.keys() & {"global_head_dim", "num_global_key_value_heads"}
