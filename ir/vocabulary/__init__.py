"""The ops that the project knows, each a definition of which all that names ops is read off."""
