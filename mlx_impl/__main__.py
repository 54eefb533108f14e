"""`python -m mlx_impl`."""

from mlx_impl.cli.app import main

main()
