"""The web page that answers cite when a knob asks for it; each dialect says it in its own form."""

CITED_URL = "https://example.com/simulated"
CITED_TITLE = "Simulated"
CITED_TEXT = "A simulated page."
