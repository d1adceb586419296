//! `optune sql --serve`, asked by a client of PostgreSQL, while the run goes on.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use postgres::{Client, NoTls, SimpleQueryMessage};

use crate::fixtures::workspace::Workspace;

/// A server over the run `small`; ends with this.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(workspace: &Workspace) -> Self {
        let mut process = workspace.command(&["sql", "small", "--serve", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(',').next()).and_then(|port| port.parse().ok());
        Self { process, port: port.unwrap_or_else(|| panic!("no port in {line:?}")) }
    }

    fn connect(&self) -> Client {
        Client::connect(&format!("host=127.0.0.1 port={} user=any dbname=small", self.port), NoTls).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// The first value of a query by the simple protocol.
fn simple(client: &mut Client, query: &str) -> Result<Option<String>, String> {
    let messages =
        client.simple_query(query).map_err(|error| error.as_db_error().map_or(error.to_string(), |error| error.message().to_string()))?;
    let row = messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).map(String::from)),
        _ => None,
    });
    Ok(row.flatten())
}

#[test]
fn a_run_is_asked_while_it_goes_on() {
    let workspace = Workspace::new();
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 4");
    let mut run = workspace.start(&["run", "pipeline.yaml"]);
    let journal = workspace.path("runs/small/journal.jsonl");
    let begun = Instant::now();
    while !journal.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no journal");
        std::thread::sleep(Duration::from_millis(5));
    }
    let server = Server::start(&workspace);
    let mut client = server.connect();
    let (mut counts, mut over) = (Vec::new(), false);
    loop {
        match simple(&mut client, "SELECT count(*) FROM responses") {
            Ok(count) => counts.push(count.unwrap().parse::<u64>().unwrap()),
            Err(error) => assert!(counts.is_empty() && error.contains("table 'responses' not found"), "{error}"),
        }
        if over {
            break;
        }
        // PromptContent once more after the run's end.
        over = run.try_wait().unwrap().is_some();
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(run.wait().unwrap().success());
    // A part has the 3 responses of 4 prompts, the last of each iteration maybe those of fewer: 20
    // prompts, then 10 in each of three.
    let whole = |count: &u64| {
        (0..=60)
            .step_by(12)
            .chain((60..150).step_by(30).flat_map(|before| [12, 24, 30].map(|more| before + more)))
            .any(|whole| whole == *count)
    };
    assert!(counts.iter().all(whole), "{counts:?}");
    assert!(counts.is_sorted(), "{counts:?}");
    assert_eq!(counts.last(), Some(&150));
    let between = counts.iter().filter(|count| (1..150).contains(*count)).count();
    assert!(between > 0, "{counts:?}");
}

#[test]
fn rows_have_their_types_and_parameters_are_bound() {
    let workspace = Workspace::finished();
    let server = Server::start(&workspace);
    let mut client = server.connect();
    let query = "SELECT r.prompt_id, r.sampled_iteration, r.reward, s.rank, s.selected, p.token_ids, r.error, r.components
       FROM rewards r JOIN selection s ON s.prompt_id = r.prompt_id
       JOIN responses p ON p.prompt_id = r.prompt_id AND p.response_index = r.response_index
       WHERE r.prompt_id = $1 AND r.response_index < $2 AND r.reward > $3 ORDER BY r.response_index";
    let rows = client.query(query, &[&"p-003", &2_i32, &-10.0_f64]).unwrap();
    assert_eq!(rows.len(), 2);
    for row in &rows {
        assert_eq!(row.get::<_, &str>(0), "p-003");
        assert_eq!((row.get::<_, i32>(1), row.get::<_, bool>(4)), (1, true));
        assert!(row.get::<_, f64>(2).is_finite() && row.get::<_, i64>(3) >= 1);
        assert!(!row.get::<_, Vec<i32>>(5).is_empty());
        assert_eq!(row.get::<_, Option<&str>>(6), None);
        assert!(row.get::<_, &str>(7).contains("exact"));
    }
    // The same numbers as `optune sql` prints.
    let printed =
        workspace.query("small", "SELECT reward FROM rewards WHERE prompt_id = 'p-003' AND response_index < 2 ORDER BY response_index");
    let printed: Vec<f64> = printed.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(rows.iter().map(|row| row.get::<_, f64>(2)).collect::<Vec<_>>(), printed);
    // All rows of a result longer than a batch, and of a result without rows.
    let long = client.query("SELECT a.prompt_id FROM responses a CROSS JOIN responses b CROSS JOIN prompts c", &[]).unwrap();
    assert_eq!(long.len(), 60 * 60 * 20);
    assert_eq!(client.query("SELECT prompt_id FROM pool WHERE reward > 100", &[]).unwrap().len(), 0);
    // A portal, read a few rows at a time inside a transaction, as drivers with cursors do.
    let mut transaction = client.transaction().unwrap();
    let portal = transaction.bind("SELECT prompt_id FROM responses ORDER BY 1", &[]).unwrap();
    let mut fetched = 0;
    loop {
        let some = transaction.query_portal(&portal, 7).unwrap().len();
        fetched += some;
        if some == 0 {
            break;
        }
    }
    assert_eq!(fetched, 60);
    transaction.commit().unwrap();
}

