"""A score of conformance: the properties of OpenAI's API description, one by one, at the gateway.

Of a request each property counts as good if a call with it is accepted, and the provider gets it as
it was sent. Of an answer it counts as good if the provider sends it and the caller gets it. A
property with values of several types has to pass with all of them. A schema that several places
share counts once for each direction of an address.
"""
