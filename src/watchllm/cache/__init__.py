"""What is remembered of answers: canonical form and key, the exact store's port, replay of one wire form as another."""
