"""The driver: from a policy and a model to a verified artifact."""
