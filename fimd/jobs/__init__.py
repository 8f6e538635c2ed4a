"""Long work in processes of its own, with progress and cancellation."""
