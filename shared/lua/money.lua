-- Purpose: budgets in pico-USD; this stands before `buckets`.
-- KEYS and ARGV: those of the script that follows. Result: none; it defines functions.
local money = {}

-- Nil when the budgets of the ticket's caller let its worst price through. Else what keeps it, and
-- for how many ms: `tenant` or `user` (passed over till then), or `over` (it ends).
function money.blocked(ticket)
  return nil
end

-- The worst price is held; returns the word of the grant that says where, empty for nowhere.
function money.take(id, ticket)
  return ''
end

-- The hold named by this word of a grant has ended, and nobody knows what it cost: the worst price
-- counts as spent.
function money.release(word)
end

-- The hold has ended at what it cost in pico-USD; nil: nothing was sent.
function money.settle(word, cost)
end
