"""From failed cases to the mistake behind them: the error in words, the nearest known mistake, the smallest case."""
