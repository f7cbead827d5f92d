"""Networks that some measures need. The user downloads their files; nothing here fetches anything."""
