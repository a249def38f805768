"""A fleet of real workers on real servers, faults at random, and an account of it."""
