"""The server's side: makes and measures the bases that devices run (torch lives here)."""
