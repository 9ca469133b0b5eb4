-- Who speaks how much, in calls with a speaker a channel (--channels split).
SELECT
    source_uri,
    channel,
    round(sum(end_s - start_s), 2) AS talk_s,
    round(sum(end_s - start_s) / sum(sum(end_s - start_s)) OVER (PARTITION BY source_uri), 3) AS talk_share
FROM latest_segments
WHERE channel IS NOT NULL
GROUP BY source_uri, channel
ORDER BY source_uri, channel;
