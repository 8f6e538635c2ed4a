"""From a request to the plan that a client executes: identity, permissions, bindings, sandbox."""
