"""Each sink knows one outside protocol, sends once when asked, and says what a failure means."""
