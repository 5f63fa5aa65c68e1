"""Attentions over caches as ops of ours."""
