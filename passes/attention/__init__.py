"""What is done to attentions."""
