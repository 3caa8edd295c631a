"""Studies of the paper with figures of their own, and the quickstart."""
