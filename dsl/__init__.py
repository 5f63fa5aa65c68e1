"""The policy language: grammar, syntax tree, checks, diagnostics, formatter and presets."""
