"""Measures the errors of honest implementations: the floors that tolerances are made of."""
