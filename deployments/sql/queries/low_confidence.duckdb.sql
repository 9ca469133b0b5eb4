-- Recordings whose text somebody should look at, those with most doubtful seconds first. A segment is doubtful where the
-- model was unsure (avg_logprob), repeated itself (compression_ratio) or was marked by the checks (flags).
SELECT
    source_uri,
    count(*) FILTER (doubtful) AS doubtful_segments,
    round(sum(end_s - start_s) FILTER (doubtful), 2) AS doubtful_s,
    round(sum(end_s - start_s) FILTER (doubtful) / sum(end_s - start_s), 3) AS doubtful_share,
    round(min(avg_logprob), 2) AS lowest_logprob,
    list_sort(list_distinct(flatten(list(flags)))) AS flags
FROM (
    SELECT *, avg_logprob < -1.0 OR compression_ratio > 2.4 OR len(flags) > 0 AS doubtful
    FROM latest_segments
)
GROUP BY source_uri
HAVING bool_or(doubtful)
ORDER BY doubtful_s DESC, source_uri;
