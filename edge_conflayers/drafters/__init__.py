"""Who proposes tokens for the full model to check, one file each."""
