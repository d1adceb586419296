-- The tables of PostgreSQL's catalog without rows here: a run has no indexes, constraints, functions and so on.
CREATE TABLE pg_aggregate (aggfnoid INT8, aggkind TEXT, aggnumdirectargs INT2, aggtransfn TEXT, aggtranstype INT8);
CREATE TABLE pg_attrdef (oid INT8, adrelid INT8, adnum INT2, adbin TEXT, adsrc TEXT);
CREATE TABLE pg_auth_members (
  oid INT8, roleid INT8, member INT8, grantor INT8, admin_option BOOL, inherit_option BOOL, set_option BOOL
);
CREATE TABLE pg_available_extensions (name TEXT, default_version TEXT, installed_version TEXT, comment TEXT);
CREATE TABLE pg_cast (oid INT8, castsource INT8, casttarget INT8, castfunc INT8, castcontext TEXT, castmethod TEXT);
CREATE TABLE pg_collation (oid INT8, collname TEXT, collnamespace INT8, collowner INT8, collprovider TEXT, collencoding INT4);
CREATE TABLE pg_constraint (
  oid INT8, conname TEXT, connamespace INT8, contype TEXT, condeferrable BOOL, condeferred BOOL, convalidated BOOL,
  conrelid INT8, contypid INT8, conindid INT8, conparentid INT8, confrelid INT8, confupdtype TEXT, confdeltype TEXT,
  confmatchtype TEXT, conislocal BOOL, coninhcount INT2, connoinherit BOOL, conkey INT2[], confkey INT2[],
  conpfeqop INT8[], conexclop INT8[], conbin TEXT, confdelsetcols INT2[], conperiod BOOL
);
CREATE TABLE pg_conversion (
  oid INT8, conname TEXT, connamespace INT8, conowner INT8, conforencoding INT4, contoencoding INT4, conproc TEXT,
  condefault BOOL
);
CREATE TABLE pg_cursors (
  name TEXT, statement TEXT, is_holdable BOOL, is_binary BOOL, is_scrollable BOOL, creation_time TIMESTAMP
);
CREATE TABLE pg_default_acl (oid INT8, defaclrole INT8, defaclnamespace INT8, defaclobjtype TEXT, defaclacl TEXT[]);
CREATE TABLE pg_depend (
  classid INT8, objid INT8, objsubid INT4, refclassid INT8, refobjid INT8, refobjsubid INT4, deptype TEXT
);
CREATE TABLE pg_description (objoid INT8, classoid INT8, objsubid INT4, description TEXT);
CREATE TABLE pg_enum (oid INT8, enumtypid INT8, enumsortorder FLOAT4, enumlabel TEXT);
CREATE TABLE pg_event_trigger (
  oid INT8, evtname TEXT, evtevent TEXT, evtowner INT8, evtfoid INT8, evtenabled TEXT, evttags TEXT[]
);
CREATE TABLE pg_extension (
  oid INT8, extname TEXT, extowner INT8, extnamespace INT8, extrelocatable BOOL, extversion TEXT, extconfig INT8[],
  extcondition TEXT[]
);
CREATE TABLE pg_foreign_data_wrapper (
  oid INT8, fdwname TEXT, fdwowner INT8, fdwhandler INT8, fdwvalidator INT8, fdwacl TEXT[], fdwoptions TEXT[]
);
CREATE TABLE pg_foreign_server (
  oid INT8, srvname TEXT, srvowner INT8, srvfdw INT8, srvtype TEXT, srvversion TEXT, srvacl TEXT[], srvoptions TEXT[]
);
CREATE TABLE pg_foreign_table (ftrelid INT8, ftserver INT8, ftoptions TEXT[]);
CREATE TABLE pg_index (
  indexrelid INT8, indrelid INT8, indnatts INT2, indnkeyatts INT2, indisunique BOOL, indnullsnotdistinct BOOL,
  indisprimary BOOL, indisexclusion BOOL, indimmediate BOOL, indisclustered BOOL, indisvalid BOOL, indcheckxmin BOOL,
  indisready BOOL, indislive BOOL, indisreplident BOOL, indkey INT2[], indcollation INT8[], indclass INT8[],
  indoption INT2[], indexprs TEXT, indpred TEXT
);
CREATE TABLE pg_indexes (schemaname TEXT, tablename TEXT, indexname TEXT, tablespace TEXT, indexdef TEXT);
CREATE TABLE pg_inherits (inhrelid INT8, inhparent INT8, inhseqno INT4, inhdetachpending BOOL);
CREATE TABLE pg_language (
  oid INT8, lanname TEXT, lanowner INT8, lanispl BOOL, lanpltrusted BOOL, lanplcallfoid INT8, laninline INT8,
  lanvalidator INT8, lanacl TEXT[]
);
CREATE TABLE pg_locks (
  locktype TEXT, database INT8, relation INT8, transactionid INT8, pid INT4, mode TEXT, granted BOOL, fastpath BOOL
);
CREATE TABLE pg_matviews (
  schemaname TEXT, matviewname TEXT, matviewowner TEXT, tablespace TEXT, hasindexes BOOL, ispopulated BOOL,
  definition TEXT
);
CREATE TABLE pg_opclass (
  oid INT8, opcmethod INT8, opcname TEXT, opcnamespace INT8, opcowner INT8, opcfamily INT8, opcintype INT8,
  opcdefault BOOL, opckeytype INT8
);
CREATE TABLE pg_operator (
  oid INT8, oprname TEXT, oprnamespace INT8, oprowner INT8, oprkind TEXT, oprcanmerge BOOL, oprcanhash BOOL,
  oprleft INT8, oprright INT8, oprresult INT8, oprcom INT8, oprnegate INT8, oprcode TEXT, oprrest TEXT, oprjoin TEXT
);
CREATE TABLE pg_partitioned_table (
  partrelid INT8, partstrat TEXT, partnatts INT2, partdefid INT8, partattrs INT2[], partclass INT8[],
  partcollation INT8[], partexprs TEXT
);
CREATE TABLE pg_policies (
  schemaname TEXT, tablename TEXT, policyname TEXT, permissive TEXT, roles TEXT[], cmd TEXT, qual TEXT,
  with_check TEXT
);
CREATE TABLE pg_policy (
  oid INT8, polname TEXT, polrelid INT8, polcmd TEXT, polpermissive BOOL, polroles INT8[], polqual TEXT,
  polwithcheck TEXT
);
CREATE TABLE pg_prepared_statements (name TEXT, statement TEXT, prepare_time TIMESTAMP, from_sql BOOL);
CREATE TABLE pg_proc (
  oid INT8, proname TEXT, pronamespace INT8, proowner INT8, prolang INT8, procost FLOAT4, prorows FLOAT4,
  provariadic INT8, prokind TEXT, prosecdef BOOL, proleakproof BOOL, proisstrict BOOL, proretset BOOL,
  provolatile TEXT, proparallel TEXT, pronargs INT2, pronargdefaults INT2, prorettype INT8, proargtypes INT8[],
  proallargtypes INT8[], proargmodes TEXT[], proargnames TEXT[], proargdefaults TEXT, prosrc TEXT, probin TEXT,
  proconfig TEXT[], proacl TEXT[]
);
CREATE TABLE pg_publication (
  oid INT8, pubname TEXT, pubowner INT8, puballtables BOOL, pubinsert BOOL, pubupdate BOOL, pubdelete BOOL,
  pubtruncate BOOL, pubviaroot BOOL
);
CREATE TABLE pg_publication_namespace (oid INT8, pnpubid INT8, pnnspid INT8);
CREATE TABLE pg_publication_rel (oid INT8, prpubid INT8, prrelid INT8, prqual TEXT, prattrs INT2[]);
CREATE TABLE pg_range (
  rngtypid INT8, rngsubtype INT8, rngmultitypid INT8, rngcollation INT8, rngsubopc INT8, rngcanonical INT8,
  rngsubdiff INT8
);
CREATE TABLE pg_replication_slots (
  slot_name TEXT, plugin TEXT, slot_type TEXT, datoid INT8, database TEXT, temporary BOOL, active BOOL,
  active_pid INT4
);
CREATE TABLE pg_rewrite (
  oid INT8, rulename TEXT, ev_class INT8, ev_type TEXT, ev_enabled TEXT, is_instead BOOL, ev_qual TEXT, ev_action TEXT
);
CREATE TABLE pg_rules (schemaname TEXT, tablename TEXT, rulename TEXT, definition TEXT);
CREATE TABLE pg_seclabels (
  objoid INT8, classoid INT8, objsubid INT4, objtype TEXT, objnamespace INT8, objname TEXT, provider TEXT, label TEXT
);
CREATE TABLE pg_sequence (
  seqrelid INT8, seqtypid INT8, seqstart INT8, seqincrement INT8, seqmax INT8, seqmin INT8, seqcache INT8,
  seqcycle BOOL
);
CREATE TABLE pg_sequences (
  schemaname TEXT, sequencename TEXT, sequenceowner TEXT, data_type TEXT, start_value INT8, min_value INT8,
  max_value INT8, increment_by INT8, cycle BOOL, cache_size INT8, last_value INT8
);
CREATE TABLE pg_shdepend (
  dbid INT8, classid INT8, objid INT8, objsubid INT4, refclassid INT8, refobjid INT8, deptype TEXT
);
CREATE TABLE pg_shdescription (objoid INT8, classoid INT8, description TEXT);
CREATE TABLE pg_stat_activity (
  datid INT8, datname TEXT, pid INT4, usesysid INT8, usename TEXT, application_name TEXT, client_addr TEXT,
  client_port INT4, backend_start TIMESTAMP, xact_start TIMESTAMP, query_start TIMESTAMP, state_change TIMESTAMP,
  wait_event_type TEXT, wait_event TEXT, state TEXT, query TEXT, backend_type TEXT
);
CREATE TABLE pg_statistic_ext (
  oid INT8, stxrelid INT8, stxname TEXT, stxnamespace INT8, stxowner INT8, stxstattarget INT4, stxkeys INT2[],
  stxkind TEXT[], stxexprs TEXT
);
CREATE TABLE pg_stats (
  schemaname TEXT, tablename TEXT, attname TEXT, inherited BOOL, null_frac FLOAT4, avg_width INT4, n_distinct FLOAT4,
  correlation FLOAT4
);
CREATE TABLE pg_subscription (oid INT8, subdbid INT8, subname TEXT, subowner INT8, subenabled BOOL);
CREATE TABLE pg_trigger (
  oid INT8, tgrelid INT8, tgparentid INT8, tgname TEXT, tgfoid INT8, tgtype INT2, tgenabled TEXT, tgisinternal BOOL,
  tgconstrrelid INT8, tgconstrindid INT8, tgconstraint INT8, tgdeferrable BOOL, tginitdeferred BOOL, tgnargs INT2,
  tgattr INT2[], tgqual TEXT, tgoldtable TEXT, tgnewtable TEXT
);
CREATE TABLE pg_ts_config (oid INT8, cfgname TEXT, cfgnamespace INT8, cfgowner INT8, cfgparser INT8);
CREATE TABLE pg_user_mapping (oid INT8, umuser INT8, umserver INT8, umoptions TEXT[]);
CREATE TABLE information.check_constraints (
  constraint_catalog TEXT, constraint_schema TEXT, constraint_name TEXT, check_clause TEXT
);
CREATE TABLE information.column_privileges (
  grantor TEXT, grantee TEXT, table_catalog TEXT, table_schema TEXT, table_name TEXT, column_name TEXT,
  privilege_type TEXT, is_grantable TEXT
);
CREATE TABLE information.constraint_column_usage (
  table_catalog TEXT, table_schema TEXT, table_name TEXT, column_name TEXT, constraint_catalog TEXT,
  constraint_schema TEXT, constraint_name TEXT
);
CREATE TABLE information.constraint_table_usage (
  table_catalog TEXT, table_schema TEXT, table_name TEXT, constraint_catalog TEXT, constraint_schema TEXT,
  constraint_name TEXT
);
CREATE TABLE information.domains (domain_catalog TEXT, domain_schema TEXT, domain_name TEXT, data_type TEXT);
CREATE TABLE information.element_types (
  object_catalog TEXT, object_schema TEXT, object_name TEXT, object_type TEXT, collection_type_identifier TEXT,
  data_type TEXT
);
CREATE TABLE information.key_column_usage (
  constraint_catalog TEXT, constraint_schema TEXT, constraint_name TEXT, table_catalog TEXT, table_schema TEXT,
  table_name TEXT, column_name TEXT, ordinal_position INT4, position_in_unique_constraint INT4
);
CREATE TABLE information.parameters (
  specific_catalog TEXT, specific_schema TEXT, specific_name TEXT, ordinal_position INT4, parameter_mode TEXT,
  parameter_name TEXT, data_type TEXT
);
CREATE TABLE information.referential_constraints (
  constraint_catalog TEXT, constraint_schema TEXT, constraint_name TEXT, unique_constraint_catalog TEXT,
  unique_constraint_schema TEXT, unique_constraint_name TEXT, match_option TEXT, update_rule TEXT, delete_rule TEXT
);
CREATE TABLE information.routines (
  specific_catalog TEXT, specific_schema TEXT, specific_name TEXT, routine_catalog TEXT, routine_schema TEXT,
  routine_name TEXT, routine_type TEXT, data_type TEXT, type_udt_name TEXT, routine_definition TEXT,
  external_language TEXT
);
CREATE TABLE information.sequences (
  sequence_catalog TEXT, sequence_schema TEXT, sequence_name TEXT, data_type TEXT, start_value TEXT,
  minimum_value TEXT, maximum_value TEXT, increment TEXT
);
CREATE TABLE information.table_constraints (
  constraint_catalog TEXT, constraint_schema TEXT, constraint_name TEXT, table_catalog TEXT, table_schema TEXT,
  table_name TEXT, constraint_type TEXT, is_deferrable TEXT, initially_deferred TEXT
);
CREATE TABLE information.triggers (
  trigger_catalog TEXT, trigger_schema TEXT, trigger_name TEXT, event_manipulation TEXT, event_object_catalog TEXT,
  event_object_schema TEXT, event_object_table TEXT, action_statement TEXT, action_timing TEXT
);
CREATE TABLE pg_db_role_setting (setdatabase INT8, setrole INT8, setconfig TEXT[]);
