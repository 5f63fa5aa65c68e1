"""What a policy would lose at every size that its formats allow: a curve, measured once."""
