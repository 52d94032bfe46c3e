"""What tests and the simulator are built from: virtual time, processes that die, a faulty network.

Everything here repeats with one integer: no real clock, no thread, no I/O, and every random choice
drawn from a generator named after its use (`seeded.random_for`). Production code never imports it.
"""
