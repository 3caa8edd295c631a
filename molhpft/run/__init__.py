"""HP-FT from a config to a run folder."""
