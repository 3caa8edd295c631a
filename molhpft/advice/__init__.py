"""What to finetune with, and the strongest simple baselines to compare it with."""
