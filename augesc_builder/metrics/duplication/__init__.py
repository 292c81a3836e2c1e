"""Sessions and utterances that stand twice."""
