"""The `stretto` command; starts services as processes, never imports them."""
