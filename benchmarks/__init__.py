"""What the numbers of the design are, measured side by side in one run: `make bench`."""
