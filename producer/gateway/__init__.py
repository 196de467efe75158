"""The HTTP gateway: an unmodified client of OpenAI or Anthropic calls, and each call is a job."""
