"""What the rows of a table have to do with each other, and how often they are looked up."""
