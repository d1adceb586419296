-- Short tasks with checkable answers: eight families, three levels of difficulty, three splits that share no prompt.
--
-- Deterministic: no random(), no clock. Chance is a hash of integers, so the same rows come out of every run on every machine.
-- Rows: prompt_id, prompt, reference_answer (always right), response (an unreliable demonstrator's), "group" (the family), metadata (JSON),
-- fault (of the response) and split (held_out, train, demonstrations). Only demonstrations have a response and a fault.

WITH
-- What each family draws its characters from, and how many at levels 1, 2 and 3.
families(number, family, alphabet, lengths) AS (
    VALUES
        (1, 'sort',    'abcdefgh',     [3, 4, 5]),
        (2, 'reverse', 'abcdefgh',     [2, 3, 4]),
        (3, 'upper',   'abcdefgh',     [3, 4, 5]),
        (4, 'dash',    'abcdefgh',     [2, 3, 4]),
        (5, 'digits',  '12345678abcd', [3, 4, 5]),
        (6, 'max',     '123456789',    [2, 3, 4]),
        (7, 'count',   'abc',          [4, 5, 6]),
        (8, 'add',     '123456789',    [2, 3, 4])
),
candidates AS (
    SELECT family, alphabet, level, lengths[level] AS length, number * 100000 + level * 10000 + candidate AS seed
    FROM families
    CROSS JOIN generate_series(1, 3) AS levels(level)
    CROSS JOIN generate_series(0, 599) AS candidates(candidate)
),
-- Positions 1 to length are the characters; position 0 is spare chance, for the demonstrator.
positions AS (
    SELECT *, unnest(generate_series(0, length)) AS position FROM candidates
),
-- A 32-bit integer hash: fold (^ is exclusive or) and multiply, twice, and fold. Products stay below 2^59, so nothing overflows.
numbered AS (SELECT *, seed * 16 + position AS hash FROM positions),
folded   AS (SELECT * EXCEPT (hash), ((hash ^ (hash >> 16)) * 73244475) & 4294967295 AS hash FROM numbered),
mixed    AS (SELECT * EXCEPT (hash), ((hash ^ (hash >> 16)) * 73244475) & 4294967295 AS hash FROM folded),
hashed   AS (SELECT * EXCEPT (hash), hash ^ (hash >> 16) AS chance FROM mixed),
drawn    AS (SELECT *, substr(alphabet, chance % length(alphabet) + 1, 1) AS letter FROM hashed),
words AS (
    SELECT family, level, seed, max(length) AS length,
           max(chance) FILTER (WHERE position = 0) AS chance,
           array_agg(letter ORDER BY position) FILTER (WHERE position > 0) AS letters,
           sum(CAST(CASE WHEN letter BETWEEN '0' AND '9' THEN letter END AS BIGINT)) FILTER (WHERE position > 0) AS total
    FROM drawn
    GROUP BY family, level, seed
),
spellings AS (
    SELECT *, array_to_string(letters, '') AS word,
           array_to_string(array_sort(letters, 'ASC'), '') AS ascending, array_to_string(array_sort(letters, 'DESC'), '') AS descending
    FROM words
),
-- The prompt, the right answer, and the answer of someone who mistook the task.
tasks(family, level, seed, chance, prompt, right_answer, mistaken_answer) AS (
    SELECT family, level, seed, chance, 'sort ' || word || '=', ascending, descending FROM spellings WHERE family = 'sort'
    UNION ALL
    SELECT family, level, seed, chance, 'reverse ' || word || '=', reverse(word), word FROM spellings WHERE family = 'reverse'
    UNION ALL
    SELECT family, level, seed, chance, 'upper ' || word || '=', upper(word), initcap(word) FROM spellings WHERE family = 'upper'
    UNION ALL
    SELECT family, level, seed, chance, 'dash ' || word || '=', array_to_string(letters, '-'), array_to_string(letters, ' ') FROM spellings WHERE family = 'dash'
    UNION ALL
    SELECT family, level, seed, chance, 'digits ' || word || '=', regexp_replace(word, '[a-z]', '', 'g'), regexp_replace(word, '[0-9]', '', 'g')
    FROM spellings WHERE family = 'digits'
    UNION ALL
    SELECT family, level, seed, chance, 'max ' || array_to_string(letters, ' ') || '=', substr(descending, 1, 1), substr(ascending, 1, 1) FROM spellings WHERE family = 'max'
    UNION ALL
    SELECT family, level, seed, chance, 'count a ' || word || '=', CAST(length - length(replace(word, 'a', '')) AS VARCHAR), CAST(length - length(replace(word, 'a', '')) + 1 AS VARCHAR)
    FROM spellings WHERE family = 'count'
    UNION ALL
    SELECT family, level, seed, chance, 'add ' || array_to_string(letters, '+') || '=', CAST(total AS VARCHAR), word FROM spellings WHERE family = 'add'
),
-- Each prompt once, and only where the mistake shows.
distinct_tasks AS (
    SELECT *, row_number() OVER (PARTITION BY family, level ORDER BY seed) AS place
    FROM (
        SELECT *, row_number() OVER (PARTITION BY prompt ORDER BY seed) AS copy
        FROM tasks
        WHERE right_answer <> '' AND mistaken_answer <> '' AND right_answer <> mistaken_answer
    )
    WHERE copy = 1
),
split_tasks AS (
    SELECT *,
           CASE WHEN place <= 9 THEN 'held_out' WHEN place <= 27 THEN 'train' ELSE 'demonstrations' END AS split,
           CASE WHEN place <= 27 THEN NULL
                WHEN chance % 100 < 40 THEN 'none'
                WHEN chance % 100 < 80 THEN 'mistaken'
                ELSE 'chatty' END AS fault
    FROM distinct_tasks
)
SELECT family || '-' || lpad(CAST((level - 1) * 600 + place AS VARCHAR), 4, '0') AS prompt_id,
       prompt,
       right_answer AS reference_answer,
       CASE fault WHEN 'none' THEN right_answer WHEN 'mistaken' THEN mistaken_answer WHEN 'chatty' THEN right_answer || '!' END AS response,
       family AS "group",
       '{"difficulty": ' || CAST(level AS VARCHAR) || '}' AS metadata,
       fault,
       split
FROM split_tasks
ORDER BY prompt_id
