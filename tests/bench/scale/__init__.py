"""Whether a job, and an idle second, cost the same however much there is."""
