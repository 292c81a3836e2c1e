"""Dialog models at work: examples, tokens, responses, conversations."""
