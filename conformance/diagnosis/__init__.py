"""From failed cases to their cause: a description of the error, the nearest known mistake, the smallest case."""
