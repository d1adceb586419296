-- The tables of PostgreSQL's catalog with rows, over the tables that `relations.rs` makes: schemas, relations, columns,
-- types, databases, settings and keywords.

CREATE VIEW pg_namespace AS
SELECT oid, name AS nspname, CAST(10 AS BIGINT) AS nspowner, CAST(NULL AS TEXT[]) AS nspacl FROM schemas;

CREATE VIEW pg_class AS
SELECT oid, name AS relname, schema AS relnamespace, CAST(0 AS BIGINT) AS reltype, CAST(0 AS BIGINT) AS reloftype, CAST(10 AS BIGINT) AS relowner,
  CAST(CASE kind WHEN 'r' THEN 2 ELSE 0 END AS BIGINT) AS relam, oid AS relfilenode, CAST(0 AS BIGINT) AS reltablespace, CAST(0 AS INT) AS relpages,
  CAST(-1 AS REAL) AS reltuples, CAST(0 AS INT) AS relallvisible, CAST(0 AS BIGINT) AS reltoastrelid, FALSE AS relhasindex, FALSE AS relisshared,
  'p' AS relpersistence, kind AS relkind, columns AS relnatts, CAST(0 AS SMALLINT) AS relchecks, FALSE AS relhasrules, FALSE AS relhastriggers,
  FALSE AS relhassubclass, FALSE AS relrowsecurity, FALSE AS relforcerowsecurity, TRUE AS relispopulated, 'n' AS relreplident,
  FALSE AS relispartition, FALSE AS relhasoids, CAST(0 AS BIGINT) AS relrewrite, CAST(0 AS BIGINT) AS relfrozenxid, CAST(NULL AS TEXT[]) AS relacl,
  CAST(NULL AS TEXT[]) AS reloptions, CAST(NULL AS TEXT) AS relpartbound, CAST(1 AS BIGINT) AS xmin
FROM relations;

CREATE VIEW pg_attribute AS
SELECT c.relation AS attrelid, c.name AS attname, c.type AS atttypid, CAST(-1 AS INT) AS attstattarget, t.length AS attlen, c.number AS attnum,
  CAST(CASE t.category WHEN 'A' THEN 1 ELSE 0 END AS SMALLINT) AS attndims, CAST(-1 AS INT) AS attcacheoff, CAST(-1 AS INT) AS atttypmod,
  FALSE AS attbyval, 'x' AS attstorage, 'i' AS attalign, '' AS attcompression, NOT c.nullable AS attnotnull, FALSE AS atthasdef,
  FALSE AS atthasmissing, '' AS attidentity, '' AS attgenerated, FALSE AS attisdropped, TRUE AS attislocal, CAST(0 AS SMALLINT) AS attinhcount,
  CAST(0 AS BIGINT) AS attcollation, CAST(NULL AS TEXT[]) AS attacl, CAST(NULL AS TEXT[]) AS attoptions, CAST(NULL AS TEXT[]) AS attfdwoptions
FROM columns c JOIN types t ON t.oid = c.type;

CREATE VIEW pg_type AS
SELECT oid, name AS typname, CAST(11 AS BIGINT) AS typnamespace, CAST(10 AS BIGINT) AS typowner, length AS typlen, length BETWEEN 1 AND 8 AS typbyval,
  kind AS typtype, category AS typcategory, FALSE AS typispreferred, TRUE AS typisdefined, ',' AS typdelim,
  CAST(0 AS BIGINT) AS typrelid, CASE item WHEN 0 THEN '-' ELSE 'array_subscript_handler' END AS typsubscript, item AS typelem, list AS typarray,
  functions || 'in' AS typinput, functions || 'out' AS typoutput, functions || 'recv' AS typreceive, functions || 'send' AS typsend,
  '-' AS typmodin, '-' AS typmodout, '-' AS typanalyze, 'i' AS typalign, 'x' AS typstorage, FALSE AS typnotnull, CAST(0 AS BIGINT) AS typbasetype,
  CAST(-1 AS INT) AS typtypmod, CAST(0 AS INT) AS typndims, CAST(0 AS BIGINT) AS typcollation, CAST(NULL AS TEXT) AS typdefaultbin,
  CAST(NULL AS TEXT) AS typdefault, CAST(NULL AS TEXT[]) AS typacl
FROM types;

CREATE VIEW pg_database AS
SELECT CAST(5 AS BIGINT) AS oid, name AS datname, CAST(10 AS BIGINT) AS datdba, CAST(6 AS INT) AS encoding, 'c' AS datlocprovider,
  FALSE AS datistemplate, TRUE AS datallowconn, CAST(-1 AS INT) AS datconnlimit, CAST(0 AS BIGINT) AS datfrozenxid, CAST(1663 AS BIGINT) AS dattablespace,
  'C' AS datcollate, 'C' AS datctype, CAST(NULL AS TEXT) AS daticulocale, CAST(NULL AS TEXT) AS daticurules, CAST(NULL AS TEXT) AS datcollversion,
  CAST(NULL AS TEXT[]) AS datacl
FROM databases;

