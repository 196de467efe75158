"""The vendors' own libraries on our queue, without a gateway between them."""
