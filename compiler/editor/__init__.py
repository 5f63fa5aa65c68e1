"""What editors ask of the language: diagnostics as one types, completion, pages, names, fixes, hints."""
