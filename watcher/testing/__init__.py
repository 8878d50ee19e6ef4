"""Stand-ins for the world that ship with the package, because `watcher demo` and `replay` run on them."""
