"""Dialog models trained on sessions: fine-tuning, evaluation without people, chat (section 7)."""