CREATE VIEW pg_roles AS
SELECT CAST(10 AS BIGINT) AS oid, 'optune' AS rolname, FALSE AS rolsuper, TRUE AS rolinherit, FALSE AS rolcreaterole, FALSE AS rolcreatedb,
  TRUE AS rolcanlogin, FALSE AS rolreplication, CAST(-1 AS INT) AS rolconnlimit, CAST(NULL AS TEXT) AS rolpassword,
  CAST(NULL AS TIMESTAMP) AS rolvaliduntil, FALSE AS rolbypassrls, CAST(NULL AS TEXT[]) AS rolconfig;

CREATE VIEW pg_authid AS SELECT * FROM pg_roles;

CREATE VIEW pg_user AS
SELECT rolname AS usename, oid AS usesysid, rolcreatedb AS usecreatedb, rolsuper AS usesuper, rolreplication AS userepl, rolbypassrls AS usebypassrls,
  rolpassword AS passwd, rolvaliduntil AS valuntil, rolconfig AS useconfig
FROM pg_roles;

CREATE VIEW pg_shadow AS SELECT * FROM pg_user;

CREATE VIEW pg_group AS SELECT rolname AS groname, oid AS grosysid, CAST(NULL AS BIGINT[]) AS grolist FROM pg_roles WHERE FALSE;

CREATE VIEW pg_am AS SELECT CAST(2 AS BIGINT) AS oid, 'heap' AS amname, 'heap_tableam_handler' AS amhandler, 't' AS amtype;

CREATE VIEW pg_tablespace AS
SELECT CAST(1663 AS BIGINT) AS oid, 'pg_default' AS spcname, CAST(10 AS BIGINT) AS spcowner, CAST(NULL AS TEXT[]) AS spcacl, CAST(NULL AS TEXT[]) AS spcoptions;

CREATE VIEW pg_settings AS
SELECT name, value AS setting, CAST(NULL AS TEXT) AS unit, 'Preset Options' AS category, '' AS short_desc, '' AS extra_desc, 'internal' AS context,
  'string' AS vartype, 'default' AS source, CAST(NULL AS TEXT) AS min_val, CAST(NULL AS TEXT) AS max_val, CAST(NULL AS TEXT[]) AS enumvals,
  value AS boot_val, value AS reset_val, FALSE AS pending_restart
FROM settings;

CREATE VIEW pg_get_keywords AS SELECT word, 'U' AS catcode, FALSE AS barelabel, 'unreserved' AS catdesc, CAST(NULL AS TEXT) AS baredesc FROM keywords;

CREATE VIEW pg_timezone_names AS SELECT 'UTC' AS name, 'UTC' AS abbrev, FALSE AS is_dst;

CREATE VIEW pg_tables AS
SELECT s.name AS schemaname, r.name AS tablename, 'optune' AS tableowner, CAST(NULL AS TEXT) AS tablespace, FALSE AS hasindexes, FALSE AS hasrules,
  FALSE AS hastriggers, FALSE AS rowsecurity
FROM relations r JOIN schemas s ON s.oid = r.schema WHERE r.kind = 'r';

CREATE VIEW pg_views AS
SELECT s.name AS schemaname, r.name AS viewname, 'optune' AS viewowner, r.definition
FROM relations r JOIN schemas s ON s.oid = r.schema WHERE r.kind = 'v';

CREATE VIEW pg_stat_all_tables AS
SELECT r.oid AS relid, s.name AS schemaname, r.name AS relname, CAST(NULL AS BIGINT) AS seq_scan, CAST(NULL AS BIGINT) AS seq_tup_read,
  CAST(NULL AS BIGINT) AS idx_scan, CAST(NULL AS BIGINT) AS n_live_tup, CAST(NULL AS BIGINT) AS n_dead_tup, CAST(NULL AS TIMESTAMP) AS last_vacuum,
  CAST(NULL AS TIMESTAMP) AS last_analyze
FROM relations r JOIN schemas s ON s.oid = r.schema WHERE r.kind = 'r';

CREATE VIEW pg_stat_user_tables AS SELECT * FROM pg_stat_all_tables WHERE schemaname = 'public';

CREATE VIEW pg_statio_user_tables AS SELECT relid, schemaname, relname, CAST(NULL AS BIGINT) AS heap_blks_read, CAST(NULL AS BIGINT) AS heap_blks_hit FROM pg_stat_user_tables;

CREATE VIEW pg_stat_database AS
SELECT CAST(5 AS BIGINT) AS datid, name AS datname, CAST(NULL AS INT) AS numbackends, CAST(NULL AS BIGINT) AS xact_commit, CAST(NULL AS BIGINT) AS tup_returned
FROM databases;

CREATE VIEW information.information_schema_catalog_name AS SELECT name AS catalog_name FROM databases;

CREATE VIEW information.schemata AS
SELECT d.name AS catalog_name, s.name AS schema_name, 'optune' AS schema_owner, CAST(NULL AS TEXT) AS default_character_set_catalog,
  CAST(NULL AS TEXT) AS default_character_set_schema, CAST(NULL AS TEXT) AS default_character_set_name, CAST(NULL AS TEXT) AS sql_path
