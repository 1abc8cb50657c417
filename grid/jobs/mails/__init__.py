"""Mails about jobs that have ended: their text, and sending them."""
