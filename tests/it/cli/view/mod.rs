//! `optune view`: who may ask, what the pages say beside SQL, flags and notes, and a run that goes
//! on.

mod access;
mod annotations;
mod browser;
mod live;
mod pages;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::fixtures::workspace::Workspace;

/// The program over some runs; ends with this.
struct Server {
    process: Child,
    port: u16,
    token: String,
}

/// An answer over HTTP.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_string()
    }
}

impl Server {
    fn start(workspace: &Workspace, runs: &[&str]) -> Self {
        let arguments = [&["view", "--port", "0"], runs].concat();
        let mut process = workspace.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split_once("http://127.0.0.1:").unwrap_or_else(|| panic!("no address in {line:?}")).1;
        let (port, token) = address.trim().split_once("/?token=").unwrap();
        Self { process, port: port.parse().unwrap(), token: token.to_string() }
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}/?token={}", self.port, self.token)
    }

    /// Sends a request as it is.
    fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// A request with these headers, and the host unless they name one.
    fn request(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let host = format!("127.0.0.1:{}", self.port);
        let mut request = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "host") {
            request.push_str(&format!("host: {host}\r\n"));
        }
        headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
        let mut answer = String::new();
        self.send(&format!("{request}\r\n{body}")).read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_string() }
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// A question with the token: the path below `/api/`, and the parameters.
    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Answer {
        let query: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
        self.request("GET", &format!("/api/{path}?{}", query.join("&")), &[("authorization", &self.bearer())], "")
    }

    /// The JSON of a question that has an answer.
    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let answer = self.get(path, parameters);
        assert_eq!(answer.status, 200, "{path} {parameters:?}: {}", answer.body);
        answer.json()
    }

    /// Annotates a row.
    fn annotate(&self, run: &str, annotation: &Value) -> Answer {
        let headers = [("authorization", self.bearer()), ("content-type", "application/json".to_string())];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.request("POST", &format!("/api/annotations?run={run}"), &headers, &annotation.to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
