"""What only PostgreSQL has: statements that it prepares, and values as its literals."""
