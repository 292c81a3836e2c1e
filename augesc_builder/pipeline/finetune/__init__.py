"""Stage finetune: the backbone, fine-tuned on few sessions."""
