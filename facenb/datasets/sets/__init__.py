"""Training sets: how they are made, stored and read."""
