"""The Kubernetes API, read-only: its JSON becomes a snapshot in `decode` and goes no further."""
