"""`python -m mlx_impl`: the command."""
