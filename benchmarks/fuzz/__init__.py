"""Inputs that are wrong or drawn, through the command: what goes wrong is told (`run`)."""
