"""The writers of forms: one module a form, called like it."""
