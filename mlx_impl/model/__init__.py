"""The decoder, one file for each part of the forward pass, and its configuration."""
