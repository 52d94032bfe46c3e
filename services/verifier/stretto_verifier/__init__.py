"""The verifier service (later): judges results that a policy asks to be judged."""
