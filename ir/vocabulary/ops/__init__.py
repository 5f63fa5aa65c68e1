"""The definitions, found by being here."""
