"""vLLM as a decoding engine: ``process`` starts one, ``worker`` runs in it, ``server`` asks one."""
