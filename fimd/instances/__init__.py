"""An instance from request to release, and the writable views that instances share."""