#[test]
fn clients_can_ask_and_nothing_else() {
    let workspace = Workspace::finished();
    let before = workspace.result("small");
    let server = Server::start(&workspace);
    let mut client = server.connect();
    let prompts = workspace.path("prompts.jsonl").display().to_string();
    for statement in [
        "DROP TABLE pool".to_string(),
        "CREATE TABLE x AS SELECT 1".to_string(),
        "INSERT INTO pool SELECT * FROM pool".to_string(),
        format!("COPY pool TO '{}'", workspace.path("out.parquet").display()),
        format!("CREATE EXTERNAL TABLE x STORED AS JSON LOCATION '{prompts}'"),
        format!("SELECT * FROM '{prompts}'"),
        "SELEC 1".to_string(),
        "SELECT * FROM pol".to_string(),
    ] {
        assert!(simple(&mut client, &statement).is_err(), "{statement}");
        assert!(client.query(statement.as_str(), &[]).is_err(), "{statement}");
        // And the connection goes on.
        assert_eq!(simple(&mut client, "SELECT 42"), Ok(Some("42".to_string())), "{statement}");
    }
    let error = simple(&mut client, "SELECT * FROM pol").unwrap_err();
    assert!(error.contains("did you mean \"pool\"?"), "{error}");
    assert_eq!(simple(&mut client, "SET application_name = 'x'"), Ok(None));
    assert!(client.query("SELECT $1::int", &[]).is_err());
    assert!(client.query("SELECT 1; SELECT 2", &[]).is_err());
    assert_eq!(workspace.result("small"), before);
    assert!(!workspace.path("out.parquet").exists());

    for other in ["0.0.0.0:0", "[::]:0", "nonsense"] {
        let error = workspace.fail(&["sql", "small", "--serve", other], 2);
        assert!(error.contains("expected HOST:PORT of this machine alone"), "{error}");
    }
}

#[test]
fn a_query_that_a_client_takes_back_ends() {
    let workspace = Workspace::finished();
    let server = Server::start(&workspace);
    let mut client = server.connect();
    let cancel = client.cancel_token();
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        cancel.cancel_query(NoTls).unwrap();
    });
    let begun = Instant::now();
    // 60^5 rows: hours.
    let endless = "SELECT count(*) FROM responses a, responses b, responses c, responses d, responses e WHERE a.logprob + b.logprob + c.logprob + d.logprob + e.logprob > 0";
    let error = simple(&mut client, endless).unwrap_err();
    canceller.join().unwrap();
    assert!(error.contains("cancel") && begun.elapsed() < Duration::from_secs(20), "{error}");
    assert_eq!(simple(&mut client, "SELECT 42"), Ok(Some("42".to_string())));
}

#[test]
fn several_statements_settings_cursors_and_copies_are_answered() {
    let workspace = Workspace::finished();
    let server = Server::start(&workspace);
    let mut client = server.connect();
    let values = |messages: Vec<SimpleQueryMessage>| {
        let value = |message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(String::from),
            _ => None,
        };
        messages.into_iter().filter_map(value).collect::<Vec<_>>()
    };
    assert_eq!(values(client.simple_query("SELECT 1; SELECT ';' ; -- no more\n").unwrap()), ["1", ";"]);
    // The rows of the statements before a wrong one are not the answer of the whole.
    let error = client.simple_query("SELECT 1; SELECT * FROM pol; SELECT 2").unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("did you mean"), "{error}");
    assert_eq!(simple(&mut client, "SHOW TimeZone"), Ok(Some("Etc/UTC".to_string())));
    assert!(simple(&mut client, "SHOW tabels").unwrap_err().contains("unrecognized configuration parameter"));

    let cursor = "BEGIN; DECLARE c CURSOR FOR SELECT prompt_id FROM prompts ORDER BY 1; FETCH 2 FROM c; FETCH 1 FROM c; CLOSE c; COMMIT";
    assert_eq!(values(client.simple_query(cursor).unwrap()), ["p-000", "p-001", "p-002"]);
    assert!(simple(&mut client, "FETCH 1 FROM c").unwrap_err().contains("cursor \"c\" does not exist"));
    simple(&mut client, "BEGIN; DECLARE c CURSOR FOR SELECT 1; COMMIT").unwrap();
    assert!(simple(&mut client, "FETCH 1 FROM c").is_err(), "a cursor ends with its transaction");

    let mut copied = |statement: &str| {
        let mut bytes = Vec::new();
        client.copy_out(statement).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let query = "SELECT 1 AS one, 'a,\"b\"' AS \"two, 2\", CAST(NULL AS INT) AS three";
    assert_eq!(copied(&format!("COPY ({query}) TO STDOUT")), b"1\ta,\"b\"\t\\N\n");
    assert_eq!(copied(&format!("COPY ({query}) TO STDOUT (FORMAT csv, HEADER)")), b"one,\"two, 2\",three\n1,\"a,\"\"b\"\"\",\n");
    let none = copied("COPY (SELECT 1 AS one WHERE false) TO STDOUT (FORMAT csv, HEADER)");
    assert_eq!(none, b"one\n");
    let binary = copied("COPY (SELECT CAST(258 AS INT)) TO STDOUT (FORMAT binary)");
    let signature = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    assert_eq!(binary, [&signature[..], b"\0\x01\0\0\0\x04\0\0\x01\x02", b"\xff\xff"].concat());
    assert!(client.copy_out("COPY prompts FROM STDIN").is_err());
}

