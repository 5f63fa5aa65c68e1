"""How keys and values of earlier runs are kept: codes in the place of floats."""
