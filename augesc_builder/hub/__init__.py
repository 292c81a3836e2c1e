"""What goes to the Hugging Face Hub, and whether it may."""