#[test]
fn the_catalog_describes_the_run_and_nothing_else_changes() {
    let workspace = Workspace::finished();
    let server = Server::start(&workspace);
    let mut client = server.connect();
    let names = "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE nspname = 'public' ORDER BY 1";
    let listed: Vec<String> = client.query(names, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    let printed = workspace.query("small", "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1");
    assert_eq!(listed, printed.lines().collect::<Vec<_>>());
    // The oid of a table is the same in another server.
    let oid = |client: &mut Client| simple(client, "SELECT 'rewards'::regclass::oid").unwrap().unwrap();
    assert_eq!(oid(&mut client), oid(&mut Server::start(&workspace).connect()));
    assert_eq!(simple(&mut client, "SELECT oid::regclass FROM pg_class WHERE relname = 'rewards'"), Ok(Some("rewards".to_string())));
    assert!(simple(&mut client, "SELECT 'nothing'::regclass").unwrap_err().contains("relation \"nothing\" does not exist"));
    let kind = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'rewards'::regclass AND attname = 'reward'";
    assert_eq!(simple(&mut client, kind), Ok(Some("double precision".to_string())));
    assert!(simple(&mut client, "SELECT version()").unwrap().unwrap().starts_with("PostgreSQL 16."));
    assert_eq!(simple(&mut client, "SELECT current_database()"), Ok(Some("small".to_string())));
    // The catalog is not among the tables of the run.
    let shown = client.simple_query("SHOW TABLES").unwrap();
    assert!(!format!("{shown:?}").contains("pg_class"));
    for (query, expected) in [
        ("SELECT EXTRACT(year FROM TIMESTAMP '2026-02-28 01:02:03.5')", 2026.0),
        ("SELECT EXTRACT(second FROM TIMESTAMP '2026-02-28 01:02:03.5')", 3.5),
        ("SELECT EXTRACT(epoch FROM TIMESTAMP '1969-12-31 23:59:59.75')", -0.25),
        ("SELECT EXTRACT(isodow FROM DATE '2026-03-01')", 7.0),
        ("SELECT date_part('doy', DATE '2026-03-01')", 60.0),
    ] {
        let found: f64 = simple(&mut client, query).unwrap().unwrap().parse().unwrap();
        assert!((found - expected).abs() < 1e-9, "{query}: {found}");
    }
    assert!(simple(&mut client, "SELECT EXTRACT(age FROM DATE '2026-03-01')").unwrap_err().contains("expected year"));
    assert!(workspace.query("small", "SELECT EXTRACT(month FROM DATE '2026-03-01')").contains('3'));
}

#[test]
fn the_65th_client_is_told() {
    let workspace = Workspace::finished();
    let server = Server::start(&workspace);
    let mut clients: Vec<Client> = (0..64).map(|_| server.connect()).collect();
    let refused = Client::connect(&format!("host=127.0.0.1 port={} user=any dbname=small", server.port), NoTls);
    let error = refused.err().expect("one client more");
    assert_eq!(error.as_db_error().map(|error| error.code().code()), Some("53300"), "{error}");
    for client in &mut clients {
        assert_eq!(simple(client, "SELECT 42"), Ok(Some("42".to_string())));
    }
    clients.pop();
    let until = Instant::now() + Duration::from_secs(20);
    while Client::connect(&format!("host=127.0.0.1 port={} user=any dbname=small", server.port), NoTls).is_err() {
        assert!(Instant::now() < until, "the place of a client that left stays taken");
        std::thread::sleep(Duration::from_millis(20));
    }
}
