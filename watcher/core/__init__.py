"""Pure decisions: no await, no clock, no socket, no log; every argument explicit."""
