"""What tests share: fake ports, small checkpoints, runs of the command."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The project's folder."""
