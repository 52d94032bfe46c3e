"""The gRPC edge: request to command to answer. Rules live in the domain, never here."""
