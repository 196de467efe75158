#!/bin/sh
# Submit a job with curl, wait for its end, and print the result.
#
#     HEADGATE_URL=http://127.0.0.1:8080 sh curl_jobs.sh '{"prompt": "Name three rivers."}'
set -eu

base=${HEADGATE_URL:-http://127.0.0.1:8080}
request=${1:-'{"prompt": "Name three rivers."}'}

# With a key, add: -H "authorization: Bearer $HEADGATE_KEY"
ask() { curl --silent --show-error --fail-with-body --retry 3 -H 'content-type: application/json' "$@"; }

# With an Idempotency-Key the retries of curl submit one job only.
submitted=$(ask "$base/v1/jobs" -H "idempotency-key: example-$$-$(date +%s)" -d "$request")
id=$(printf '%s' "$submitted" | sed 's/.*"id" *: *"\([^"]*\)".*/\1/')

# 200 once the job has ended, 202 while it has not. Each call waits up to 30 s.
code=202
while [ "$code" = 202 ]; do
    answer=$(ask "$base/v1/jobs/$id?wait_s=30" -w '\n%{http_code}')
    code=$(printf '%s\n' "$answer" | tail -n 1)
done
printf '%s\n' "$answer" | sed '$d'
