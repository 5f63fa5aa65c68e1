"""What a model's nodes take, beside what they could."""
