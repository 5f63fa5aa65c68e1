"""Adapters that were trained beside a model, folded and not."""
