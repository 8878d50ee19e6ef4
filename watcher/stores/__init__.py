"""The record: one schema and one implementation, whatever database keeps it."""
