"""Small problems that show the whole method in seconds: handwritten digits, a linear network."""
