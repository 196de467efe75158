-- Purpose: the periods of budgets.
-- KEYS and ARGV: those of the script that includes it. Result: none; it defines a function.
-- @include generated/figures
-- @include lib/prelude
-- Names of the day and the month: days since 1970 as a date (Howard Hinnant, "chrono-Compatible
-- Low-Level Date Algorithms").
local periods
do
  local names
  function periods()
    if names then return names end
    local z = math.floor(now / FIGURES.DAY_MS) + 719468
    local era = math.floor(z / 146097)
    local doe = z - era * 146097
    local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524)
      - math.floor(doe / 146096)) / 365)
    local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
    local mp = math.floor((5 * doy + 2) / 153)
    local day = doy - math.floor((153 * mp + 2) / 5) + 1
    local month = mp < 10 and mp + 3 or mp - 9
    local year = yoe + era * 400 + (month <= 2 and 1 or 0)
    local of_month = string.format('%04d%02d', year, month)
    names = {month = of_month, day = of_month .. string.format('%02d', day)}
    return names
  end
end
