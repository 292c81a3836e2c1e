"""Text: words, prompts, lexicons, personal data, safety flags."""
