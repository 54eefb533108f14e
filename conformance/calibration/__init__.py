"""How far honest implementations err: the floors that tolerances are made of."""
