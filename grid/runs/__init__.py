"""Scripts that run on without their shell."""
