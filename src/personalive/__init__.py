"""PersonaLive."""
