"""The domain of the ops that are ours."""

DOMAIN = "qcc"


VERSION = 1
