"""Models that outgrow a machine: one is made, and compiled under watch."""
