"""What attentions cost."""
