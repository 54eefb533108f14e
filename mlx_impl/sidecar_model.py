"""The module that `model_file` in a config.json names; see `mlx_impl.sidecar`."""

from mlx_impl.sidecar import Model, ModelArgs

__all__ = ["Model", "ModelArgs"]
