-- What each day brought: recordings, hours of audio, those that failed for good, and of what. Days are those of UTC.
SELECT
    (transcribed_at AT TIME ZONE 'UTC')::DATE AS day,
    count(*) AS recordings,
    round(coalesce(sum(duration_s), 0) / 3600, 4) AS hours,
    count(*) FILTER (status = 'failed') AS failed,
    histogram(error_type) FILTER (status = 'failed') AS reasons
FROM latest_transcripts
GROUP BY day
ORDER BY day;
