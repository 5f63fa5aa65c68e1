"""How fast `qcc lsp` answers."""
