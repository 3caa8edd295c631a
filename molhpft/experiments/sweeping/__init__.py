"""The trials of a sweep carried out: by processes of this machine or by a Ray cluster."""
