-- Which share of a recording nobody speaks in. Where channels were kept apart, speech_s is their sum, and so is what it
-- is held against: two people who never pause and take turns make half of it silence.
SELECT source_uri, duration_s, speech_s, round(1 - speech_s / (duration_s * heard_apart), 3) AS silence_share
FROM (
    SELECT *, CASE WHEN list_max(list_transform(segments, lambda s: s.channel)) IS NULL THEN 1 ELSE channels END AS heard_apart
    FROM latest_transcripts
    WHERE status = 'landed' AND duration_s > 0
)
ORDER BY silence_share DESC, source_uri;
