"""What each layer of a model is worth: what every format would lose of the outputs, and what time it takes."""
