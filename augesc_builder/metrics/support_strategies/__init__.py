"""What supporters do in their turns, by ESConv's strategies."""
