"""Latency and memory of the MLX decoder (`tox -e bench`); not part of `pytest conformance/`."""
