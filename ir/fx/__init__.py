"""The Graph face over torch.export."""
