"""Many runs from one config, here or on several machines."""
