"""What a policy means: its values, and the schema that they are held to."""
