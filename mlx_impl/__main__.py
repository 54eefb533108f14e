"""`python -m mlx_impl`."""

from mlx_impl.cli import main

main()
