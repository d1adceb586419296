-- The types $1 and those of the items of lists among them.
WITH asked AS (
  SELECT oid, typname, typtype, typelem, 0 AS depth FROM pg_catalog.pg_type WHERE oid = ANY(CAST($1 AS INT UNSIGNED[]))
), tree AS (
  SELECT * FROM asked
  UNION ALL
  SELECT t.oid, t.typname, t.typtype, t.typelem, 1 AS depth FROM pg_catalog.pg_type t JOIN asked a ON a.typelem = t.oid
)
SELECT DISTINCT oid, 'pg_catalog' AS ns, typname AS name, typtype AS kind, CAST(NULL AS BIGINT) AS basetype, typelem AS elemtype,
  CASE typelem WHEN 0 THEN NULL ELSE ',' END AS elemdelim, CAST(NULL AS BIGINT) AS range_subtype, CAST(NULL AS TEXT[]) AS attrtypoids,
  CAST(NULL AS TEXT[]) AS attrnames, depth, CAST(NULL AS TEXT) AS basetype_name, regtype_name(typelem) AS elemtype_name,
  CAST(NULL AS TEXT) AS range_subtype_name
FROM tree ORDER BY depth DESC
