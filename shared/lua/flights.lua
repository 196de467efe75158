-- Purpose: one call for equal requests; this stands before `buckets`.
-- KEYS and ARGV: those of the script that follows. Result: none; it defines functions.
local flights = {}
