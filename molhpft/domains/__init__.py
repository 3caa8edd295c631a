"""Data to tasks and encoders to chains, one folder or file a domain."""
