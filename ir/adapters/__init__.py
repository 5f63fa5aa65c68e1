"""Adapters: files of what fine-tuning changed in the weights of a model."""
