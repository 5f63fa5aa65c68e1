"""The formats that policies may name: one module a family, found by being here."""
