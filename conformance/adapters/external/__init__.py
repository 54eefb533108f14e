"""Ports outside of this process: commands, dumps, and the lines that are exchanged with them."""
