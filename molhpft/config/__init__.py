"""A config: its schema, what it may name, and what it builds."""
