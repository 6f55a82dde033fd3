"""What a table holds: statistics of its columns that merge, their description, and what is odd in them."""
