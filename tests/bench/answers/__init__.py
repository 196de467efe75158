"""What answers cost when they are asked again, at once, of any model, or of one that is down."""
