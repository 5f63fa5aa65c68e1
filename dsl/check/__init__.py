"""From syntax tree to policy."""
