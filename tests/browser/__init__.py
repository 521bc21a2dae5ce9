"""The dashboard as people meet it: a real browser, a real Klingel, its own sandbox, and somebody's receiver."""
