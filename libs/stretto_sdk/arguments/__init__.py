"""What a task may say to the executors that Stretto brings: how its `arguments` are read. Pure.

Workers read them before a body begins, with its inputs; a plan file is checked by the same readers
before anything is sent, when only the names of the inputs are known.
"""
