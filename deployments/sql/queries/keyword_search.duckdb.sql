-- Where something was said, with the time to go to. Before it: SET VARIABLE keyword = '환불';
-- Case does not matter, nor how Korean is composed.
SELECT
    source_uri,
    printf('%02d:%02d:%02d', start_s::INT // 3600, start_s::INT // 60 % 60, start_s::INT % 60) AS at,
    channel,
    trim(text) AS text
FROM (SELECT * REPLACE (floor(start_s) AS start_s) FROM latest_segments)
WHERE contains(lower(nfc_normalize(text)), lower(nfc_normalize(getvariable('keyword'))))
ORDER BY source_uri, segment_id;
