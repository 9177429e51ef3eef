"""Makes a model faster before it is used: teaches its next-state head and finds skip sets."""
