namespace wtool {}