FROM schemas s CROSS JOIN databases d;

CREATE VIEW information.tables AS
SELECT d.name AS table_catalog, s.name AS table_schema, r.name AS table_name, CASE r.kind WHEN 'r' THEN 'BASE TABLE' ELSE 'VIEW' END AS table_type,
  CAST(NULL AS TEXT) AS self_referencing_column_name, CAST(NULL AS TEXT) AS reference_generation, CAST(NULL AS TEXT) AS user_defined_type_catalog,
  CAST(NULL AS TEXT) AS user_defined_type_schema, CAST(NULL AS TEXT) AS user_defined_type_name, 'NO' AS is_insertable_into, 'NO' AS is_typed,
  CAST(NULL AS TEXT) AS commit_action
FROM relations r JOIN schemas s ON s.oid = r.schema CROSS JOIN databases d;

CREATE VIEW information.views AS
SELECT d.name AS table_catalog, s.name AS table_schema, r.name AS table_name, r.definition AS view_definition, 'NONE' AS check_option,
  'NO' AS is_updatable, 'NO' AS is_insertable_into, 'NO' AS is_trigger_updatable, 'NO' AS is_trigger_deletable, 'NO' AS is_trigger_insertable_into
FROM relations r JOIN schemas s ON s.oid = r.schema CROSS JOIN databases d WHERE r.kind = 'v';

CREATE VIEW information.columns AS
SELECT d.name AS table_catalog, s.name AS table_schema, r.name AS table_name, c.name AS column_name, CAST(c.number AS INT) AS ordinal_position,
  CAST(NULL AS TEXT) AS column_default, CASE WHEN c.nullable THEN 'YES' ELSE 'NO' END AS is_nullable,
  t.sql AS data_type, CAST(NULL AS INT) AS character_maximum_length,
  CAST(CASE t.category WHEN 'S' THEN 1073741824 END AS INT) AS character_octet_length,
  CAST(CASE t.name WHEN 'int2' THEN 16 WHEN 'int4' THEN 32 WHEN 'int8' THEN 64 WHEN 'float4' THEN 24 WHEN 'float8' THEN 53 END AS INT) AS numeric_precision,
  CAST(CASE WHEN t.name IN ('int2', 'int4', 'int8', 'float4', 'float8') THEN 2 END AS INT) AS numeric_precision_radix,
  CAST(CASE WHEN t.name IN ('int2', 'int4', 'int8') THEN 0 END AS INT) AS numeric_scale,
  CAST(CASE t.category WHEN 'D' THEN CASE t.name WHEN 'date' THEN 0 ELSE 6 END END AS INT) AS datetime_precision, CAST(NULL AS TEXT) AS interval_type,
  CAST(NULL AS TEXT) AS character_set_name, CAST(NULL AS TEXT) AS collation_catalog, CAST(NULL AS TEXT) AS collation_schema,
  CAST(NULL AS TEXT) AS collation_name, CAST(NULL AS TEXT) AS domain_catalog, CAST(NULL AS TEXT) AS domain_schema, CAST(NULL AS TEXT) AS domain_name,
  d.name AS udt_catalog, 'pg_catalog' AS udt_schema, t.name AS udt_name, CAST(c.number AS TEXT) AS dtd_identifier, 'NO' AS is_self_referencing,
  'NO' AS is_identity, CAST(NULL AS TEXT) AS identity_generation, CAST(NULL AS TEXT) AS identity_start, CAST(NULL AS TEXT) AS identity_increment,
  'NEVER' AS is_generated, CAST(NULL AS TEXT) AS generation_expression, 'NO' AS is_updatable
FROM columns c JOIN relations r ON r.oid = c.relation JOIN schemas s ON s.oid = r.schema JOIN types t ON t.oid = c.type CROSS JOIN databases d;

CREATE VIEW information.table_privileges AS
SELECT 'optune' AS grantor, 'optune' AS grantee, d.name AS table_catalog, s.name AS table_schema, r.name AS table_name, 'SELECT' AS privilege_type,
  'NO' AS is_grantable, 'YES' AS with_hierarchy
FROM relations r JOIN schemas s ON s.oid = r.schema CROSS JOIN databases d;

CREATE VIEW information.role_table_grants AS SELECT * FROM information.table_privileges;

CREATE VIEW information.enabled_roles AS SELECT 'optune' AS role_name;

CREATE VIEW information.applicable_roles AS SELECT 'optune' AS grantee, 'optune' AS role_name, 'NO' AS is_grantable WHERE FALSE;

CREATE VIEW information.character_sets AS
SELECT CAST(NULL AS TEXT) AS character_set_catalog, CAST(NULL AS TEXT) AS character_set_schema, 'UTF8' AS character_set_name,
  'UCS' AS character_repertoire, 'UTF8' AS form_of_use, name AS default_collate_catalog, 'pg_catalog' AS default_collate_schema, 'C' AS default_collate_name
FROM databases;
