"""Multiple-choice knapsacks, solved exactly."""
