"""What candidates cost, foreseen by gradients."""
