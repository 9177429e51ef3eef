"""What llama.cpp gives us: its binding, models, sessions and samplers."""
