"""Passes that change constants so that an encoded graph makes what the float one makes."""
